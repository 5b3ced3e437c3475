//! Keys of the steps of a stream.

use std::time::Duration;

use super::ON_ERRORS;
use super::values::{Code, PathText};
use crate::plan::{Missing, OnError, Wait};
use crate::yaml::{Is, Key, Keys, Line, Means, OneOrMany, Period, Required, Rule, Size, Whole, Words, key};

pub(crate) static STEP: Keys = Keys {
    keys: &[&CHANGED, &FILTER, &TRANSFORM, &ENRICH, &LOOKUP, &CALL, &SPLIT, &DEDUPE, &COLLAPSE, &NAME, &ON_ERROR],
    rules: &[Rule::OneOf(&[
        "changed",
        "filter",
        "transform",
        "enrich",
        "lookup",
        "call",
        "split",
        "dedupe",
        "collapse",
    ])],
};

pub(crate) static CHANGED: Key<OneOrMany<Line>, Means> = key(
    "changed",
    OneOrMany(Line("column")),
    Means("another step"),
    "[title, runtime]",
    "Updates flow on only if one of these columns changed. Where the source does not know the old value (PostgreSQL: without \
     `REPLICA IDENTITY FULL`), it counts as changed.",
);

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

pub(crate) static NAME: Key<Line, Means> = key(
    "name",
    Line("name"),
    Means("its kind and its place, such as `filter-1`"),
    "only-released",
    "What messages and metrics call the step.",
);

pub(crate) static ON_ERROR: Key<Words<OnError>, Means> = key(
    "on_error",
    ON_ERRORS,
    Means("as the stream says"),
    "stop",
    "What becomes of an event that this step fails for.",
);

pub(crate) static SPLIT: Key<&Keys, Means> = key(
    "split",
    &SPLIT_KEYS,
    Means("another step"),
    "each: .after.tags\ninto: .tag",
    "An event becomes one for each element of a list, in its order; none where the list is empty, null or absent.",
);

static SPLIT_KEYS: Keys = Keys { keys: &[&SPLIT_EACH, &SPLIT_INTO], rules: &[] };

pub(crate) static SPLIT_EACH: Key<PathText, Required> =
    key("each", PathText, Required, ".after.tags", "The list, anywhere in the event.");

pub(crate) static SPLIT_INTO: Key<PathText, Required> =
    key("into", PathText, Required, ".tag", "Where the element is put, beside what the event has already.");

pub(crate) static DEDUPE: Key<&Keys, Means> = key(
    "dedupe",
    &DEDUPE_KEYS,
    Means("another step"),
    "by: .after.id\nwithin: 1h",
    "An event ends here if one of its key came to this step less than a time before, in the same partition of the topic, whether that one \
     flowed on or not. Times are those of the events (when they were committed), so it comes out the same whenever it is done. What was seen \
     is kept nowhere: it is read again from the topic when a partition is taken over, which takes as long as reading so much takes. Stands \
     before steps that ask anybody or call functions; a stream has one `dedupe` or `collapse`.",
);

static DEDUPE_KEYS: Keys = Keys { keys: &[&BY, &WITHIN, &SEEN_LIMIT], rules: &[] };

pub(crate) static BY: Key<Code, Means> = key(
    "by",
    Code,
    Means("`%key`, the key that the event has in its topic"),
    ".after.email",
    "Which events belong together, in VRL. Those of which it is null flow on. Events of which it is the same, and which lie in different \
     partitions of the topic, are not brought together: that is certain only where it has the whole key of the topic's records.",
);

pub(crate) static WITHIN: Key<Period, Required> = key(
    "within",
    Period { least: Duration::from_millis(1) },
    Required,
    "1h",
    "So long a key is remembered after it was seen last.",
);

pub(crate) static SEEN_LIMIT: Key<Size, Is<u64>> = key(
    "limit",
    Size { least: 1 << 10, most: u64::MAX },
    Is(64 << 20),
    "256MiB",
    "Memory that the keys of one partition may take, about. Beyond it the partition stands still, whatever `on_error` says: nothing is \
     forgotten too early.",
);

