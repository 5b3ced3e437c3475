//! Keys of `tables.<table>`.

use super::values::Code;
use crate::keys::values::NameOf;
use crate::yaml::{Is, Key, Keys, Line, Means, Names, Required, Size, key};

pub(crate) static NAMES: Names = Names { mark: "<table>", pattern: Some(NameOf::PATTERN), example: "rates" };

pub(crate) static TABLE: Keys = Keys { keys: &[&TOPIC, &ROW_KEY, &LIMIT], rules: &[] };

pub(crate) static TOPIC: Key<Line, Required> = key(
    "topic",
    Line("name"),
    Required,
    "finance.rates",
    "A topic of the transport whose records are JSON, and of which the last record of each key holds; a record without a value takes its \
     key out. It should be compacted.",
);

pub(crate) static ROW_KEY: Key<Code, Means> =
    key("key", Code, Means("the key of the record"), ".currency", "What a record is known by, in VRL on its value.");

pub(crate) static LIMIT: Key<Size, Is<u64>> = key(
    "limit",
    Size { least: 1 << 10, most: u64::MAX },
    Is(256 << 20),
    "1GiB",
    "Memory that its keys and values may take. Above it, streams that look into the table stand still and say so.",
);
