//! Keys of `tables.<table>`.

use std::time::Duration;

use super::values::Code;
use crate::keys::tables::Table;
use crate::keys::values::NameOf;
use crate::plan::Keep;
use crate::yaml::{Is, Key, Keys, Line, Means, Names, OneOrMany, Period, Rule, Size, Words, key};

pub(crate) static NAMES: Names = Names { mark: "<table>", pattern: Some(NameOf::PATTERN), example: "rates" };

pub(crate) static TABLE: Keys = Keys {
    keys: &[&FROM, &VALUE, &TOPIC, &ROW_KEY, &KEEP, &LIMIT, &MAX_AGE],
    rules: &[Rule::OneOf(&["from", "topic"]), Rule::Needs("value", "from"), Rule::Needs("key", "topic")],
};

pub(crate) static FROM: Key<Table, Means> = key(
    "from",
    Table,
    Means("a topic"),
    "public.movie",
    "A table that a source captures: its rows by its key, those that were there before it was captured too. A key of several columns is \
     looked up by an object of them.",
);

pub(crate) static VALUE: Key<OneOrMany<Line>, Means> =
    key("value", OneOrMany(Line("column")), Means("all columns"), "[id, title]", "The columns of its rows.");

pub(crate) static TOPIC: Key<Line, Means> = key(
    "topic",
    Line("name"),
    Means("a captured table"),
    "finance.rates",
    "A topic of the transport whose records are JSON, and of which the last record of each key holds; a record without a value takes its \
     key out. It should be compacted.",
);

pub(crate) static ROW_KEY: Key<Code, Means> =
    key("key", Code, Means("the key of the record"), ".currency", "What a record is known by, in VRL on its value.");

pub(crate) static KEEP: Key<Words<Keep>, Is<Keep>> = key(
    "keep",
    Words(&[("memory", Keep::Memory), ("disk", Keep::Disk)]),
    Is(Keep::Memory),
    "disk",
    "Where it is: in memory, and then read anew at each start; or in a file in the pipeline's data folder, which goes on where it was.",
);

pub(crate) static LIMIT: Key<Size, Is<u64>> = key(
    "limit",
    Size { least: 1 << 10, most: u64::MAX },
    Is(256 << 20),
    "1GiB",
    "Memory, or room on the disk, that its keys and values may take. Above it, streams that look into the table stand still and say so.",
);

pub(crate) static MAX_AGE: Key<Period, Means> = key(
    "max_age",
    Period { least: Duration::from_secs(1) },
    Means("it may be of any age"),
    "26h",
    "`/health` says that the table is down while its newest change is older. Streams go on.",
);
