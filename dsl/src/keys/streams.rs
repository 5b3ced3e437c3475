//! Keys of `streams.<stream>`.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tributary_event::Op;

use super::tables::{Table, TableText};
use super::values::NameOf;
use crate::plan::Start;
use crate::yaml::{At, Documented, Is, Items, Key, Keys, Kind, Line, Means, Names, Node, Reader};
use crate::yaml::{Required, Rule, Text, Tree, Words, key};

pub(crate) static NAMES: Names = Names { mark: "<stream>", pattern: Some(NameOf::PATTERN), example: "renamed" };

pub(crate) static STREAM: Keys = Keys { keys: &[&FROM, &OPS, &START, &STEPS, &TO], rules: &[] };

pub(crate) static FROM: Key<Tables, Required> = key(
    "from",
    Tables,
    Required,
    "public.movie",
    "The tables whose changes flow through the stream, as they are captured: one, or a list.",
);

pub(crate) static OPS: Key<Operations, Means> = key(
    "ops",
    Operations,
    Means("`[c, u, d, r]`"),
    "[c, u]",
    "Which changes flow: `c` (inserted), `u` (updated), `d` (deleted), `r` (read by a dump), `t` (the table was emptied). Programs are \
     compiled for these: without `d` every event has a row `after`.",
);

pub(crate) static START: Key<Words<Start>, Is<Start>> = key(
    "start",
    Words(&[("now", Start::Now), ("first", Start::First)]),
    Is(Start::Now),
    "first",
    "Where a stream begins that never ran: with what changes from now on, or with the first change that the topics of its tables still \
     have. Later it goes on where it was.",
);

pub(crate) static STEPS: Key<Items, Means> = key(
    "steps",
    Items { value: &&STEP, some: true },
    Means("events flow as they are"),
    "[{ filter: .after.title != null }]",
    "What is done with each event, one step after the other.",
);

pub(crate) static STEP: Keys = Keys { keys: &[&FILTER, &TRANSFORM], rules: &[Rule::One] };

pub(crate) static FILTER: Key<Code, Means> = key(
    "filter",
    Code,
    Means("another step"),
    ".op == \"u\" && .after.title != .before.title",
    "A condition in VRL; events of which it is not true end here.",
);

pub(crate) static TRANSFORM: Key<Code, Means> = key(
    "transform",
    Code,
    Means("another step"),
    ".headline = upcase!(.after.title)",
    "A program in VRL that changes the event. What it leaves in `.` flows on.",
);

pub(crate) static TO: Key<Items, Required> = key(
    "to",
    Items { value: &&SINK, some: true },
    Required,
    "[{ topic: { name: movies.renamed } }]",
    "Where events go that have come through all steps.",
);

pub(crate) static SINK: Keys = Keys { keys: &[&TOPIC], rules: &[Rule::One] };

pub(crate) static TOPIC: Key<&Keys, Means> = key(
    "topic",
    &TOPIC_KEYS,
    Means("another sink"),
    "name: movies.renamed",
    "A topic of the pipeline's transport. Each event is there once, whatever happens on the way (on Kafka for readers of committed \
     records).",
);

static TOPIC_KEYS: Keys = Keys { keys: &[&TOPIC_NAME, &TOPIC_KEY, &COMPACT], rules: &[] };

pub(crate) static TOPIC_NAME: Key<Line, Required> =
    key("name", Line("name"), Required, "movies.renamed", "Its name. It is created if there is none.");

pub(crate) static TOPIC_KEY: Key<Code, Means> = key(
    "key",
    Code,
    Means("the key that the event has in its table's topic"),
    ".after.id",
    "What the record's key is, in VRL: text as it is, anything else as JSON. Records of one key are in one partition, in the order in \
     which they came from theirs.",
);

pub(crate) static COMPACT: Key<Words<bool>, Is<bool>> = key(
    "compact",
    Words(&[("on", true), ("off", false)]),
    Is(false),
    "on",
    "Whether the topic keeps the last record of each key alone, and that of a deleted row not at all: such an event becomes a record \
     without a value.",
);

/// One table, or several.
pub(crate) struct Tables;

impl Documented for Tables {
    fn word(&self) -> String {
        "table, or list of tables".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [Table.schema(), { "type": "array", "items": Table.schema(), "minItems": 1 }] })
    }
}

impl Kind for Tables {
    type Value = Vec<TableText>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        let Tree::Sequence(_) = &node.kind else { return Table.read(r, node, at).map(|table| vec![table]) };
        let items = Items { value: &Table, some: true }.read(r, node, at)?;
        let tables: Vec<Option<TableText>> =
            items.iter().map(|item| Table.read(r, item, At { key: None, ..at })).collect();
        tables.into_iter().collect()
    }
}

/// Operations, by their letters.
pub(crate) struct Operations;

/// Those that flow where nothing else is said.
pub(crate) const USUAL: [Op; 4] = [Op::Create, Op::Update, Op::Delete, Op::Read];

/// Those that have rows, or concern them.
const LETTERS: [Op; 5] = [Op::Create, Op::Update, Op::Delete, Op::Read, Op::Truncate];

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
