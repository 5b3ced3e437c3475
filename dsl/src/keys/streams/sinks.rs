//! Keys of the sinks of a stream.

mod files;

pub(crate) use files::{ACCESS_KEY, ENDPOINT, EVERY, FILE_FORMAT, FILES, FOLDER, REGION, S3, SECRET_KEY, SIZE};

use std::time::Duration;

use super::ON_ERRORS;
use super::values::Code;
use crate::keys::graph::{HEADER_NAMES, LEAVES};
use crate::keys::indexes::STORE;
use crate::keys::tables::Table;
use crate::keys::values::{DatabaseUrl, TABLE_URL};
use crate::plan::{ConductorFlavor, DeliveryOrder, OnError, WebhookFormat};
use crate::yaml::{
    Entries, Hidden, Is, Key, Keys, Limit, Line, Means, Names, OneOrMany, Period, Required, Rule, Whole, Words, key,
};

pub(crate) static SINK: Keys = Keys {
    keys: &[&TOPIC, &INDEX, &WEBHOOK, &CONDUCTOR, &SQL, &FILES, &WHEN],
    rules: &[Rule::OneOf(&["topic", "index", "webhook", "conductor", "sql", "files"])],
};

pub(crate) static WHEN: Key<Code, Means> = key(
    "when",
    Code,
    Means("all events go there"),
    ".op == \"c\"",
    "A condition in VRL; events of which it is not true do not go to this sink.",
);

const ON_OFF: Words<bool> = Words(&[("on", true), ("off", false)]);

pub(crate) static TOPIC: Key<&Keys, Means> = key(
    "topic",
    &TOPIC_KEYS,
    Means("another sink"),
    "name: movies.renamed",
    "A topic of the pipeline's transport. Each event is there once, whatever happens on the way (on Kafka for readers of committed \
     records).",
);

static TOPIC_KEYS: Keys = Keys { keys: &[&TOPIC_NAME, &TOPIC_KEY, &COMPACT, &HEADERS_OF_TOPIC], rules: &[] };

pub(crate) static TOPIC_NAME: Key<Line, Required> =
    key("name", Line("name"), Required, "movies.renamed", "Its name. It is created if there is none.");

pub(crate) static TOPIC_KEY: Key<Code, Means> = key(
    "key",
    Code,
    Means("the key that the event has in its table's topic"),
    ".after.id",
    "What the record's key is, in VRL: text as it is, anything else as JSON. Records of one key are in one partition, in the order in \
     which they came from theirs.",
);

pub(crate) static COMPACT: Key<Words<bool>, Is<bool>> = key(
    "compact",
    ON_OFF,
    Is(false),
    "on",
    "Whether the topic keeps the last record of each key alone, and that of a deleted row not at all: such an event becomes a record \
     without a value.",
);

pub(crate) static HEADERS_OF_TOPIC: Key<Words<bool>, Is<bool>> = key(
    "headers",
    Words(&[("none", false), ("cloudevents", true)]),
    Is(false),
    "cloudevents",
    "What records have beside key and value: nothing, or the attributes of CloudEvents (`ce_id`, `ce_source`, `ce_type`, `ce_time`, \
     `ce_specversion`, and `ce_op`, `ce_sequence`, `ce_committedus`).",
);

pub(crate) static NAME: Key<Line, Means> = key(
    "name",
    Line("name"),
    Means("its kind"),
    "audit",
    "What messages, metrics and its group of readers call the sink. One that is given another name begins anew.",
);

pub(crate) static ON_ERROR: Key<Words<OnError>, Is<OnError>> = key(
    "on_error",
    ON_ERRORS,
    Is(OnError::Stop),
    "dead_letter",
    "What becomes of an event that the sink will never take. `stop`: the sink stands still there and tries it again. `dead_letter`: it is \
     set aside with its cause, and so are later events of its key, until they are replayed in their order.",
);

