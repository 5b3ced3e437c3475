//! Keys of `streams.<stream>`.

pub(crate) mod functions;
pub(crate) mod lookups;
pub(crate) mod services;
pub(crate) mod sinks;
pub(crate) mod steps;
mod values;

pub(crate) use self::values::{InputText, LETTERS, USUAL};
use self::values::{Inputs, Operations};
use super::values::NameOf;
use crate::plan::{OnError, Start};
use crate::yaml::{Is, Items, Key, Keys, Means, Names, Required, Size, Words, key};

pub(crate) static NAMES: Names = Names { mark: "<stream>", pattern: Some(NameOf::PATTERN), example: "renamed" };

pub(crate) static STREAM: Keys = Keys { keys: &[&FROM, &OPS, &START, &STEPS, &ON_ERROR, &MAX_EVENT, &TO], rules: &[] };

pub(crate) static FROM: Key<Inputs, Required> = key(
    "from",
    Inputs,
    Required,
    "public.movie",
    "What flows through the stream: the changes of a table, or of several, as they are captured; the events that another stream leaves, \
     which stands before it (`{ stream: renamed }`); or the records of a topic that somebody else writes (`{ topic: orders.placed }`).",
);

pub(crate) static OPS: Key<Operations, Means> = key(
    "ops",
    Operations,
    Means("`[c, u, d, r]`"),
    "[c, u]",
    "Which changes flow: `c` (inserted), `u` (updated), `d` (deleted), `r` (read by a dump), `t` (the table was emptied). Programs are \
     compiled for these: without `d` every event has a row `after`.",
);

pub(crate) static START: Key<Words<Start>, Means> = key(
    "start",
    Words(&[("now", Start::Now), ("first", Start::First)]),
    Means("`now`; of another stream `first`"),
    "first",
    "Where a stream begins that never ran: with what changes from now on, or with the first change that the topics of its tables still \
     have. Later it goes on where it was.",
);

pub(crate) static STEPS: Key<Items, Means> = key(
    "steps",
    Items { value: &&steps::STEP, some: true },
    Means("events flow as they are"),
    "[{ filter: .after.title != null }]",
    "What is done with each event, one step after the other.",
);

/// What becomes of what fails.
pub(crate) const ON_ERRORS: Words<OnError> = Words(&[("stop", OnError::Stop), ("dead_letter", OnError::DeadLetter)]);

pub(crate) static ON_ERROR: Key<Words<OnError>, Is<OnError>> = key(
    "on_error",
    ON_ERRORS,
    Is(OnError::Stop),
    "dead_letter",
    "What becomes of an event that a step fails for. `stop`: its partition stands still and tries it again, until the program or the data is \
     mended. `dead_letter`: it is set aside with its cause, and so are later events of its key, until they are replayed in their order \
     (`tributary dlq replay`).",
);

pub(crate) static MAX_EVENT: Key<Size, Is<u64>> = key(
    "max_event",
    Size { least: 1 << 10, most: 1 << 30 },
    Is(8 << 20),
    "32MiB",
    "Bytes that an event may have, about: as it comes, where the filters that stand first have let it pass, and as each step leaves it. \
     With a larger one the step fails, as it does with one of more than 64 values inside of one another.",
);

pub(crate) static TO: Key<Items, Means> = key(
    "to",
    Items { value: &&sinks::SINK, some: true },
    Means("other streams read it"),
    "[{ topic: { name: movies.renamed } }]",
    "Where events go that have come through all steps. Each sink goes on by itself: one that is away holds no other up.",
);
