//! Keys of `indexes.<index>`.

use std::time::Duration;

use super::store::STORES;
use super::tables::Table;
use super::values::NameOf;
use crate::yaml::{Any, Entries, Is, Key, Keys, Line, Means, Names, Period, Required, Rule, Whole, key};

const MILLISECOND: Duration = Duration::from_millis(1);

pub(crate) static NAMES: Names = Names { mark: "<index>", pattern: Some(NameOf::PATTERN), example: "movies" };

pub(crate) static INDEX: Keys =
    Keys { keys: &[&QUERY, &VARIABLES, &ROOTS, &REFRESH, &BUILD, &RETRY, &BRAKE, &STORE], rules: &[] };

pub(crate) static QUERY: Key<Line, Required> = key(
    "query",
    Line("file"),
    Required,
    "movies.graphql",
    "A file with the GraphQL query whose answer is the document. Relative to the pipeline's file.",
);

pub(crate) static VARIABLES: Key<Entries, Means> = key(
    "variables",
    Entries {
        names: &Names { mark: "<variable>", pattern: Some("^[_A-Za-z][_0-9A-Za-z]*$"), example: "locale" },
        value: &Any,
        some: false,
    },
    Means("their defaults in the query"),
    "{ locale: en, first: 3 }",
    "Values of the query's variables, but for the one that takes the ids. What a value is (text, number …) depends on the \
     variable's type.",
);

pub(crate) static ROOTS: Key<&Keys, Means> = key(
    "roots",
    &ROOTS_KEYS,
    Means("the one table that maps to the type of the documents"),
    "{ table: public.movie }",
    "Where the ids of all documents come from.",
);

static ROOTS_KEYS: Keys = Keys { keys: &[&TABLE, &FIELD], rules: &[Rule::One] };

pub(crate) static TABLE: Key<Table, Means> = key(
    "table",
    Table,
    Means("one of the others"),
    "public.movie",
    "A captured table, by its rule in `graph.vertices`.",
);

pub(crate) static FIELD: Key<Line, Means> = key(
    "field",
    Line("field"),
    Means("one of the others"),
    "allMovies",
    "A field of `Query` that answers all of them, page by page, as a connection.",
);

pub(crate) static REFRESH: Key<Period, Is<Duration>> = key(
    "refresh",
    Period { least: MILLISECOND },
    Is(Duration::from_millis(100)),
    "1s",
    "Within about this time a written document is searchable.",
);

pub(crate) static BUILD: Key<&Keys, Means> =
    key("build", &BUILD_KEYS, Means("its defaults"), "{ batch: 200, concurrency: 8 }", "How documents are built.");

static BUILD_KEYS: Keys = Keys { keys: &[&BATCH, &CONCURRENCY, &DEADLINE, &DEBOUNCE], rules: &[] };

pub(crate) static BATCH: Key<Whole<usize>, Is<usize>> =
    key("batch", Whole { least: 1, most: 10_000 }, Is(100), "200", "Documents asked for in one request at most.");

pub(crate) static CONCURRENCY: Key<Whole<usize>, Is<usize>> =
    key("concurrency", Whole { least: 1, most: 1000 }, Is(4), "8", "Requests in flight at most.");

pub(crate) static DEADLINE: Key<Period, Is<Duration>> = key(
    "deadline",
    Period { least: MILLISECOND },
    Is(Duration::from_secs(10)),
    "30s",
    "A build that takes longer is abandoned and tried again.",
);

pub(crate) static DEBOUNCE: Key<Period, Is<Duration>> = key(
    "debounce",
    Period { least: Duration::ZERO },
    Is(Duration::from_millis(5)),
    "50ms",
    "How long changes are gathered before a build, so that a burst of them builds a document once.",
);

pub(crate) static RETRY: Key<&Keys, Means> = key(
    "retry",
    &RETRY_KEYS,
    Means("its defaults"),
    "{ attempts: 10, max: 1m }",
    "What happens when a build fails. A server that is away is waited for, without limit.",
);

static RETRY_KEYS: Keys = Keys { keys: &[&ATTEMPTS, &INITIAL, &MAX], rules: &[] };

pub(crate) static ATTEMPTS: Key<Whole<u32>, Is<u32>> = key(
    "attempts",
    Whole { least: 1, most: 1_000_000 },
    Is(5),
    "10",
    "Tries of a document before it is set aside as a dead letter.",
);

pub(crate) static INITIAL: Key<Period, Is<Duration>> = key(
    "initial",
    Period { least: MILLISECOND },
    Is(Duration::from_millis(200)),
    "1s",
    "The first pause between two tries. The next ones are longer.",
);

/// The default of `max`, where `initial` is not longer.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(crate) static MAX: Key<Period, Means> = key(
    "max",
    Period { least: MILLISECOND },
    Means("10s, or `initial` where that is longer"),
    "1m",
    "The longest pause between two tries.",
);

pub(crate) static BRAKE: Key<&Keys, Means> = key(
    "brake",
    &BRAKE_KEYS,
    Means("its defaults"),
    "{ percent: 5, least: 1000 }",
    "How many documents of the index may be deleted within a minute, because the graph says that it does not know them any more: so \
     many percent of them, and `least` in any case. Beyond that the graph may be wrong, so deletes wait, `/health` says so, and \
     everything else goes on. `tributary resume-deletes` lets them go on; if the graph knows the documents again, they stay by themselves.",
);

static BRAKE_KEYS: Keys = Keys { keys: &[&PERCENT, &LEAST], rules: &[] };

pub(crate) static PERCENT: Key<Whole<u64>, Is<u64>> = key(
    "percent",
    Whole { least: 0, most: 100 },
    Is(1),
    "5",
    "Percent of the documents of the index. 100: any number may be deleted.",
);

pub(crate) static LEAST: Key<Whole<u64>, Is<u64>> = key(
    "least",
    Whole { least: 0, most: 1_000_000_000 },
    Is(100),
    "1000",
    "So many documents may be deleted however few the index has.",
);

pub(crate) static STORE: Key<&Keys, Means> = key(
    "store",
    &STORES,
    Means("the embedded index"),
    "elasticsearch: { url: \"http://localhost:9200\" }",
    "Where documents are kept. Which values can be searched, in all of them: [STORES.md](../indexer/STORES.md).",
);
