//! Keys of `indexes.<index>.store`.

use super::values::HttpUrl;
use crate::yaml::{Hidden, Is, Key, Keys, Line, Means, Required, Rule, Whole, key};

pub(crate) static STORES: Keys = Keys { keys: &[&ELASTICSEARCH, &OPENSEARCH, &EMBEDDED], rules: &[Rule::One] };

const ANOTHER: Means = Means("one of the others");

pub(crate) static ELASTICSEARCH: Key<&Keys, Means> = key(
    "elasticsearch",
    &ELASTICSEARCH_KEYS,
    ANOTHER,
    "url: \"https://search.example:9200\"\napi_key: secret",
    "Elasticsearch 8 or 9.",
);

pub(crate) static OPENSEARCH: Key<&Keys, Means> = key(
    "opensearch",
    &OPENSEARCH_KEYS,
    ANOTHER,
    "url: \"https://search.example:9200\"\nusername: tributary\npassword: secret",
    "OpenSearch 2 or 3.",
);

pub(crate) static EMBEDDED: Key<&Keys, Means> =
    key("embedded", &EMBEDDED_KEYS, ANOTHER, "{}", "An index in the data folder, for one process.");

static EMBEDDED_KEYS: Keys = Keys { keys: &[], rules: &[] };

const BASIC: [Rule; 2] = [Rule::Needs("username", "password"), Rule::Needs("password", "username")];

static ELASTICSEARCH_KEYS: Keys = Keys {
    keys: &[&URL, &USERNAME, &PASSWORD, &API_KEY, &CA_FILE, &SHARDS, &REPLICAS],
    rules: &[BASIC[0], BASIC[1], Rule::Apart("username", "api_key")],
};

static OPENSEARCH_KEYS: Keys =
    Keys { keys: &[&URL, &USERNAME, &PASSWORD, &CA_FILE, &SHARDS, &REPLICAS], rules: &BASIC };

pub(crate) static URL: Key<HttpUrl, Required> = key(
    "url",
    HttpUrl { instead: "write `username` and `password`" },
    Required,
    "\"https://search.example:9200\"",
    "URL of the server, or of what stands in front of several.",
);

pub(crate) static USERNAME: Key<Line, Means> =
    key("username", Line("text"), Means("nobody logs in"), "tributary", "User for basic authentication.");

pub(crate) static PASSWORD: Key<Hidden, Means> =
    key("password", Hidden, Means("nobody logs in"), "secret", "The user's password.");

pub(crate) static API_KEY: Key<Hidden, Means> = key(
    "api_key",
    Hidden,
    Means("none"),
    "secret",
    "An API key, in place of a user: as Elasticsearch encodes it, or `id:key`.",
);

pub(crate) static CA_FILE: Key<Line, Means> = key(
    "ca_file",
    Line("file"),
    Means("the system's authorities"),
    "/etc/tributary/search-ca.pem",
    "A PEM file of the certificate authorities to trust. Relative to where `tributary` is started.",
);

pub(crate) static SHARDS: Key<Whole<u32>, Is<u32>> =
    key("shards", Whole { least: 1, most: 1024 }, Is(1), "4", "Primary shards of an index that is made.");

pub(crate) static REPLICAS: Key<Whole<u32>, Is<u32>> = key(
    "replicas",
    Whole { least: 0, most: 100 },
    Is(1),
    "0",
    "Replicas of an index that is made. For a single server, write 0.",
);