pub(crate) static ORDER: Key<Words<DeliveryOrder>, Is<DeliveryOrder>> = key(
    "order",
    Words(&[("key", DeliveryOrder::Key), ("partition", DeliveryOrder::Partition), ("none", DeliveryOrder::None)]),
    Is(DeliveryOrder::Key),
    "none",
    "Which events wait until others have arrived. `key`: those of a key for one another. `partition`: all of a partition of the stream's \
     topic for one another, one at a time (with `on_error: dead_letter`, only those of the same key wait behind one that was set aside). \
     `none`: none, also behind one that is set aside.",
);

pub(crate) static ROW_ORDER: Key<Words<DeliveryOrder>, Is<DeliveryOrder>> = key(
    "order",
    Words(&[("key", DeliveryOrder::Key), ("partition", DeliveryOrder::Partition)]),
    Is(DeliveryOrder::Key),
    "partition",
    "Which events wait until others have arrived: those of a key for one another, or all of a partition of the stream's topic, one at a \
     time. What an event lacks of its row is taken from the document that is there, so events of a row always have an order.",
);

pub(crate) static RETRY: Key<&Keys, Means> = key(
    "retry",
    &RETRY_KEYS,
    Means("for ever, a minute apart at most"),
    "within: 24h",
    "How long an event is tried that the sink does not take now.",
);

static RETRY_KEYS: Keys = Keys { keys: &[&WITHIN, &MAX_PAUSE], rules: &[] };

pub(crate) static WITHIN: Key<Limit<Period>, Is<Option<Duration>>> = key(
    "within",
    Limit(Period { least: Duration::from_secs(1) }),
    Is(None),
    "24h",
    "So long; afterwards it counts as one that the sink will never take.",
);

pub(crate) static MAX_PAUSE: Key<Period, Is<Duration>> = key(
    "max_pause",
    Period { least: Duration::from_millis(100) },
    Is(Duration::from_secs(60)),
    "5m",
    "The longest pause between two tries; the first is short, and they grow.",
);

pub(crate) static WEBHOOK: Key<&Keys, Means> = key(
    "webhook",
    &WEBHOOK_KEYS,
    Means("another sink"),
    "url: \"https://hooks.example/movies\"\nsecret: \"${HOOK_SECRET}\"",
    "HTTP requests, signed as [Standard Webhooks](https://www.standardwebhooks.com) says. Each event arrives at least once, with the same \
     id at every try, and events of one key one after the other.",
);

static WEBHOOK_KEYS: Keys = Keys {
    keys: &[
        &URL,
        &SECRET,
        &FORMAT,
        &HEADERS,
        &TIMEOUT,
        &CONCURRENCY,
        &BATCH,
        &PRIVATE,
        &NAME,
        &ORDER,
        &ON_ERROR,
        &RETRY,
    ],
    rules: &[],
};

pub(crate) static URL: Key<Hidden, Required> = key(
    "url",
    Hidden,
    Required,
    "https://hooks.example/movies",
    "Where requests go. It may hold a token: it is never printed.",
);

pub(crate) static SECRET: Key<OneOrMany<Hidden>, Means> = key(
    "secret",
    OneOrMany(Hidden),
    Means("requests are not signed"),
    "${HOOK_SECRET}",
    "What signs them. With several, all of them sign: a receiver may know any, so that a secret can be replaced.",
);

pub(crate) static FORMAT: Key<Words<WebhookFormat>, Is<WebhookFormat>> = key(
    "format",
    Words(&[
        ("cloudevents", WebhookFormat::CloudEventsStructured),
        ("cloudevents-binary", WebhookFormat::CloudEventsBinary),
        ("plain", WebhookFormat::Plain),
    ]),
    Is(WebhookFormat::CloudEventsStructured),
    "plain",
    "What the body is: an envelope of [CloudEvents](https://cloudevents.io) with the event in `data`; the event, with `ce-` headers; or the \
     event alone.",
);

