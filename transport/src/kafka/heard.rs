//! What librdkafka said last of its connections: its errors tell no more than that a broker is away, and not whether its name is
//! unknown, nobody listens there, or somebody does who speaks something else.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What was heard before that is no news.
const NEWS: Duration = Duration::from_secs(90);

/// By the brokers as they are written in the settings.
static HEARD: Mutex<BTreeMap<String, (Instant, String)>> = Mutex::new(BTreeMap::new());

fn heard() -> MutexGuard<'static, BTreeMap<String, (Instant, String)>> {
    HEARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps a line of the library's log, if it is about a connection that failed.
pub(super) fn note(brokers: &str, facility: &str, line: &str) {
    if facility == "FAIL" {
        heard().insert(brokers.to_owned(), (Instant::now(), plain(line)));
    }
}

/// Why a connection failed, if one did a short while ago, with what to do about it.
pub(super) fn lately(brokers: &str) -> Option<String> {
    let (_, text) = heard().get(brokers).filter(|(at, _)| at.elapsed() < NEWS).cloned()?;
    let remedy = match () {
        () if text.contains("resolve") => "; check the name of the host under transport.kafka.brokers",
        () if text.contains("refused") => "; nobody listens there: check host and port under transport.kafka.brokers",
        () if ["security.protocol", "SSL", "Disconnected"].iter().any(|sign| text.contains(sign)) => {
            "; check that a Kafka broker listens there, and `security.protocol` under transport.kafka.properties"
        }
        () => "",
    };
    Some(text + remedy)
}

/// Without the thread that said it, and the state that the connection was in.
fn plain(line: &str) -> String {
    let line = line.strip_prefix("[thrd:").and_then(|line| line.split_once("]: ")).map_or(line, |(_, line)| line);
    line.split_once(" (after ").map_or(line, |(line, _)| line).replace("/bootstrap", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_told_with_its_remedy() {
        assert_eq!(lately("a:1"), None);
        let line = "[thrd:a:1/bootstrap]: a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        note("a:1", "CONFWARN", "something else");
        assert_eq!(lately("a:1"), None);
        note("a:1", "FAIL", line);
        let told = lately("a:1").expect("something");
        assert!(
            told.starts_with("a:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused; nobody listens"),
            "{told}"
        );
        assert_eq!(lately("b:1"), None);
    }
}
