//! Which version of a request is spoken: the newest that we and the broker know.
//!
//! Versions of the flexible kind write lengths in as few bytes as will do, and have room for tagged fields.

use std::collections::BTreeMap;

use rdkafka::error::RDKafkaErrorCode as Code;
use tributary_event::ErrorClass;

use super::connection::Broken;
use super::request::Answer;

/// A request: its number, and the versions that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Api {
    pub key: i16,
    pub name: &'static str,
    pub first: i16,
    pub last: i16,
    /// The first flexible version.
    flexible: i16,
}

const fn api(key: i16, name: &'static str, first: i16, last: i16, flexible: i16) -> Api {
    Api { key, name, first, last, flexible }
}

/// Up to the version before that in which partitions need not be told to the coordinator.
pub(super) const PRODUCE: Api = api(0, "Produce", 7, 11, 9);
pub(super) const METADATA: Api = api(3, "Metadata", 5, 13, 9);
pub(super) const FIND_COORDINATOR: Api = api(10, "FindCoordinator", 1, 6, 3);
pub(super) const SASL_HANDSHAKE: Api = api(17, "SaslHandshake", 1, 1, i16::MAX);
pub(super) const API_VERSIONS: Api = api(18, "ApiVersions", 0, 4, 3);
pub(super) const INIT_PRODUCER_ID: Api = api(22, "InitProducerId", 3, 5, 2);
/// Later versions are for brokers among themselves.
pub(super) const ADD_PARTITIONS: Api = api(24, "AddPartitionsToTxn", 1, 3, 3);
/// Up to the version before that in which every end of a transaction gives another epoch.
pub(super) const END: Api = api(26, "EndTxn", 1, 4, 3);
pub(super) const SASL_AUTHENTICATE: Api = api(36, "SaslAuthenticate", 1, 2, 2);
pub(super) const ALTER_CONFIGS: Api = api(44, "IncrementalAlterConfigs", 0, 1, 1);

/// What a producer needs.
pub(super) const NEEDED: [Api; 6] = [PRODUCE, METADATA, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, END];

/// The version of ApiVersions with which a broker is asked first. One that does not know it says which it knows.
const FIRST_ASKED: i16 = 3;

/// A request in the version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spoken {
    pub key: i16,
    pub version: i16,
    /// Its header and its fields are flexible.
    pub flexible: bool,
}

impl Spoken {
    /// Whether the header of its answer is flexible. That of ApiVersions never is: who reads it does not know the broker yet.
    pub fn answers_flexibly(self) -> bool {
        self.flexible && self.key != API_VERSIONS.key
    }
}

impl Api {
    fn in_version(self, version: i16) -> Spoken {
        Spoken { key: self.key, version, flexible: version >= self.flexible }
    }
}

/// The first and the last version of each request that a broker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Versions(BTreeMap<i16, (i16, i16)>);

impl Versions {
    /// Of a broker that has told nothing yet.
    pub fn untold() -> Self {
        Self([(API_VERSIONS.key, (0, FIRST_ASKED))].into())
    }

    /// Of a broker that told its ranges.
    pub fn told(ranges: impl IntoIterator<Item = (i16, (i16, i16))>) -> Self {
        let mut ranges: BTreeMap<_, _> = ranges.into_iter().collect();
        // It answered in the oldest version, whatever it says.
        ranges.entry(API_VERSIONS.key).or_insert((0, 0));
        Self(ranges)
    }

    /// The newest version that both know.
    pub fn choose(&self, api: Api) -> Result<Spoken, Broken> {
        let told = self.0.get(&api.key);
        if let Some((first, last)) = told {
            let version = api.last.min(*last);
            if version >= api.first.max(*first) {
                return Ok(api.in_version(version));
            }
        }
        let theirs = told.map_or("does not know it".to_owned(), |(first, last)| format!("knows {first} to {last}"));
        let Api { name, first: ours, last: newest, .. } = api;
        let text =
            format!("of the request {name} versions {ours} to {newest} are spoken here, and the broker {theirs}");
        Err(Broken { code: Some(Code::UnsupportedVersion), class: ErrorClass::Fatal, text })
    }
}

/// What a broker answers that does not know the version that was asked.
pub(super) const UNSUPPORTED_VERSION: Answer = 35;

#[cfg(test)]
mod tests {
    use rdkafka::error::RDKafkaErrorCode as Code;

    use super::{API_VERSIONS, Api, END, PRODUCE, Versions};

    fn chosen(api: Api, first: i16, last: i16) -> Result<(i16, bool), Option<Code>> {
        let chosen = Versions::told([(api.key, (first, last))]).choose(api);
        chosen.map(|spoken| (spoken.version, spoken.flexible)).map_err(|broken| broken.code)
    }

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        for (first, last, version) in
            [(0, 8, (8, false)), (3, 9, (9, true)), (3, 13, (11, true)), (11, 20, (11, true)), (0, 7, (7, false))]
        {
            assert_eq!(chosen(PRODUCE, first, last), Ok(version), "{first} to {last}");
        }
        for (first, last) in [(0, 6), (12, 13)] {
            assert_eq!(chosen(PRODUCE, first, last), Err(Some(Code::UnsupportedVersion)));
        }
    }

    #[test]
    fn a_refusal_names_the_request_and_both_ranges() {
        let text = Versions::told([(END.key, (5, 7))]).choose(END).unwrap_err().text;
        assert_eq!(text, "of the request EndTxn versions 1 to 4 are spoken here, and the broker knows 5 to 7");
        let text = Versions::told([]).choose(END).unwrap_err().text;
        assert!(text.ends_with("and the broker does not know it"), "{text}");
    }

    #[test]
    fn a_broker_that_tells_nothing_is_asked_in_a_version_that_older_ones_refuse_with_their_own() {
        assert_eq!(Versions::untold().choose(API_VERSIONS).unwrap().version, 3);
        assert_eq!(Versions::told([]).choose(API_VERSIONS).unwrap().version, 0);
        assert!(!Versions::untold().choose(API_VERSIONS).unwrap().answers_flexibly());
    }
}
