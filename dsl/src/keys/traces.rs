//! Keys of `traces`.

use crate::keys::graph::HEADER_NAMES;
use crate::keys::values::HttpUrl;
use crate::yaml::{Entries, Hidden, Is, Key, Keys, Means, Ratio, Required, key};

pub(crate) static TRACES: Keys = Keys { keys: &[&OTLP, &RATIO, &HEADERS], rules: &[] };

pub(crate) static OTLP: Key<HttpUrl, Required> = key(
    "otlp",
    HttpUrl { instead: "send it as `headers`" },
    Required,
    "http://localhost:4318",
    "URL of a collector that takes OTLP over HTTP as JSON; `/v1/traces` is put behind it.",
);

pub(crate) static RATIO: Key<Ratio, Is<f64>> = key(
    "ratio",
    Ratio,
    Is(0.01),
    "0.1",
    "The share of changes whose way is recorded. Which ones is the same in every process, and after a crash.",
);

pub(crate) static HEADERS: Key<Entries, Means> = key(
    "headers",
    Entries { names: &HEADER_NAMES, value: &Hidden, some: false },
    Means("none"),
    "{ authorization: \"Bearer ${TOKEN}\" }",
    "Headers of every request to it.",
);