pub(crate) static HEADERS: Key<Entries, Means> = key(
    "headers",
    Entries { names: &HEADER_NAMES, value: &Hidden, some: false },
    Means("none"),
    "{ authorization: \"Bearer ${TOKEN}\" }",
    "Headers of every request.",
);

pub(crate) static TIMEOUT: Key<Period, Is<Duration>> = key(
    "timeout",
    Period { least: Duration::from_millis(1) },
    Is(Duration::from_secs(15)),
    "5s",
    "The longest that one request may take.",
);

pub(crate) static CONCURRENCY: Key<Whole<usize>, Is<usize>> = key(
    "concurrency",
    Whole { least: 1, most: 1000 },
    Is(16),
    "64",
    "Requests in flight at most, of one process. Those of one key are never in flight together.",
);

pub(crate) static BATCH: Key<Whole<usize>, Is<usize>> = key(
    "batch",
    Whole { least: 1, most: 1000 },
    Is(1),
    "100",
    "Events of one request at most; above 1 the body is a list.",
);

pub(crate) static PRIVATE: Key<Words<bool>, Is<bool>> = key(
    "private",
    ON_OFF,
    Is(false),
    "on",
    "Whether requests may go to private networks: addresses that are loopback, link-local or private. Otherwise they are refused, so that \
     whoever may write a URL reaches nothing inside.",
);

pub(crate) static CONDUCTOR: Key<&Keys, Means> = key(
    "conductor",
    &CONDUCTOR_KEYS,
    Means("another sink"),
    "url: \"https://conductor.example/api\"\nworkflow: greenlight\nflavor: oss",
    "Workflows of a [Conductor](https://conductor-oss.org) server. Each event starts one, those of one key one after the other. Who asks is \
     told by `headers`; a token that expires is not renewed. It was tested against a stub that behaves as the servers' sources and \
     documentation say, not against a server.",
);

static CONDUCTOR_KEYS: Keys = Keys {
    keys: &[
        &CONDUCTOR_URL,
        &WORKFLOW,
        &VERSION,
        &INPUT,
        &FLAVOR,
        &SETTLE,
        &HEADERS,
        &TIMEOUT,
        &CONCURRENCY,
        &PRIVATE,
        &DRY_RUN,
        &NAME,
        &ORDER,
        &ON_ERROR,
        &RETRY,
    ],
    rules: &[],
};

pub(crate) static CONDUCTOR_URL: Key<Hidden, Required> = key(
    "url",
    Hidden,
    Required,
    "https://conductor.example/api",
    "Where the server's API begins; it usually ends in `/api`. It is never printed.",
);

pub(crate) static WORKFLOW: Key<Line, Required> = key(
    "workflow",
    Line("name"),
    Required,
    "greenlight",
    "The workflow's name. Before the first event the server is asked whether it is registered.",
);

pub(crate) static VERSION: Key<Whole<u32>, Means> =
    key("version", Whole { least: 1, most: i32::MAX as u32 }, Means("the latest"), "3", "The workflow's version.");

pub(crate) static INPUT: Key<Code, Means> = key(
    "input",
    Code,
    Means("the event"),
    "'{ \"movie\": .after.id }'",
    "What the workflow is started with, in VRL: an object.",
);

pub(crate) static FLAVOR: Key<Words<ConductorFlavor>, Required> = key(
    "flavor",
    Words(&[("orkes", ConductorFlavor::Orkes), ("oss", ConductorFlavor::Oss)]),
    Required,
    "oss",
    "Which server it is; it cannot be asked. `orkes` keeps a key of each start: one workflow for an event, as long as the server keeps the \
     workflow. `oss`, the open source one, ignores keys: before the first event of each key that this process is given, and after a \
     start whose answer did not come, it is looked up whether the event's workflow is there, by its correlation id. Where that look-up \
     lags behind, a workflow may start twice.",
);

pub(crate) static SETTLE: Key<Period, Is<Duration>> = key(
    "settle",
    Period { least: Duration::ZERO },
    Is(Duration::from_secs(2)),
    "10s",
    "With `oss`: so long after a start that may have been done, it is looked up whether it was. A server that keeps workflows in Redis \
     finds them by way of its search index, which lags behind.",
);

