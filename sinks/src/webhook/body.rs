//! What a request carries: body, id and attributes of its events.
//!
//! Reference: CloudEvents 1.0.2, HTTP Protocol Binding (3.1 binary, 3.2 structured, 3.3 batched) and JSON Event Format.

use bytes::Bytes;
use ring::digest;
use serde::Serialize;
use serde_json::value::RawValue;
use tributary_dsl::plan::WebhookFormat;
use tributary_event::moment::rfc3339;
use tributary_processor::sink::OutEvent;

use crate::text::{escape, hex};

/// One request, the same at every try.
#[derive(Debug)]
pub(super) struct Message {
    /// What receivers know repetitions by.
    pub(super) id: String,
    /// The type of the body.
    pub(super) content_type: &'static str,
    /// Headers that tell of the event.
    pub(super) attributes: Vec<(&'static str, String)>,
    /// The body.
    pub(super) body: Bytes,
}

impl Message {
    /// The request for `events`, of which there is at least one; `list`: the body is a list, also of one. `Err`: why an event cannot be
    /// sent.
    pub(super) fn new(events: &[OutEvent], format: WebhookFormat, list: bool) -> Result<Self, String> {
        let structured = format == WebhookFormat::CloudEventsStructured;
        let mut body = Vec::new();
        for (n, event) in events.iter().enumerate() {
            match (list, n) {
                (true, 0) => body.push(b'['),
                (true, _) => body.push(b','),
                (false, _) => {}
            }
            let content = event.content.as_deref().unwrap_or(b"null");
            if structured {
                write_envelope(&mut body, event, content)?;
            } else {
                body.extend_from_slice(content);
            }
        }
        if list {
            body.push(b']');
        }
        let binary = format == WebhookFormat::CloudEventsBinary;
        Ok(Self {
            id: id(events),
            content_type: match (structured, list) {
                (false, _) => "application/json",
                (true, false) => "application/cloudevents+json",
                (true, true) => "application/cloudevents-batch+json",
            },
            attributes: events.first().filter(|_| binary).map(attributes).unwrap_or_default(),
            body: body.into(),
        })
    }
}

/// The id of one event, or of several together. In the signed text a dot ends the id, so an id has none itself.
fn id(events: &[OutEvent]) -> String {
    if let [event] = events {
        return escape(&format!("{}/{}", event.source, event.id), '%', |byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'/' | b':' | b'@')
        });
    }
    let mut context = digest::Context::new(&digest::SHA256);
    for text in events.iter().flat_map(|event| [&*event.source, &event.id]) {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    format!("batch-{}", hex(context.finish().as_ref()))
}

/// A longer key is no subject: receivers refuse long headers.
const LONGEST_SUBJECT: usize = 1 << 10;

/// The key, where it is a text that can be printed.
fn subject(event: &OutEvent) -> Option<&str> {
    let text = std::str::from_utf8(event.key.as_deref()?).ok()?;
    (!text.is_empty() && text.len() <= LONGEST_SUBJECT && !text.contains(char::is_control)).then_some(text)
}

/// The attributes of an event as headers (binding, 3.1.3.2).
fn attributes(event: &OutEvent) -> Vec<(&'static str, String)> {
    let attributes = [
        ("ce-specversion", Some("1.0".to_owned())),
        ("ce-id", Some(event.id.clone())),
        ("ce-source", Some(event.source.to_string())),
        ("ce-type", Some(event.kind.to_string())),
        ("ce-time", event.committed_us.and_then(rfc3339)),
        ("ce-subject", subject(event).map(str::to_owned)),
    ];
    let plain = |byte| matches!(byte, 0x21..=0x7e) && byte != b'"' && byte != b'%';
    attributes.into_iter().filter_map(|(name, value)| Some((name, escape(&value?, '%', plain)))).collect()
}

/// An event with its attributes around it.
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'a str,
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    datacontenttype: &'a str,
    data: &'a RawValue,
}

