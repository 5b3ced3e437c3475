//! Keys of `services.<service>`.

use std::time::Duration;

use super::values::Rate;
use crate::keys::graph::HEADER_NAMES;
use crate::keys::values::{HttpUrl, NameOf};
use crate::yaml::{Entries, Hidden, Is, Key, Keys, Means, Names, Period, Rule, Whole, key};

pub(crate) static NAMES: Names = Names { mark: "<service>", pattern: Some(NameOf::PATTERN), example: "catalog" };

pub(crate) static SERVICE: Keys = Keys {
    keys: &[&GRAPHQL, &REST, &HEADERS, &TIMEOUT, &CONCURRENCY, &RATE, &BREAKER],
    rules: &[Rule::OneOf(&["graphql", "rest"])],
};

pub(crate) static GRAPHQL: Key<HttpUrl, Means> = key(
    "graphql",
    HttpUrl { instead: "send it as `headers`" },
    Means("another kind of service"),
    "http://localhost:4000/graphql",
    "URL of a GraphQL endpoint.",
);

pub(crate) static REST: Key<HttpUrl, Means> = key(
    "rest",
    HttpUrl { instead: "send it as `headers`" },
    Means("another kind of service"),
    "https://pricing.example/v1",
    "URL that the paths of requests are put behind; bodies and answers are JSON.",
);

pub(crate) static HEADERS: Key<Entries, Means> = key(
    "headers",
    Entries { names: &HEADER_NAMES, value: &Hidden, some: false },
    Means("none"),
    "{ authorization: \"Bearer ${TOKEN}\" }",
    "Headers of every request to it.",
);

pub(crate) static TIMEOUT: Key<Period, Is<Duration>> = key(
    "timeout",
    Period { least: Duration::from_millis(1) },
    Is(Duration::from_secs(5)),
    "500ms",
    "The longest that one request may take.",
);

pub(crate) static CONCURRENCY: Key<Whole<usize>, Is<usize>> = key(
    "concurrency",
    Whole { least: 1, most: 1000 },
    Is(16),
    "32",
    "Requests in flight at most, of all streams together.",
);

pub(crate) static RATE: Key<Rate, Means> =
    key("rate", Rate, Means("as many as it answers"), "500/s", "Requests in a time at most, of all streams together.");

pub(crate) static BREAKER: Key<&Keys, Means> = key(
    "breaker",
    &BREAKER_KEYS,
    Means("its defaults"),
    "failures: 30\npause: 10s",
    "When it is left alone: streams that need it wait then, and nothing is set aside for that.",
);

static BREAKER_KEYS: Keys = Keys { keys: &[&FAILURES, &SLOW, &WINDOW, &PAUSE], rules: &[] };

pub(crate) static FAILURES: Key<Whole<u8>, Is<u8>> = key(
    "failures",
    Whole { least: 1, most: 100 },
    Is(50),
    "30",
    "Percent of the requests of the window that fail, or are slow.",
);

pub(crate) static SLOW: Key<Period, Means> = key(
    "slow",
    Period { least: Duration::from_millis(1) },
    Means("only its timeout is too long"),
    "1s",
    "A request that takes longer counts as failed, even if it is answered.",
);

pub(crate) static WINDOW: Key<Period, Is<Duration>> = key(
    "window",
    Period { least: Duration::from_secs(1) },
    Is(Duration::from_secs(20)),
    "1m",
    "The requests of this time count.",
);

pub(crate) static PAUSE: Key<Period, Is<Duration>> = key(
    "pause",
    Period { least: Duration::from_millis(100) },
    Is(Duration::from_secs(5)),
    "10s",
    "How long it is left alone before one request tries it.",
);