pub(crate) static DRY_RUN: Key<Words<bool>, Is<bool>> = key(
    "dry_run",
    ON_OFF,
    Is(false),
    "on",
    "Whether nothing is started: the server is asked whether the workflow is there, and what would be started is logged, with its key and \
     its input, and counted (`tributary_sink_dry_starts_total`). Events count as delivered: they are not started later. `tributary test` \
     starts them all the same, in its stand-in.",
);

pub(crate) static SQL: Key<&Keys, Means> = key(
    "sql",
    &SQL_KEYS,
    Means("another sink"),
    "url: \"postgres://app@warehouse/studio\"\ntable: public.movie_copy\nkey: id",
    "A table of PostgreSQL, MySQL or MariaDB, a row for each key. Each event is applied once; an older one never replaces what a newer one left.",
);

static SQL_KEYS: Keys =
    Keys { keys: &[&SQL_URL, &TABLE, &ROW_KEY, &ROW, &CREATE, &KEEP_DELETED, &NAME, &ON_ERROR, &RETRY], rules: &[] };

pub(crate) static SQL_URL: Key<DatabaseUrl, Required> = key(
    "url",
    TABLE_URL,
    Required,
    "postgres://app@warehouse/studio",
    "The database: of PostgreSQL as libpq has it, with `sslmode`; of MySQL and MariaDB `mysql://user:password@host:3306/database`, with \
     `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key` or `socket`. It is never printed.",
);

pub(crate) static TABLE: Key<Table, Required> = key(
    "table",
    Table,
    Required,
    "public.movie_copy",
    "The table, behind its schema; of MySQL and MariaDB behind its database.",
);

pub(crate) static ROW_KEY: Key<OneOrMany<Line>, Required> =
    key("key", OneOrMany(Line("column")), Required, "id", "The columns that are its key.");

pub(crate) static ROW: Key<Code, Means> = key(
    "row",
    Code,
    Means("`.after` while no step has changed the event; else the event"),
    "'{ \"id\": .after.id, \"title\": .after.title }'",
    "The row, in VRL. A field that it lacks leaves its column alone; null writes null.",
);

pub(crate) static CREATE: Key<Words<bool>, Is<bool>> = key(
    "create",
    ON_OFF,
    Is(true),
    "off",
    "Whether the table is made if there is none, and gets the columns that it lacks.",
);

pub(crate) static KEEP_DELETED: Key<Period, Is<Duration>> = key(
    "keep_deleted",
    Period { least: Duration::from_secs(1) },
    Is(Duration::from_secs(7 * 86_400)),
    "30d",
    "A row that was deleted stays so long, marked by `_deleted`, so that an older event does not bring it back.",
);

pub(crate) static INDEX: Key<&Keys, Means> = key(
    "index",
    &INDEX_KEYS,
    Means("another sink"),
    "name: titles\nkey: id\nfields: { title: text, year: long }",
    "A search index, a document for each row: the rows of a table, or what steps have made of them, without a graph. An older event never \
     replaces what a newer one left.",
);

static INDEX_KEYS: Keys =
    Keys { keys: &[&INDEX_NAME, &ROW_KEY, &FIELDS, &ROW, &STORE, &ROW_ORDER, &ON_ERROR, &RETRY], rules: &[] };

pub(crate) static INDEX_NAME: Key<Line, Required> = key(
    "name",
    Line("name"),
    Required,
    "titles",
    "Its name: the alias that readers use, and the folder of an embedded one.",
);

pub(crate) static FIELDS: Key<Entries, Required> = key(
    "fields",
    Entries { names: &Names { mark: "<field>", pattern: None, example: "title" }, value: &LEAVES, some: true },
    Required,
    "{ title: text, year: long }",
    "The fields of the row that its document has, and how they are indexed. Each may hold a value or a list of them.",
);
