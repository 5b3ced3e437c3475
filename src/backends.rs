//! From a definition to real parts: transports and connectors; and from its plan: the graph, stores, listings of roots.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tributary_connector::postgres;
use tributary_connector::{
    BinaryHandling, ConnectorSettings, DroppedTypes, InvalidText, KeyPager, MySqlSettings, Oversized, OversizedPolicy,
    PostgresSettings, PreparedTransactions, TimePrecision, TopicSettings, ValueOptions,
};
use tributary_dsl::Definition;
use tributary_dsl::plan::{
    self, Compression, DecimalHandling, Durability, GraphPlan, IdTemplate, IndexPlan, Plan, RetentionSettings, RootIds,
    Secret, SourcePlan, SourceSettings, TransportPlan,
};
use tributary_event::debezium::DecimalMode;
use tributary_event::{ErrorClass, Health, Lsn, TableName};
use tributary_indexer::graph::{Graph, GraphError, HttpGraph, IdPage, PatientGraph, Refusals};
use tributary_indexer::listing::{GraphRootIds, RootIdSource, SourceLog};
use tributary_indexer::request::names;
use tributary_indexer::resolve::vertices::id_value;
use tributary_indexer::store::{DocumentStore, open, open_read_only};
use tributary_transport::{Embedded, EmbeddedSettings, Kafka, KafkaSettings, Retention, TopicSpec, Transport};

use crate::cli::exit::Failure;
use crate::probe::Probed;

/// Where all pipelines kept their checkpoints before each had a topic of its own.
const SHARED_CHECKPOINTS: &str = "tributary.checkpoints";

/// The folder of the embedded log, among a pipeline's data.
pub const LOG: &str = "log";

/// Opens a definition's transport.
pub async fn transport(definition: &Definition) -> Result<Arc<dyn Transport>, Failure> {
    let opened: Result<Arc<dyn Transport>, _> = match definition.transport() {
        TransportPlan::Embedded(settings) => {
            let folder = definition.data().join(LOG);
            let max_record = settings.records.max;
            let partitions = settings.partitions;
            let settings = EmbeddedSettings { partitions, max_record, ..EmbeddedSettings::default() };
            let open = move || Embedded::open(folder, settings).map(|log| Arc::new(log) as Arc<dyn Transport>);
            tokio::task::spawn_blocking(open).await.map_err(|e| Failure::Stopped(e.to_string()))?
        }
        TransportPlan::Kafka(kafka) => Kafka::connect(KafkaSettings {
            durability: match kafka.durability {
                Durability::Strict => tributary_transport::Durability::Strict,
                Durability::Relaxed => tributary_transport::Durability::Relaxed,
            },
            compression: match kafka.compression {
                Compression::Lz4 => tributary_transport::Compression::Lz4,
                Compression::Zstd => tributary_transport::Compression::Zstd,
            },
            partitions: kafka.partitions,
            replication: kafka.replication,
            min_insync: kafka.min_insync,
            max_record: kafka.records.max,
            checkpoint_topic: names::checkpoints(definition.pipeline()),
            former_checkpoint_topic: Some(SHARED_CHECKPOINTS.to_owned()),
            properties: kafka
                .properties
                .iter()
                .map(|(name, value)| (name.clone(), value.reveal().to_owned()))
                .collect(),
            ..KafkaSettings::new(&kafka.brokers)
        })
        .map(|kafka| Arc::new(kafka) as Arc<dyn Transport>),
    };
    opened.map_err(|e| Failure::of(e.class, e.message))
}

/// Where the rows of a source's tables are read.
pub fn rows_of(source: &SourcePlan) -> tributary_connector::SourceSettings {
    match &source.settings {
        SourceSettings::Postgres(postgres) => tributary_connector::SourceSettings::Postgres(connection(postgres)),
        SourceSettings::MySql(mysql) => tributary_connector::SourceSettings::MySql(mysql_connection(mysql)),
    }
}

