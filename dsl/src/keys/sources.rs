//! Keys of `sources.<source>`.

use std::time::Duration;

use super::tables::{TABLES, Table};
use super::values::{DatabaseUrl, MYSQL_URL, NameOf, SOURCE_URL, ServerName};
use crate::plan::{BinaryHandling, DecimalHandling, DroppedTypes, InvalidText, TimePrecision};
use crate::yaml::{Entries, Is, Items, Key, Keys, Line, Means, Names, Period, Required, Rule, Words, key};

pub(crate) static NAMES: Names = Names { mark: "<source>", pattern: Some(NameOf::PATTERN), example: "studio" };

pub(crate) static SOURCE: Keys = Keys { keys: &[&POSTGRES, &MYSQL, &MARIADB], rules: &[Rule::One] };

pub(crate) static POSTGRES: Key<&Keys, Means> = key(
    "postgres",
    &POSTGRES_KEYS,
    Means("refused"),
    "url: \"postgres://app@localhost/studio\"\npassword_file: /run/secrets/studio\ntables: [public.movie, public.talent]",
    "A PostgreSQL database, 14 or later, by logical decoding. What the role needs and how each of these behaves: \
     [POSTGRESQL.md](../connector/POSTGRESQL.md).",
);

pub(crate) static MYSQL: Key<&Keys, Means> = key(
    "mysql",
    &MYSQL_KEYS,
    Means("refused"),
    "url: \"mysql://app@localhost:3306\"\npassword_file: /run/secrets/studio\ntables: [studio.movie, studio.talent]",
    "A MySQL server, by its binary log. What the user needs and how each of these behaves: [MYSQL.md](../connector/MYSQL.md).",
);

pub(crate) static MARIADB: Key<&Keys, Means> = key(
    "mariadb",
    &MYSQL_KEYS,
    Means("refused"),
    "url: \"mariadb://app@localhost:3306\"\npassword_file: /run/secrets/studio\ntables: [studio.movie, studio.talent]",
    "A MariaDB server, likewise. Either key takes either server: it is known by what it answers.",
);

static MYSQL_KEYS: Keys = Keys {
    keys: &[
        &MYSQL_ADDRESS,
        &PASSWORD_FILE,
        &CAPTURED_OF_DATABASES,
        &KEYS,
        &IDENTITY,
        &CLOUD_EVENTS,
        &DECIMALS,
        &MYSQL_TIMES,
        &BINARY,
        &INVALID_TEXT,
        &QUERY,
    ],
    rules: &[],
};

pub(crate) static MYSQL_ADDRESS: Key<DatabaseUrl, Required> = key(
    "url",
    MYSQL_URL,
    Required,
    "\"mysql://app@localhost:3306?ssl-mode=VERIFY_IDENTITY\"",
    "How to connect; several hosts with commas between them, of which one that accepts writes is read. Parameters: `ssl-mode`, \
     `ssl-ca`, `ssl-cert`, `ssl-key`, `connect-timeout`.",
);

pub(crate) static CAPTURED_OF_DATABASES: Key<Items, Required> = key(
    "tables",
    Items { value: &Table, some: true },
    Required,
    "[studio.movie, studio.talent]",
    "The tables to capture, each as `database.table`, exactly as they are called.",
);

pub(crate) static IDENTITY: Key<ServerName, Means> = key(
    "identity",
    ServerName("reader"),
    Means("`tributary_<pipeline>_<source>`"),
    "tributary_movies",
    "The name by which one process reads the log at a time: that of a lock at the server, of which its number as a replica is made.",
);

pub(crate) static MYSQL_TIMES: Key<Words<TimePrecision>, Is<TimePrecision>> = key(
    "times",
    Words(PRECISIONS),
    Is(TimePrecision::AdaptiveTimeMicroseconds),
    "iso",
    "How dates and times travel in topics: as numbers in units as fine as the column, in one unit, or as ISO 8601 text.",
);

