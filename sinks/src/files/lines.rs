//! Events as lines of JSON: `{"id":…,"source":…,"type":…,"op":…,"sequence":…,"time":…,"key":…,"data":…}`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use tributary_event::moment::rfc3339;
use tributary_processor::sink::OutEvent;

use super::Unfit;

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    source: &'a str,
    r#type: &'a str,
    op: char,
    sequence: u64,
    time: Option<String>,
    key: Option<Key<'a>>,
    data: Option<&'a RawValue>,
}

/// A key: as it is if it is JSON, else as a text; bytes that are neither as base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Key<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
}

impl<'a> Key<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        match (serde_json::from_slice(bytes), std::str::from_utf8(bytes)) {
            (Ok(json), _) => Self::Json(json),
            (Err(_), Ok(text)) => Self::Text(text.into()),
            (Err(_), Err(_)) => Self::Text(STANDARD.encode(bytes).into()),
        }
    }
}

/// The lines of events.
pub(super) fn render(events: &[OutEvent]) -> Result<Vec<u8>, Unfit> {
    let mut lines = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let data = event.content.as_deref().map(serde_json::from_slice).transpose();
        let line = Line {
            id: &event.id,
            source: &event.source,
            r#type: &event.kind,
            op: event.op.letter(),
            sequence: event.sequence,
            time: event.committed_us.and_then(rfc3339),
            key: event.key.as_deref().map(Key::new),
            data: data.map_err(|e| Unfit::Event(n, format!("the event is no JSON: {e}")))?,
        };
        let begin = lines.len();
        serde_json::to_writer(&mut lines, &line)
            .map_err(|e| Unfit::Event(n, format!("the event cannot be written as JSON: {e}")))?;
        // Within a text a line break is escaped, so what is left of them parts tokens, as a space does.
        lines[begin..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        lines.push(b'\n');
    }
    Ok(lines)
}
