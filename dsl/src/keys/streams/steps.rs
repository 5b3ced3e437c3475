//! Keys of the steps of a stream.

use std::time::Duration;

use super::ON_ERRORS;
use super::values::{Code, PathText};
use crate::plan::{Missing, OnError, Wait};
use crate::yaml::{Is, Key, Keys, Line, Means, OneOrMany, Period, Required, Rule, Size, Whole, Words, key};

pub(crate) static STEP: Keys = Keys {
    keys: &[&CHANGED, &FILTER, &TRANSFORM, &ENRICH, &LOOKUP, &SPLIT, &NAME, &ON_ERROR],
    rules: &[Rule::OneOf(&["changed", "filter", "transform", "enrich", "lookup", "split"])],
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

static CACHE_KEYS: Keys = Keys { keys: &[&TTL, &TTL_MISSING, &CACHE_MAX], rules: &[] };

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