pub(crate) static QUERY: Key<Words<bool>, Is<bool>> = key(
    "query",
    Words(ON_OFF),
    Is(false),
    "on",
    "Whether events have the statement that made them in `source.query`: the first 64 KiB, where the server keeps statements in its log. They \
     may hold personal data of other rows and tables.",
);

static POSTGRES_KEYS: Keys = Keys {
    keys: &[
        &URL,
        &PASSWORD_FILE,
        &CAPTURED,
        &KEYS,
        &SLOT,
        &PUBLICATION,
        &STREAMING,
        &MESSAGES,
        &CLOUD_EVENTS,
        &PREPARED_TRANSACTIONS,
        &HEARTBEAT,
        &ROW_FILTERS,
        &DECIMALS,
        &TIMES,
        &BINARY,
        &HSTORE,
        &INTERVALS,
        &INVALID_TEXT,
        &DROPPED_TYPES,
    ],
    rules: &[],
};

pub(crate) static URL: Key<DatabaseUrl, Required> = key(
    "url",
    SOURCE_URL,
    Required,
    "\"postgres://app@localhost:5432/studio\"",
    "How to connect, with libpq's parameters; several hosts with commas between them. It must lead to the server itself, not to a \
     connection pooler.",
);

pub(crate) static PASSWORD_FILE: Key<Line, Means> = key(
    "password_file",
    Line("file"),
    Means("the password is in the url, or none is needed"),
    "/run/secrets/studio",
    "A file with the password of the user that the url names. Relative to the pipeline's file.",
);

pub(crate) static CAPTURED: Key<Items, Required> = key(
    "tables",
    Items { value: &Table, some: true },
    Required,
    "[public.movie, public.talent]",
    "The tables to capture, each as `schema.table`, exactly as they are called; with SQL's quotes around a part that has a dot \
     or a quote in it.",
);

pub(crate) static KEYS: Key<Entries, Means> = key(
    "keys",
    Entries { names: &TABLES, value: &COLUMNS, some: false },
    Means("primary keys"),
    "{ public.movie: [studio_id, number] }",
    "Columns that make the key of a table's events, in place of its primary key.",
);

pub(crate) static COLUMNS: Items = Items { value: &Line("column"), some: true };

pub(crate) static SLOT: Key<ServerName, Means> = key(
    "slot",
    ServerName("slot"),
    Means("`tributary_<pipeline>_<source>`"),
    "tributary_movies",
    "The replication slot. It is made where it is missing.",
);

pub(crate) static PUBLICATION: Key<ServerName, Means> = key(
    "publication",
    ServerName("publication"),
    Means("`tributary_<pipeline>_<source>`"),
    "tributary_movies",
    "The publication. It is made where it is missing, and respected where it is there.",
);

const ON_OFF: &[(&str, bool)] = &[("on", true), ("off", false)];

const PRECISIONS: &[(&str, TimePrecision)] = &[
    ("adaptive", TimePrecision::Adaptive),
    ("adaptive-time-microseconds", TimePrecision::AdaptiveTimeMicroseconds),
    ("milliseconds", TimePrecision::Milliseconds),
    ("microseconds", TimePrecision::Microseconds),
    ("nanoseconds", TimePrecision::Nanoseconds),
    ("iso", TimePrecision::Iso),
];

pub(crate) static STREAMING: Key<Words<bool>, Is<bool>> = key(
    "streaming",
    Words(ON_OFF),
    Is(true),
    "off",
    "Whether the server sends large transactions while they are in progress, to be kept in the data folder until they commit; \
     else it keeps them on its own disk.",
);

pub(crate) static MESSAGES: Key<Words<bool>, Is<bool>> = key(
    "messages",
    Words(ON_OFF),
    Is(false),
    "on",
    "Whether what `pg_logical_emit_message` writes is published, in the topic `<source>.message`.",
);