/// The connector of a source.
pub fn connector_settings(definition: &Definition, source: &SourcePlan) -> ConnectorSettings {
    let (transport, data) = (definition.transport(), definition.data());
    let (settings, cloud_events) = match &source.settings {
        SourceSettings::Postgres(postgres) => {
            let streaming = postgres.streaming.then(|| data.join("transactions").join(&source.name));
            let settings = PostgresSettings { streaming, ..connection(postgres) };
            (tributary_connector::SourceSettings::Postgres(settings), postgres.cloud_events)
        }
        SourceSettings::MySql(mysql) => {
            let transactions = Some(data.join("transactions").join(&source.name));
            let settings = MySqlSettings { transactions, ..mysql_connection(mysql) };
            (tributary_connector::SourceSettings::MySql(settings), mysql.cloud_events)
        }
    };
    ConnectorSettings {
        source: settings,
        decimals: decimals(source.settings.decimals()),
        cloud_events: cloud_events.then(|| format!("/{}/{}", definition.pipeline(), source.name)),
        topics: TopicSettings { partitions: transport.partitions(), retention: retention(definition) },
        oversized: Oversized {
            policy: match transport.records().oversized {
                plan::Oversized::Stop => OversizedPolicy::Stop,
                plan::Oversized::SetAside => OversizedPolicy::SetAside,
                plan::Oversized::Spill => OversizedPolicy::Spill,
            },
            folder: data.join("oversized").join(&source.name),
            letters: names::dead_letters(definition.pipeline()),
            replays: names::replays(definition.pipeline()),
        },
        ..ConnectorSettings::postgres(&source.name, tributary_connector::Secret::new(""), Vec::<TableName>::new())
    }
}

/// How exact decimals travel.
pub fn decimals(handling: DecimalHandling) -> DecimalMode {
    match handling {
        DecimalHandling::Precise => DecimalMode::Precise,
        DecimalHandling::String => DecimalMode::String,
        DecimalHandling::Double => DecimalMode::Double,
    }
}

/// How long topics keep what is not compacted.
pub fn retention(definition: &Definition) -> Retention {
    let RetentionSettings { age, bytes } = definition.transport().retention().clone();
    Retention::Delete { age, bytes }
}

/// The topics of the tables of all sources.
pub fn topics(definition: &Definition) -> Result<Vec<TopicSpec>, Failure> {
    let mut topics = Vec::new();
    for source in definition.sources() {
        let specs = connector_settings(definition, source).topic_specs();
        topics.extend(specs.map_err(|e| Failure::Stopped(format!("source {}: {e}", source.name)))?);
    }
    Ok(topics)
}

/// The settings of a connection.
pub fn connection(postgres: &plan::PostgresSettings) -> PostgresSettings {
    PostgresSettings {
        url: tributary_connector::Secret::new(postgres.url.reveal()),
        tables: postgres.tables.clone(),
        keys: postgres.keys.iter().map(|(t, key)| (t.schema.to_string(), t.name.to_string(), key.clone())).collect(),
        slot: postgres.slot.clone(),
        publication: postgres.publication.clone(),
        streaming: None,
        messages: postgres.messages,
        prepared: if postgres.at_prepare { PreparedTransactions::AtPrepare } else { PreparedTransactions::AtCommit },
        heartbeat: postgres.heartbeat,
        values: values(postgres),
        binary: true,
        invalid_text: invalid_text(postgres.invalid_text),
        dropped_types: match postgres.dropped_types {
            plan::DroppedTypes::Stop => DroppedTypes::Stop,
            plan::DroppedTypes::Text => DroppedTypes::Text,
        },
        unconverted: false,
    }
}

/// The settings of a connection to MySQL or MariaDB.
pub fn mysql_connection(mysql: &plan::MySqlSettings) -> MySqlSettings {
    MySqlSettings {
        url: tributary_connector::Secret::new(mysql.url.reveal()),
        tables: mysql.tables.clone(),
        keys: mysql.keys.iter().map(|(t, key)| (t.schema.to_string(), t.name.to_string(), key.clone())).collect(),
        identity: mysql.identity.clone(),
        transactions: None,
        values: ValueOptions { times: times(mysql.times), binary: binary(mysql.binary), ..ValueOptions::default() },
        invalid_text: invalid_text(mysql.invalid_text),
        query: mysql.query,
    }
}

fn invalid_text(policy: plan::InvalidText) -> InvalidText {
    match policy {
        plan::InvalidText::Stop => InvalidText::Stop,
        plan::InvalidText::Replace => InvalidText::Replace,
        plan::InvalidText::Base64 => InvalidText::Base64,
    }
}

