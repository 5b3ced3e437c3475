//! Which topic a name means: one that was deleted and made again has the same name, and is another one.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

/// The identity of a topic, which it has for as long as it is there. As text it is what Kafka's own tools print: base64 of its 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicId([u8; 16]);

impl TopicId {
    /// That of a new topic, by chance.
    pub fn new() -> Self {
        let [one, other] = [(); 2].map(|()| RandomState::new().hash_one(std::process::id()).to_be_bytes());
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&one);
        bytes[8..].copy_from_slice(&other);
        Self(bytes)
    }

    /// Whether two topics are known and not the same. Of what was not told nothing is known.
    pub fn is_other(one: Option<Self>, other: Option<Self>) -> bool {
        matches!((one, other), (Some(one), Some(other)) if one != other)
    }

    /// What a broker says; none where it does not tell.
    pub(crate) fn told(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl Default for TopicId {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

/// A text that is no identity of a topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no identity of a topic")]
pub struct NoTopicId(String);

impl FromStr for TopicId {
    type Err = NoTopicId;

    fn from_str(text: &str) -> Result<Self, NoTopicId> {
        let mut bytes = [0; 16];
        match BASE64.decode_slice(text, &mut bytes) {
            Ok(16) => Ok(Self(bytes)),
            _ => Err(NoTopicId(text.to_owned())),
        }
    }
}

impl TryFrom<String> for TopicId {
    type Error = NoTopicId;

    fn try_from(text: String) -> Result<Self, NoTopicId> {
        text.parse()
    }
}

impl From<TopicId> for String {
    fn from(id: TopicId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let all: HashSet<TopicId> = (0..1_000).map(|_| TopicId::new()).collect();
        assert_eq!(all.len(), 1_000);
        for id in all {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(serde_json::from_str::<TopicId>(&serde_json::to_string(&id).unwrap_or_default()).ok(), Some(id));
        }
        for other in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "no identity of a topic"] {
            assert!(other.parse::<TopicId>().is_err(), "{other}");
        }
        assert_eq!(TopicId::told([0; 16]), None);
    }
}