pub(crate) static CLOUD_EVENTS: Key<Words<bool>, Is<bool>> = key(
    "cloudevents",
    Words(ON_OFF),
    Is(false),
    "on",
    "Whether records of changes have the attributes of CloudEvents as headers: `ce_id` (the number of the change), `ce_source` \
     (`/<pipeline>/<source>`), `ce_type` (the table), `ce_time`, `ce_specversion`, and `ce_op`, `ce_sequence`, `ce_committedus`.",
);

pub(crate) static PREPARED_TRANSACTIONS: Key<Words<bool>, Is<bool>> = key(
    "prepared_transactions",
    Words(&[("at-commit", false), ("at-prepare", true)]),
    Is(false),
    "at-prepare",
    "When the changes of a prepared transaction are published. `at-prepare` is for topics alone: it is refused where documents \
     show the tables.",
);

pub(crate) static HEARTBEAT: Key<Period, Means> = key(
    "heartbeat",
    Period { least: Duration::from_secs(1) },
    Means("none"),
    "30s",
    "How often a heartbeat is written into the log, so that the slot of an idle database moves on.",
);

pub(crate) static ROW_FILTERS: Key<Words<bool>, Is<bool>> = key(
    "row_filters",
    Words(&[("refuse", false), ("accept", true)]),
    Is(false),
    "accept",
    "What to do with a publication that leaves rows out of a table that documents show. Accept it where the graph leaves out the \
     same rows.",
);

pub(crate) static DECIMALS: Key<Words<DecimalHandling>, Is<DecimalHandling>> = key(
    "decimals",
    Words(&[
        ("precise", DecimalHandling::Precise),
        ("string", DecimalHandling::String),
        ("double", DecimalHandling::Double),
    ]),
    Is(DecimalHandling::Precise),
    "string",
    "How exact decimals travel in topics: as base64 of their unscaled value, as text, as JSON numbers.",
);

pub(crate) static TIMES: Key<Words<TimePrecision>, Is<TimePrecision>> = key(
    "times",
    Words(PRECISIONS),
    Is(TimePrecision::Adaptive),
    "iso",
    "How dates and times travel in topics: as numbers in units as fine as the column, in one unit, or as ISO 8601 text.",
);

pub(crate) static BINARY: Key<Words<BinaryHandling>, Is<BinaryHandling>> = key(
    "binary",
    Words(&[
        ("base64", BinaryHandling::Base64),
        ("base64url", BinaryHandling::Base64Url),
        ("hex", BinaryHandling::Hex),
    ]),
    Is(BinaryHandling::Base64),
    "hex",
    "How bytes travel in topics (`bytea`; `BINARY`, `BLOB`).",
);

pub(crate) static HSTORE: Key<Words<bool>, Is<bool>> = key(
    "hstore",
    Words(&[("json", false), ("map", true)]),
    Is(false),
    "map",
    "How `hstore` travels in topics: as text that is a JSON object, or as an object.",
);

pub(crate) static INTERVALS: Key<Words<bool>, Is<bool>> = key(
    "intervals",
    Words(&[("microseconds", false), ("iso", true)]),
    Is(false),
    "iso",
    "How intervals travel in topics: as a number of microseconds, or as ISO 8601 text.",
);

pub(crate) static DROPPED_TYPES: Key<Words<DroppedTypes>, Is<DroppedTypes>> = key(
    "dropped_types",
    Words(&[("stop", DroppedTypes::Stop), ("text", DroppedTypes::Text)]),
    Is(DroppedTypes::Stop),
    "text",
    "What becomes of values of a type that was made, used and dropped before the source looked at it: the source stops, or they \
     travel as the text that the server prints.",
);

pub(crate) static INVALID_TEXT: Key<Words<InvalidText>, Is<InvalidText>> = key(
    "invalid_text",
    Words(&[("stop", InvalidText::Stop), ("replace", InvalidText::Replace), ("base64", InvalidText::Base64)]),
    Is(InvalidText::Stop),
    "replace",
    "What becomes of bytes that are no text in the encoding of the database or column: the source stops, U+FFFD stands in their place, or the \
     value travels as base64.",
);