fn times(precision: plan::TimePrecision) -> TimePrecision {
    match precision {
        plan::TimePrecision::Adaptive => TimePrecision::Adaptive,
        plan::TimePrecision::AdaptiveTimeMicroseconds => TimePrecision::AdaptiveTimeMicroseconds,
        plan::TimePrecision::Milliseconds => TimePrecision::Milliseconds,
        plan::TimePrecision::Microseconds => TimePrecision::Microseconds,
        plan::TimePrecision::Nanoseconds => TimePrecision::Nanoseconds,
        plan::TimePrecision::Iso => TimePrecision::Iso,
    }
}

fn binary(handling: plan::BinaryHandling) -> BinaryHandling {
    match handling {
        plan::BinaryHandling::Base64 => BinaryHandling::Base64,
        plan::BinaryHandling::Base64Url => BinaryHandling::Base64Url,
        plan::BinaryHandling::Hex => BinaryHandling::Hex,
    }
}

fn values(postgres: &plan::PostgresSettings) -> ValueOptions {
    ValueOptions {
        times: times(postgres.times),
        binary: binary(postgres.binary),
        hstore_as_map: postgres.hstore_as_map,
        intervals_as_text: postgres.intervals_as_text,
    }
}

/// The graph of a plan. `fail_fast`: its refusals are fatal, and no outages.
pub fn graph(plan: &Plan, fail_fast: bool) -> Result<Arc<dyn Graph>, Failure> {
    let graph = HttpGraph::new(&plan.graph).map_err(|e| Failure::of(e.class, e.message))?;
    Ok(Arc::new(PatientGraph::new(graph, if fail_fast { Refusals::End } else { Refusals::Wait })))
}

/// A client of an endpoint before there is a plan, to ask for its schema.
pub fn graph_client(endpoint: &str, headers: &BTreeMap<String, Secret>) -> Result<impl Graph, GraphError> {
    HttpGraph::new(&GraphPlan {
        endpoint: endpoint.to_owned(),
        place: plan::Place::default(),
        headers: headers.clone(),
        timeout: Duration::from_secs(30),
        concurrency: 1,
        vertices: BTreeMap::new(),
        fan_outs: BTreeMap::new(),
        probe: false,
        hidden: BTreeMap::new(),
        lag: std::time::Duration::ZERO,
        probes: BTreeMap::new(),
    })
}

/// The stores of a plan's indexes.
pub fn stores(plan: &Plan) -> Result<HashMap<String, Arc<dyn DocumentStore>>, Failure> {
    let opened =
        plan.indexes.iter().map(|index| Ok((index.name.clone(), open(&index.store, &index.name, &plan.data)?)));
    let opened: Result<_, tributary_indexer::store::StoreError> = opened.collect();
    opened.map_err(|e| Failure::of(e.class, e.message))
}

/// The store of an index, to look into.
pub fn store_for_reading(plan: &Plan, index: &IndexPlan) -> Result<Arc<dyn DocumentStore>, Failure> {
    open_read_only(&index.store, &index.name, &plan.data).map_err(|e| Failure::of(e.class, e.message))
}

/// Where the log of a source ends.
pub struct SourceEnd(Option<PostgresSettings>);

impl SourceEnd {
    /// That of this source.
    pub fn of(source: &SourcePlan) -> Self {
        match &source.settings {
            SourceSettings::Postgres(postgres) => Self(Some(connection(postgres))),
            SourceSettings::MySql(_) => Self(None),
        }
    }
}

#[async_trait]
impl SourceLog for SourceEnd {
    async fn end(&self) -> Result<Lsn, GraphError> {
        let Some(settings) = &self.0 else {
            let message =
                "a graph tells how far it has come in the logs of PostgreSQL alone: leave the source out of its header";
            return Err(GraphError::new(ErrorClass::Definite, message.to_owned()));
        };
        let end = postgres::end_of_log(settings).await;
        end.map_err(|e| GraphError::new(e.class(), e.to_string()))
    }
}

