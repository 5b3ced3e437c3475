//! Every key of a pipeline: its name, what stands there, what holds without it, what it is for. The reader
//! ([`crate::definition`]) and the reference ([`crate::reference`]) take them from here.

pub(crate) mod graph;
pub(crate) mod indexes;
pub(crate) mod sources;
pub(crate) mod store;
pub(crate) mod streams;
pub(crate) mod tables;
pub(crate) mod traces;
pub(crate) mod transport;
pub(crate) mod values;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use self::values::{Address, Name, NameOf};
use crate::yaml::{Entries, Folder, Is, Key, Keys, Means, Required, key};

/// The port of the HTTP listener, if none is named.
const PORT: u16 = 7676;

pub(crate) static PIPELINE: Keys = Keys {
    keys: &[
        &NAME, &SOURCES, &TRANSPORT, &GRAPH, &INDEXES, &SERVICES, &TABLES, &FUNCTIONS, &STREAMS, &HTTP, &TRACES, &DATA,
    ],
    rules: &[],
};

pub(crate) static NAME: Key<Name, Required> = key(
    "pipeline",
    Name(&NameOf::PIPELINE),
    Required,
    "movie-search",
    "The pipeline's name. It begins the names of consumer groups, slots, publications and internal topics, so a pipeline \
     that is given another name begins anew.",
);

pub(crate) static SOURCES: Key<Entries, Required> = key(
    "sources",
    Entries { names: &sources::NAMES, value: &&sources::SOURCE, some: true },
    Required,
    "studio:\n  postgres: { url: \"postgres://app@localhost/studio\", tables: [public.movie] }",
    "The databases whose changes are captured, each under a name of your choice. The name begins those of its topics.",
);

pub(crate) static TRANSPORT: Key<&Keys, Means> = key(
    "transport",
    &transport::TRANSPORT,
    Means("the embedded log"),
    "kafka: { brokers: \"kafka-1:9092,kafka-2:9092\" }",
    "Where events travel.",
);

pub(crate) static GRAPH: Key<&Keys, Means> = key(
    "graph",
    &graph::GRAPH,
    Means("there are streams and no indexes"),
    "endpoint: http://localhost:4000/graphql\nvertices:\n  public.movie: [{ type: Movie, id: \"{id}\" }]",
    "The GraphQL server that documents are built from, and what its schema does not say by itself: \
     [GRAPHS.md](../dsl/GRAPHS.md).",
);

pub(crate) static INDEXES: Key<Entries, Means> = key(
    "indexes",
    Entries { names: &indexes::NAMES, value: &&indexes::INDEX, some: true },
    Means("there are streams alone"),
    "movies: { query: movies.graphql }",
    "The search indexes, each under a name of your choice: the alias that readers use.",
);

pub(crate) static SERVICES: Key<Entries, Means> = key(
    "services",
    Entries { names: &streams::services::NAMES, value: &&streams::services::SERVICE, some: true },
    Means("none"),
    "catalog:\n  graphql: http://localhost:4000/graphql",
    "Services that steps of streams ask, each under a name of your choice. Its limits hold for all streams together.",
);

pub(crate) static TABLES: Key<Entries, Means> = key(
    "tables",
    Entries { names: &streams::lookups::NAMES, value: &&streams::lookups::TABLE, some: true },
    Means("none"),
    "movies: { from: public.movie, value: [id, title] }",
    "Tables that steps of streams look into, each under a name of your choice: what a captured table has, or what a topic has. Every process \
     has them whole, in memory or on its disk.",
);

pub(crate) static FUNCTIONS: Key<Entries, Means> = key(
    "functions",
    Entries { names: &streams::functions::NAMES, value: &&streams::functions::FUNCTION, some: true },
    Means("none"),
    "rank: { wasm: rank.wasm, takes: { price: number }, answers: number }",
    "WebAssembly components that steps and programs of streams call, each under a name of your choice: \
     [STREAMS.md](../processor/STREAMS.md#webassembly). They need a program that is built with `--features wasm`.",
);

pub(crate) static STREAMS: Key<Entries, Means> = key(
    "streams",
    Entries { names: &streams::NAMES, value: &&streams::STREAM, some: true },
    Means("none"),
    "renamed:\n  from: public.movie\n  steps: [{ filter: .op == \"u\" && .after.title != .before.title }]\n  to: [{ topic: { name: movies.renamed } }]",
    "Streams of changes through steps into sinks, each under a name of your choice: [STREAMS.md](../processor/STREAMS.md).",
);

pub(crate) static HTTP: Key<&Keys, Means> = key(
    "http",
    &LISTENER,
    Means("its defaults"),
    "listen: 127.0.0.1:7676",
    "The listener for `/health`, `/metrics`, documents and dead letters.",
);

static LISTENER: Keys = Keys { keys: &[&LISTEN], rules: &[] };

pub(crate) static LISTEN: Key<Address, Is<SocketAddr>> = key(
    "listen",
    Address,
    Is(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT)),
    "127.0.0.1:8080",
    "Where it listens. It asks nobody who they are: keep it on loopback.",
);

pub(crate) static TRACES: Key<&Keys, Means> = key(
    "traces",
    &traces::TRACES,
    Means("none are recorded"),
    "otlp: http://localhost:4318",
    "Where the ways of changes are told, from their commit through streams to sinks: [monitoring.md](monitoring.md#traces).",
);

pub(crate) static DATA: Key<Folder, Is<Cow<'static, str>>> = key(
    "data",
    Folder,
    Is(Cow::Borrowed("./data")),
    "/var/lib/tributary",
    "The folder of everything embedded: the log, the index, transactions in progress, events that were too large. \
     Relative to where `tributary` is started.",
);