pub(crate) static COLLAPSE: Key<&Keys, Means> = key(
    "collapse",
    &COLLAPSE_KEYS,
    Means("another step"),
    "by: .after.id\nfor: 2s",
    "Of the events of a key that come within a time, in the same partition of the topic, only the last flows on, when the time is over that \
     began with the first. Events keep their order, so one may wait twice as long, for others that came before it. Nothing is kept anywhere \
     but in memory: offsets wait for what is held. Stands before steps that ask anybody or call functions, and before `split`; a stream has one `dedupe` or \
     `collapse`.",
);

static COLLAPSE_KEYS: Keys = Keys { keys: &[&BY, &FOR, &HELD, &HELD_LIMIT], rules: &[] };

pub(crate) static FOR: Key<Period, Required> = key(
    "for",
    Period { least: Duration::from_millis(1) },
    Required,
    "2s",
    "The time: by the events' own times, and by the clock where no event follows.",
);

pub(crate) static HELD: Key<Whole<usize>, Is<usize>> = key(
    "keys",
    Whole { least: 1, most: 1_000_000 },
    Is(10_000),
    "50000",
    "Events of one partition that are held at most, one of each key. Beyond it the oldest flow on early.",
);

pub(crate) static HELD_LIMIT: Key<Size, Is<u64>> = key(
    "limit",
    Size { least: 1 << 10, most: u64::MAX },
    Is(16 << 20),
    "64MiB",
    "Bytes of their records at most. Beyond it the oldest flow on early.",
);

pub(crate) static ENRICH: Key<&Keys, Means> = key(
    "enrich",
    &ENRICH_KEYS,
    Means("another step"),
    "service: catalog\nquery: movie.graphql\nkey: .after.movie_id\ninto: .movie",
    "Something is added that a service knows. Keys of many events are asked for together, and each once.",
);

static ENRICH_KEYS: Keys = Keys {
    keys: &[&SERVICE, &QUERY, &REQUEST, &BODY, &EACH, &MATCH, &ENRICH_KEY, &INTO, &BATCH, &CACHE, &MISSING],
    rules: &[Rule::Apart("query", "request"), Rule::Apart("query", "body"), Rule::Needs("body", "request")],
};

pub(crate) static LOOKUP: Key<&Keys, Means> = key(
    "lookup",
    &LOOKUP_KEYS,
    Means("another step"),
    "table: rates\nkey: .after.currency\ninto: .rate",
    "Something is added that a table of `tables` has.",
);

static LOOKUP_KEYS: Keys = Keys { keys: &[&TABLE, &ENRICH_KEY, &INTO, &MISSING, &WAIT], rules: &[] };

pub(crate) static WAIT: Key<Words<Wait>, Is<Wait>> = key(
    "wait",
    Words(&[("nothing", Wait::Nothing), ("position", Wait::Position)]),
    Is(Wait::Nothing),
    "position",
    "What an event waits for before it looks: for nothing, and then the table may lack what its source changed before; or until it has \
     all changes that the source made before the event's own. That is for a captured table, and changes of the same source.",
);

pub(crate) static CALL: Key<&Keys, Means> = key(
    "call",
    &CALL_KEYS,
    Means("another step"),
    "function: score\nwith: [.price.usd, .lead.country]\ninto: .score",
    "A function of the user is called, once for many events if it takes them so: \
     [STREAMS.md](../processor/STREAMS.md#functions). Programs call it too.",
);

static CALL_KEYS: Keys = Keys { keys: &[&FUNCTION, &WITH, &CALL_INTO], rules: &[] };

pub(crate) static FUNCTION: Key<Line, Required> =
    key("function", Line("name"), Required, "score", "The function, by the name that programs call it by.");

pub(crate) static WITH: Key<OneOrMany<Code>, Means> = key(
    "with",
    OneOrMany(Code),
    Means("the event"),
    "[.price.usd, .lead.country]",
    "What it is given, each in VRL, in the order of its parameters. What takes null may be left out at the end.",
);

pub(crate) static CALL_INTO: Key<PathText, Means> = key(
    "into",
    PathText,
    Means("it takes the event's place, and must be an object"),
    ".score",
    "Where its answer is put.",
);

pub(crate) static TABLE: Key<Line, Required> =
    key("table", Line("name"), Required, "rates", "The table, by its name under `tables`.");

pub(crate) static SERVICE: Key<Line, Required> =
    key("service", Line("name"), Required, "catalog", "The service, by its name under `services`.");