/// What lists the roots of each index. `compared`: the ids of rows were compared with those of the graph already.
pub fn roots(
    plan: &Arc<Plan>,
    graph: &Arc<dyn Graph>,
    health: &Health,
    compared: bool,
) -> Result<HashMap<String, Arc<dyn RootIdSource>>, Failure> {
    let mut all: HashMap<String, Arc<dyn RootIdSource>> = HashMap::new();
    for index in &plan.indexes {
        let roots: Arc<dyn RootIdSource> = match &index.root_ids {
            RootIds::Paging(paging) => Arc::new(GraphRootIds { graph: graph.clone(), paging: paging.clone() }),
            RootIds::Table { source, table } => Arc::new(table_roots(plan, index, source, table)?),
        };
        let (plan, index, graph) = (plan.clone(), index.clone(), graph.clone());
        all.insert(
            index.name.clone(),
            Arc::new(Probed { plan, index, graph, roots, graph_health: health.reporter("graph"), compared }),
        );
    }
    Ok(all)
}

fn table_roots(plan: &Plan, index: &IndexPlan, source: &str, table: &TableName) -> Result<TableRoots, Failure> {
    let found = plan.sources.iter().find(|s| s.name == source);
    let rules = plan.graph.vertices.get(table).map_or(&[][..], Vec::as_slice);
    let rule = rules.iter().find(|rule| rule.type_name == index.root_type);
    let (Some(source), Some(rule)) = (found, rule) else {
        return Err(Failure::Stopped(format!(
            "index {}: no source and rule lists {} from {table}",
            index.name, index.root_type
        )));
    };
    let (source, table, id) = (rows_of(source), table.clone(), rule.id.clone());
    Ok(TableRoots { source, table, id, pager: Mutex::new(None) })
}

/// Root ids from a source's table, in key order.
struct TableRoots {
    source: tributary_connector::SourceSettings,
    table: TableName,
    id: IdTemplate,
    /// Opened at the first page; dropped after an error, so that the next page opens it again.
    pager: Mutex<Option<KeyPager>>,
}

impl TableRoots {
    /// The pager that is held, or a new one.
    async fn pager(
        &self,
        held: Option<KeyPager>,
        columns: &[String],
    ) -> Result<KeyPager, tributary_connector::ConnectorError> {
        match held {
            Some(pager) => Ok(pager),
            None => KeyPager::open(&self.source, &self.table, columns).await,
        }
    }
}

#[async_trait]
impl RootIdSource for TableRoots {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        let failed = |e: tributary_connector::ConnectorError| GraphError::new(e.class(), e.to_string());
        let columns: Vec<String> = self.id.columns().map(str::to_owned).collect();
        let after: Option<Vec<String>> = after.and_then(|place| serde_json::from_str(place).ok());
        let mut held = self.pager.lock().await;
        let mut pager = self.pager(held.take(), &columns).await.map_err(failed)?;
        if after.is_none() {
            pager.catch_up().await.map_err(failed)?;
        }
        let rows = pager.page(after.as_deref(), size).await.map_err(failed)?;
        *held = Some(pager);
        let next =
            (rows.len() == size).then(|| rows.last().and_then(|r| serde_json::to_string(&r.place).ok())).flatten();
        let id = |values: &[tributary_event::Value]| {
            self.id.render(|column| id_value(values.get(columns.iter().position(|c| c == column)?)?))
        };
        Ok(IdPage { ids: rows.iter().filter_map(|row| id(&row.values)).collect(), next })
    }

    async fn expected(&self) -> Option<u64> {
        let columns: Vec<String> = self.id.columns().map(str::to_owned).collect();
        let mut held = self.pager.lock().await;
        let mut pager = self.pager(held.take(), &columns).await.ok()?;
        let rows = pager.estimate().await.ok()?;
        *held = Some(pager);
        rows
    }
}

/// A name for this process among others of the same pipeline, and the lock that holds it. `data`: the folder of the pipeline's
/// data.
///
/// The name is kept in the data folder and stays over restarts: a process that comes after one that was killed takes over its
/// producers, and ends what they left unfinished, instead of waiting until the broker does. Processes that share the folder get
/// a name each.
pub fn instance(data: &Path) -> Result<(String, File), Failure> {
    let folder = data.join("instances");
    let failed = |e: std::io::Error| Failure::Stopped(format!("{}: {e}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut number = 0;
    loop {
        let path = folder.join(number.to_string());
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        number += 1;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
        let mut name = String::new();
        file.read_to_string(&mut name).map_err(failed)?;
        if name.is_empty() {
            name = format!("{}-{:x}", std::process::id(), tributary_event::clock::now_us());
            file.write_all(name.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        return Ok((name, file));
    }
}

/// A path segment of a URL: everything but letters, digits and `-._~/` is escaped.
pub fn percent_encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    text.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}