fn write_envelope(body: &mut Vec<u8>, event: &OutEvent, content: &[u8]) -> Result<(), String> {
    let envelope = Envelope {
        specversion: "1.0",
        id: &event.id,
        source: &event.source,
        r#type: &event.kind,
        time: event.committed_us.and_then(rfc3339),
        subject: subject(event),
        datacontenttype: "application/json",
        data: serde_json::from_slice(content).map_err(|e| format!("the event is no JSON: {e}"))?,
    };
    serde_json::to_writer(body, &envelope).map_err(|e| format!("the event cannot be written as a CloudEvent: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_event::Op;

    fn event(id: &str) -> OutEvent {
        OutEvent {
            id: id.into(),
            source: "/films/main db".into(),
            kind: "orders.ü\"%".into(),
            op: Op::Update,
            sequence: 7,
            committed_us: Some(1_614_265_330_250_000),
            key: Some("a key".into()),
            content: Some(r#"{"price":0.12345678901234567890}"#.into()),
            row_key: None,
            span: None,
        }
    }

    #[test]
    fn a_plain_body_is_the_event_to_the_byte() {
        let message = Message::new(&[event("7.2")], WebhookFormat::Plain, false).expect("a message");
        assert_eq!(message.body, event("7.2").content.expect("content"));
        assert_eq!((message.id.as_str(), message.content_type), ("/films/main%20db/7%2E2", "application/json"));
        assert!(message.attributes.is_empty());
    }

    #[test]
    fn attributes_are_encoded_as_the_binding_says() {
        let message = Message::new(&[event("7.2")], WebhookFormat::CloudEventsBinary, false).expect("a message");
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "7.2"),
            ("ce-source", "/films/main%20db"),
            ("ce-type", "orders.%C3%BC%22%25"),
            ("ce-time", "2021-02-25T15:02:10.250000Z"),
            ("ce-subject", "a%20key"),
        ];
        assert_eq!(message.attributes, expected.map(|(name, value)| (name, value.to_owned())));
        for key in [Bytes::from_static(b"\xff"), "two\nlines".into(), "x".repeat(2_000).into(), Bytes::new()] {
            let odd = OutEvent { key: Some(key), committed_us: None, ..event("7") };
            let message = Message::new(&[odd], WebhookFormat::CloudEventsBinary, false).expect("a message");
            assert_eq!(message.attributes.len(), 4);
        }
    }

    #[test]
    fn an_envelope_holds_the_event_to_the_byte() {
        let message = Message::new(&[event("7")], WebhookFormat::CloudEventsStructured, false).expect("a message");
        let expected = r#"{"specversion":"1.0","id":"7","source":"/films/main db","type":"orders.ü\"%","time":"2021-02-25T15:02:10.250000Z","subject":"a key","datacontenttype":"application/json","data":{"price":0.12345678901234567890}}"#;
        assert_eq!(message.body, expected);
        assert_eq!(message.content_type, "application/cloudevents+json");
        let bad = OutEvent { content: Some("{".into()), ..event("7") };
        assert!(Message::new(&[bad], WebhookFormat::CloudEventsStructured, false).is_err());
    }

    #[test]
    fn a_list_has_the_id_of_all_of_its_events_in_their_order() {
        let list = |ids: &[&str]| {
            let events: Vec<OutEvent> = ids.iter().map(|id| event(id)).collect();
            Message::new(&events, WebhookFormat::Plain, true).expect("a message")
        };
        let content = r#"{"price":0.12345678901234567890}"#;
        assert_eq!(list(&["1", "2"]).body, format!("[{content},{content}]"));
        assert_eq!(list(&["1"]).body, format!("[{content}]"));
        assert_eq!(list(&["1", "2"]).id, list(&["1", "2"]).id);
        assert!(list(&["1", "2"]).id.starts_with("batch-"));
        assert_ne!(list(&["1", "2"]).id, list(&["2", "1"]).id);
        assert_ne!(list(&["1", "2"]).id, list(&["12", ""]).id);
    }
}