pub(crate) static QUERY: Key<Line, Means> = key(
    "query",
    Line("file"),
    Means("a `request`"),
    "movie.graphql",
    "Of a GraphQL service: the file with a query of one variable, which takes the key, or a list of keys (`query ($ids: [ID!]!) \
     { movies(ids: $ids) { id title } }`). Relative to the pipeline.",
);

pub(crate) static REQUEST: Key<Line, Means> = key(
    "request",
    Line("method and path"),
    Means("a `query`"),
    "GET /movies/{key}",
    "Of another service: `GET`, `POST` or `PUT`, and a path behind its URL, in which `{key}` stands for the key.",
);

pub(crate) static BODY: Key<Code, Means> = key(
    "body",
    Code,
    Means("nothing is sent"),
    "'{ \"id\": .key }'",
    "The body of the request, in VRL: of `.keys`, a list of keys that are asked for together, or of `.key`.",
);

pub(crate) static EACH: Key<PathText, Means> = key(
    "each",
    PathText,
    Means("the query's only field; of a request the whole answer"),
    ".prices",
    "Where the answer lies: a list of elements, or an object with a field for each key, where keys are asked for together; else the one \
     that was asked for.",
);

pub(crate) static MATCH: Key<PathText, Means> = key(
    "match",
    PathText,
    Means("`.id`"),
    ".sku",
    "Where an element of the answer has its key, if keys are asked for together.",
);

pub(crate) static ENRICH_KEY: Key<Code, Required> =
    key("key", Code, Required, ".after.movie_id", "What is asked for, in VRL. Null is not asked for: nobody knows it.");

pub(crate) static INTO: Key<PathText, Required> = key("into", PathText, Required, ".movie", "Where the answer is put.");

pub(crate) static BATCH: Key<&Keys, Means> =
    key("batch", &BATCH_KEYS, Means("its defaults"), "max: 50\nlinger: 2ms", "How keys are asked for together.");

static BATCH_KEYS: Keys = Keys { keys: &[&MAX, &LINGER], rules: &[] };

pub(crate) static MAX: Key<Whole<usize>, Is<usize>> =
    key("max", Whole { least: 1, most: 10_000 }, Is(100), "50", "So many at most.");

pub(crate) static LINGER: Key<Period, Is<Duration>> = key(
    "linger",
    Period { least: Duration::ZERO },
    Is(Duration::from_millis(2)),
    "5ms",
    "How long the first of them waits for others.",
);

pub(crate) static CACHE: Key<&Keys, Means> = key(
    "cache",
    &CACHE_KEYS,
    Means("each is asked for"),
    "ttl: 30s",
    "How long answers are kept. An answer that is kept may be older than the change.",
);

static CACHE_KEYS: Keys = Keys { keys: &[&TTL, &TTL_MISSING, &CACHE_MAX, &CACHE_CHANGES], rules: &[] };

pub(crate) static CACHE_CHANGES: Key<Words<bool>, Is<bool>> = key(
    "changes",
    Words(&[("on", true), ("off", false)]),
    Is(true),
    "off",
    "Whether an answer of a GraphQL service is dropped when a captured change names a vertex that it holds, as `graph.vertices` says. The \
     query then asks for the type of each object too (`__typename`): `off` for services that take no other queries than those they know.",
);

pub(crate) static TTL: Key<Period, Required> =
    key("ttl", Period { least: Duration::from_millis(1) }, Required, "30s", "What the service knew is kept so long.");

pub(crate) static TTL_MISSING: Key<Period, Is<Duration>> = key(
    "missing",
    Period { least: Duration::ZERO },
    Is(Duration::from_secs(2)),
    "10s",
    "That it did not know a key is kept so long.",
);

pub(crate) static CACHE_MAX: Key<Size, Is<u64>> = key(
    "max",
    Size { least: 1 << 10, most: u64::MAX },
    Is(64 << 20),
    "16MiB",
    "Memory that the answers of this step may take, about.",
);

pub(crate) static MISSING: Key<Words<Missing>, Is<Missing>> = key(
    "missing",
    Words(&[("keep", Missing::Keep), ("drop", Missing::Drop), ("error", Missing::Error)]),
    Is(Missing::Keep),
    "drop",
    "What becomes of an event whose key is not known there, or is null: it flows on with null, it ends here, or the step fails.",
);
