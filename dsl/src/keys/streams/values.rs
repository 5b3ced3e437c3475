//! Values of streams: operations, programs, paths, rates.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_event::Op;
use tributary_expression::Path;

use crate::keys::tables::{Table, TableText};
use crate::plan::RateLimit;
use crate::yaml::{
    At, Documented, Items, Key, Keys, Kind, Line, Means, Node, OneOrMany, Reader, Rule, Text, Tree, key, pattern,
};

/// What a stream reads.
pub(crate) struct Inputs;

/// The same, as written.
pub(crate) enum InputText {
    Tables(Vec<TableText>),
    Stream(Text),
    Topic(Text),
}

static INPUT: Keys = Keys { keys: &[&STREAM, &TOPIC], rules: &[Rule::One] };

static STREAM: Key<Line, Means> =
    key("stream", Line("name"), Means("a topic"), "renamed", "The events of a stream that stands before this one.");

static TOPIC: Key<Line, Means> = key(
    "topic",
    Line("name"),
    Means("a stream"),
    "orders.placed",
    "A topic of the transport, whose records are JSON objects.",
);

impl Documented for Inputs {
    fn word(&self) -> String {
        "table, or list of tables; or `{ stream: … }`, or `{ topic: … }`".to_owned()
    }

    fn schema(&self) -> Json {
        let tables = OneOrMany(Table).schema();
        let other = |key: &str| {
            json!({
                "type": "object",
                "properties": { key: Line("").schema() },
                "required": [key],
                "additionalProperties": false
            })
        };
        json!({ "anyOf": [tables, other("stream"), other("topic")] })
    }
}

impl Kind for Inputs {
    type Value = InputText;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<InputText> {
        let Tree::Mapping(_) = &node.kind else { return OneOrMany(Table).read(r, node, at).map(InputText::Tables) };
        let map = r.map(node, at, &INPUT)?;
        let stream = r.optional(&map, &STREAM).map(InputText::Stream);
        let topic = r.optional(&map, &TOPIC).map(InputText::Topic);
        stream.or(topic)
    }
}

/// Operations, by their letters.
pub(crate) struct Operations;

/// Those that flow where nothing else is said.
pub(crate) const USUAL: [Op; 4] = [Op::Create, Op::Update, Op::Delete, Op::Read];

/// Those that have rows, or concern them.
pub(crate) const LETTERS: [Op; 5] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate];

impl Documented for Operations {
    fn word(&self) -> String {
        "list of letters".to_owned()
    }

    fn schema(&self) -> Json {
        let letters: Vec<String> = LETTERS.iter().map(|op| op.letter().to_string()).collect();
        json!({ "type": "array", "items": { "enum": letters }, "minItems": 1 })
    }
}

impl Kind for Operations {
    type Value = Vec<Op>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        let items = Items { value: &Line("letter"), some: true }.read(r, node, at)?;
        let mut ops = Vec::new();
        for item in &items {
            let text = r.text(item, At { key: None, ..at })?;
            match LETTERS.into_iter().find(|op| text.value == op.letter().to_string()) {
                Some(op) => ops.push(op),
                None => {
                    let message = format!("`{}` is no operation", text.shown);
                    r.error(item.place, message, Some("expected some of `c`, `u`, `d`, `r`, `t`".into()));
                    return None;
                }
            }
        }
        Some(ops)
    }
}

/// A program in VRL.
pub(crate) struct Code;

impl Documented for Code {
    fn word(&self) -> String {
        "program in [VRL](https://vrl.dev)".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

impl Kind for Code {
    type Value = Text;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Text> {
        r.text(node, at)
    }
}

/// A place in an event.
pub(crate) struct PathText;

impl Documented for PathText {
    fn word(&self) -> String {
        "path in the event".to_owned()
    }

    fn schema(&self) -> Json {
        pattern(r"^\.")
    }
}

impl Kind for PathText {
    type Value = (Path, Text);

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        let text = r.text(node, at)?;
        match Path::parse(&text.value) {
            Some(path) => Some((path, text)),
            None => {
                let message = format!("`{}` is no path in an event", text.shown);
                r.found.push(
                    text.spot.error(message).help("a path begins with a dot, such as `.movie` or `.after.price`"),
                );
                None
            }
        }
    }
}

/// Requests in a time.
pub(crate) struct Rate;

const TIMES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3_600)];

impl Documented for Rate {
    fn word(&self) -> String {
        "number in a time, `/s`, `/m` or `/h`".to_owned()
    }

    fn schema(&self) -> Json {
        pattern("^[1-9][0-9]*/(s|m|h)$")
    }
}

impl Kind for Rate {
    type Value = RateLimit;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<RateLimit> {
        let text = r.text(node, at)?;
        let parsed = text.value.split_once('/').and_then(|(number, time)| {
            let requests: u32 = number.trim().parse().ok().filter(|requests| *requests > 0)?;
            let seconds = TIMES.iter().find(|(name, _)| *name == time.trim())?.1;
            Some(RateLimit { requests, per: Duration::from_secs(seconds) })
        });
        if parsed.is_none() {
            let message = format!("`{}` is no rate", text.shown);
            r.found.push(text.spot.error(message).help("write `500/s`, `100/m` or `1000/h`"));
        }
        parsed
    }
}
