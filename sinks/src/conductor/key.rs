//! What a server knows the start for an event by: as a key with Orkes, as the correlation id with the open source server.
//!
//! The id of an event is the same for every sink. Two sinks may start the same workflow for it, and the second one must not be told that
//! its workflow is there already: so the stream and the sink are in the key. It is part of a path, of a query and of rows of databases, so
//! it is made of few characters, and is never long.

use ring::digest::{SHA256, digest};
use tributary_processor::sink::OutEvent;

use crate::text::{escape, hex};

/// The longest key: databases of servers keep 191 characters, and fewer in some.
const LONGEST: usize = 150;

/// The key of an event at a sink: `<pipeline>:<source>:<stream>:<sink>:<id>`, or the digest of that where it is long.
pub(super) fn key(event: &OutEvent, sink: &str) -> String {
    let part = |text: &str| escape(text, '~', |byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    // It always begins with a slash.
    let source: Vec<String> = event.source.trim_start_matches('/').split('/').map(part).collect();
    let key = format!("{}:{}:{}:{}", source.join(":"), part(&event.kind), part(sink), part(&event.id));
    match key.len() {
        ..=LONGEST => key,
        _ => format!("sha256:{}", hex(digest(&SHA256, key.as_bytes()).as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use tributary_event::Op;

    fn event(source: &str, kind: &str, id: &str) -> OutEvent {
        OutEvent {
            id: id.into(),
            source: source.into(),
            kind: kind.into(),
            op: Op::Update,
            sequence: 7,
            committed_us: None,
            key: None,
            content: None,
            row_key: None,
            span: None,
        }
    }

    #[test]
    fn a_key_names_event_and_sink() {
        assert_eq!(key(&event("/films/main", "big", "7.2"), "conductor"), "films:main:big:conductor:7.2");
        assert_eq!(key(&event("/films/main db", "ü", "7"), "a/b"), "films:main~20db:~C3~BC:a~2Fb:7");
    }

    #[test]
    fn different_events_and_sinks_have_different_keys() {
        let long = "x".repeat(100);
        let mut keys = BTreeSet::new();
        let mut count = 0;
        for source in ["/a/b", "/a/b:c", "/a:b", "/a~b/c", &format!("/{long}/b"), &format!("/{long}/c")] {
            for kind in ["s", "s:t", "t", &long] {
                for sink in ["c", "c:1", "c-2"] {
                    for id in ["1", "1.2", "12"] {
                        let key = key(&event(source, kind, id), sink);
                        assert!(
                            key.len() <= LONGEST && key.bytes().all(|b| b.is_ascii_graphic() && b != b'/'),
                            "{key}"
                        );
                        keys.insert(key);
                        count += 1;
                    }
                }
            }
        }
        assert_eq!(keys.len(), count);
    }
}
