//! What librdkafka said last of its connections: its errors tell no more than that a broker is away, and not whether its name is
//! unknown, nobody listens there, or somebody does who speaks something else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What was heard before that is no news.
const NEWS: Duration = Duration::from_secs(90);

/// By the brokers as they are written in the settings.
static HEARD: Mutex<BTreeMap<String, (Instant, String)>> = Mutex::new(BTreeMap::new());

fn heard() -> MutexGuard<'static, BTreeMap<String, (Instant, String)>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what the library says of a client, if it is why a connection failed.
pub(super) fn note(brokers: &str, error: &KafkaError, reason: &str) {
    use RDKafkaErrorCode as Code;
    let about_connections =
        [Code::BrokerTransportFailure, Code::Resolve, Code::Authentication, Code::SSL, Code::BadMessage];
    if error.rdkafka_error_code().is_some_and(|code| about_connections.contains(&code)) {
        heard().insert(brokers.to_owned(), (Instant::now(), plain(reason)));
    }
}

/// Why a connection failed, if one did a short while ago, with what to do about it.
pub(super) fn lately(brokers: &str) -> Option<String> {
    let (_, text) = heard().get(brokers).filter(|(at, _)| at.elapsed() < NEWS).cloned()?;
    let remedy = match () {
        () if text.contains("resolve") => "; check the name of the host under transport.kafka.brokers",
        () if text.contains("refused") => "; nobody listens there: check host and port under transport.kafka.brokers",
        () if ["security.protocol", "SSL", "isconnected", "response size"].iter().any(|sign| text.contains(sign)) => {
            "; check that a Kafka broker listens there, and `security.protocol` under transport.kafka.properties"
        }
        () => "",
    };
    Some(text + remedy)
}

/// Without the state that the connection was in, and since when.
fn plain(reason: &str) -> String {
    reason.split_once(" (after ").map_or(reason, |(reason, _)| reason).replace("/bootstrap", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_told_with_its_remedy() {
        assert_eq!(lately("a:1"), None);
        let reason =
            "a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        note("a:1", &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(lately("a:1"), None);
        note("a:1", &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), reason);
        let told = lately("a:1").expect("something");
        assert!(
            told.starts_with("a:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused; nobody listens"),
            "{told}"
        );
        assert_eq!(lately("b:1"), None);
    }
}
