//! `run`: everything of a pipeline in one process, until it is told to stop or something fatal happens.
//!
//! ```text
//! definition ─► transport, listener, sources ─────────────────────────────► until shutdown
//!      │                                        ▲ the plan, for their checks
//!      ├─► streams ──────────────────────────────│────────────────────────► until shutdown
//!      └─► the graph's schema ─► plan ──────────┴─► indexes ──────────────► until shutdown
//! ```
//!
//! Only the indexes need a plan, and so the graph. Where it tells its schema soon, nothing begins before the plan is known to be
//! right; where it does not, changes are captured meanwhile, and the indexes join when there is a plan.
//!
//! Order matters at start: the slots of the sources that an index shows exist before its first root is listed, so that no
//! change falls between the first build and the log. Everything else begins at once, whichever source does not answer.

pub mod http;
pub mod record;
mod source;
pub mod tap;
mod traces;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tributary_dsl::Definition;
use tributary_dsl::plan::{Plan, SourcePlan, TransportPlan};
use tributary_event::Health;
use tributary_indexer::engine::{IndexHandle, Indexer, Parts};
use tributary_indexer::listing::{Absent, Board, Captured, Listings};
use tributary_indexer::report::OnChange;
use tributary_indexer::request::names;
use tributary_processor::{Taps, Tasks, supervise, until_answered};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::{TopicSpec, Transport};

use self::http::{Api, Started, listen, serve};
use self::source::Source;
use crate::backends;
use crate::cli::exit::Failure;
use crate::definition::Draft;
use crate::definition::planning::Planning;
use crate::dependent::Indexes;
use crate::probe;
use crate::streams::tables::Surroundings;
use crate::streams::{self, Reload, Shown, Streams};

/// Hears of the indexes when they start.
pub type OnStart = Box<dyn FnOnce(&[IndexHandle]) + Send>;

/// How a pipeline runs.
pub struct Settings {
    /// What.
    pub draft: Draft,
    /// Its plan, if the graph was asked already; else it is waited for.
    pub plan: Option<Plan>,
    /// Whether a graph that refuses our queries, or us, ends it.
    pub fail_fast: bool,
    /// Hears of every finished change.
    pub on_change: OnChange,
    /// Hears of the address of the HTTP listener, once.
    pub on_listen: Box<dyn FnOnce(&str) + Send>,
    /// Hears of the indexes when they start, once.
    pub on_start: OnStart,
    /// Metrics; start their recorder once a process.
    pub metrics: PrometheusHandle,
    /// Hears of the way to let the file be read again, once.
    pub on_reload: Box<dyn FnOnce(mpsc::Sender<Reload>) + Send>,
}

/// Runs until shutdown (`Ok`) or a fatal error.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Failure> {
    let Settings { draft, plan, fail_fast, on_change, on_listen, on_start, metrics, on_reload } = settings;
    let (draft, health) = (Arc::new(draft), Health::default());
    let definition = draft.definition();
    // Streams alone wait for no graph.
    let has_indexes = definition.indexes().next().is_some();
    let mut planning = None;
    let plan = match plan {
        Some(plan) => Some(plan),
        None if !has_indexes => {
            draft.text_is_right()?;
            None
        }
        None => {
            let planning = planning.insert(Planning::new(draft.clone(), health.part("graph")));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                plan = planning.soon() => plan?,
            }
        }
    }
    .map(Arc::new);
    let listener = listen(definition.listen()).await?;
    let address = listener.local_addr().map_err(|e| Failure::Stopped(e.to_string()))?.to_string();
    // Nothing is made yet, neither topics nor slots.
    let compared = match &plan {
        Some(plan) if has_indexes && plan.graph.probe => tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            compared = probe::at_first(plan, definition) => compared.map_err(|found| Failure::found(&found))?,
        },
        _ => false,
    };
    let transport = backends::transport(definition).await?;
    // The lock of the name is held as long as it is used.
    let (instance, _named) = backends::instance(definition.data())?;
    let traces = traces::begin(definition.traces(), definition.pipeline(), &instance)?;
    // The embedded log has one process.
    let shared = matches!(definition.transport(), TransportPlan::Kafka(_));
    let board = Arc::new(Board::new((definition.pipeline(), instance.as_str()), transport.clone(), shared));
    let listings = definition.indexes().map(|index| {
        let health = health.part(format!("index {index}"));
        (index.to_owned(), Arc::new(Listings::new(index, board.clone(), health)))
    });
    let listings: HashMap<String, Arc<Listings>> = listings.collect();
    let captured: HashMap<String, watch::Sender<bool>> =
        definition.sources().iter().map(|s| (s.name.clone(), watch::Sender::new(false))).collect();
    let started: Arc<OnceLock<Started>> = Arc::default();
    let taps: Arc<Taps> = Arc::default();
    let surroundings = Surroundings {
        folder: definition.data().join("tables").join(&instance),
        captured: captured.iter().map(|(name, captured)| (name.clone(), captured.subscribe())).collect(),
    };
    let streams = Streams::open(draft.clone(), transport.clone(), &health, taps.clone(), surroundings)?;
    let shown = streams.shown();
    let (reload, reloads) = mpsc::channel(1);
    let base = Base { draft: draft.clone(), transport, health, board, listings, captured, shown: shown.clone() };
    let entry = Entry { fail_fast, compared, instance, on_change, on_start, started: started.clone() };
    let indexes = match (plan.filter(|_| has_indexes), planning) {
        (Some(plan), _) => Joining::Planned(Box::new(base.indexer(plan, entry)?)),
        (None, None) => {
            let (indexes, subjects) = (Vec::new(), Vec::new());
            let _ = started.set(Started { indexes, plan: Arc::new(draft.load().await?), subjects });
            Joining::Nothing
        }
        (None, Some(planning)) => {
            for listings in base.listings.values() {
                listings.health().down("it starts when the graph has told its schema");
            }
            Joining::Waiting(planning, Box::new(entry))
        }
    };
    let api = Api {
        pipeline: definition.pipeline().to_owned(),
        health: base.health.clone(),
        started,
        letters: DeadLetters::new(base.transport.clone(), names::dead_letters(definition.pipeline())),
        transport: base.transport.clone(),
        metrics,
        taps,
        shown,
        reload: reload.clone(),
        stopping: shutdown.clone(),
        functions: draft.functions().clone(),
    };
    // The listener outlives the stages, so that a stopping pipeline can still be asked how it is.
    let listening = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, Arc::new(api), listening.clone()));
    // Who finds the record may ask for a reload, also by a signal.
    on_reload(reload);
    let recorded = record::write(definition.data(), definition.pipeline(), &address)?;
    info!(pipeline = definition.pipeline(), address, "running");
    on_listen(&address);
    let result = Box::pin(work(base, (streams, reloads), indexes, &shutdown)).await;
    listening.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
    if let Some(traces) = traces {
        traces.end().await;
    }
    drop(recorded);
    result
}

/// What is there whatever the graph says.
struct Base {
    draft: Arc<Draft>,
    transport: Arc<dyn Transport>,
    health: Health,
    board: Arc<Board>,
    /// By index.
    listings: HashMap<String, Arc<Listings>>,
    /// Whether the log of each source is captured, by name.
    captured: HashMap<String, watch::Sender<bool>>,
    /// What streams there are now.
    shown: Arc<RwLock<Shown>>,
}

/// What the indexes start with, beside a plan.
struct Entry {
    fail_fast: bool,
    /// Whether the ids of rows were compared with those of the graph.
    compared: bool,
    instance: String,
    on_change: OnChange,
    on_start: OnStart,
    started: Arc<OnceLock<Started>>,
}

/// The indexes before they run.
enum Joining {
    Planned(Box<Ready>),
    /// There are none.
    Nothing,
    Waiting(Planning, Box<Entry>),
}

/// Indexes that may run.
struct Ready {
    plan: Arc<Plan>,
    indexer: Indexer,
    entry: Entry,
}

impl Base {
    fn definition(&self) -> &Definition {
        self.draft.definition()
    }

    /// Opens what the indexes are made of.
    fn indexer(&self, plan: Arc<Plan>, entry: Entry) -> Result<Ready, Failure> {
        let graph = backends::graph(&plan, entry.fail_fast)?;
        let parts = Parts {
            transport: self.transport.clone(),
            partitions: plan.transport.partitions(),
            stores: backends::stores(&plan)?,
            board: self.board.clone(),
            listings: self.listings.clone(),
            roots: backends::roots(&plan, &graph, &self.health, entry.compared)?,
            captured: self.captured(),
            health: self.health.clone(),
            on_change: entry.on_change.clone(),
            instance: entry.instance.clone(),
            graph,
        };
        let indexer = Indexer::new(&plan, parts).map_err(|e| Failure::Stopped(e.to_string()))?;
        Ok(Ready { plan, indexer, entry })
    }

    /// The sources as listings wait for them, by name.
    fn captured(&self) -> HashMap<String, Captured> {
        let of = |source: &SourcePlan| {
            let (is, log) = (self.captured.get(&source.name)?.subscribe(), Arc::new(backends::SourceEnd::of(source)));
            Some((source.name.clone(), Captured { is, log }))
        };
        self.definition().sources().iter().filter_map(of).collect()
    }

    /// The indexes that the pipeline had once, or has in other processes.
    fn absent(&self) -> Arc<Absent> {
        Arc::new(Absent::new(self.board.clone(), self.listings.keys().cloned()))
    }

    /// What depends on each source.
    fn dependents(&self, absent: &Arc<Absent>) -> Vec<Arc<Indexes>> {
        let definition = self.definition();
        let listings: Vec<Arc<Listings>> = self.listings.values().cloned().collect();
        let of = |source: &SourcePlan| {
            Indexes::new(source.clone(), definition.vertices(), (listings.clone(), absent.clone()), self.shown.clone())
        };
        definition.sources().iter().map(|source| Arc::new(of(source))).collect()
    }
}

/// Runs the sources and the indexes. What needs a source that does not answer waits for it; the rest goes on.
async fn work(
    base: Base,
    (streams, reloads): (Streams, mpsc::Receiver<Reload>),
    indexes: Joining,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let mut tasks: Tasks<Failure> = JoinSet::new();
    let definition = base.definition();
    let absent = base.absent();
    let dependents = base.dependents(&absent);
    if let Joining::Planned(ready) = &indexes {
        for dependent in &dependents {
            dependent.planned(&ready.plan, shutdown).await.map_err(|e| Failure::Stopped(e.to_string()))?;
        }
    }
    for (source, dependent) in definition.sources().iter().zip(&dependents) {
        let Some(captured) = base.captured.get(&source.name).cloned() else { continue };
        let source = Source {
            settings: backends::connector_settings(definition, source),
            transport: base.transport.clone(),
            dependent: dependent.clone(),
            health: base.health.part(format!("source {}", source.name)),
            captured,
        };
        let (shutdown, absent, transport) = (shutdown.clone(), absent.clone(), base.health.reporter("transport"));
        tasks.spawn(async move {
            // Before anything is captured that they do not hear of.
            let what = "note which indexes are out of the pipeline";
            let noted = until_answered(&transport, what, &shutdown, || absent.leave()).await;
            match noted.map_err(|error| Failure::Stopped(error.message))? {
                Some(()) => Box::pin(source.run(shutdown)).await,
                None => Ok(()),
            }
        });
    }
    let topics = backends::topics(definition)?;
    {
        let mut topics: Vec<TopicSpec> = topics.clone();
        for topic in streams::topics(definition) {
            // That of dead letters is the indexes' too.
            if !topics.iter().any(|known| known.name == topic.name) {
                topics.push(topic);
            }
        }
        let (transport, health) = (base.transport.clone(), base.health.clone());
        let stop = shutdown.clone();
        tasks.spawn(async move {
            if !ensure_topics(&transport, &health, &topics, &stop).await? {
                return Ok(());
            }
            Box::pin(streams.run(reloads, stop)).await
        });
    }
    let stop = shutdown.clone();
    if let Joining::Nothing = &indexes {
        return supervise(&mut tasks, shutdown, Failure::Stopped).await;
    }
    tasks.spawn(async move { Box::pin(join(base, indexes, dependents, topics, stop)).await });
    supervise(&mut tasks, shutdown, Failure::Stopped).await
}

/// Starts the indexes when there is a plan, and runs them.
async fn join(
    base: Base,
    indexes: Joining,
    dependents: Vec<Arc<Indexes>>,
    topics: Vec<TopicSpec>,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let ready = match indexes {
        Joining::Nothing => return Ok(()),
        Joining::Planned(ready) => *ready,
        Joining::Waiting(planning, entry) => {
            let Some(plan) = Box::pin(planning.waited_for(&shutdown)).await? else { return Ok(()) };
            let ready = base.indexer(Arc::new(plan), *entry)?;
            for dependent in &dependents {
                let planned = dependent.planned(&ready.plan, &shutdown).await;
                if !planned.map_err(|e| Failure::Stopped(e.to_string()))? {
                    return Ok(());
                }
            }
            ready
        }
    };
    let Ready { plan, indexer, entry } = ready;
    let indexes = indexer.indexes().to_vec();
    (entry.on_start)(&indexes);
    let subjects = indexer.subjects();
    let _ = entry.started.set(Started { indexes, plan, subjects });
    // The indexes read these topics, whether their sources answer or not.
    if !ensure_topics(&base.transport, &base.health, &topics, &shutdown).await? {
        return Ok(());
    }
    Box::pin(indexer.run(shutdown)).await.map_err(|e| Failure::Stopped(e.to_string()))
}

/// Creates topics as soon as the transport lets us. False: shutdown came first.
async fn ensure_topics(
    transport: &Arc<dyn Transport>,
    health: &Health,
    topics: &[TopicSpec],
    shutdown: &CancellationToken,
) -> Result<bool, Failure> {
    let (health, what) = (health.reporter("transport"), "create topics");
    let ensured = until_answered(&health, what, shutdown, || transport.ensure_topics(topics)).await;
    Ok(ensured.map_err(|error| Failure::Stopped(error.message))?.is_some())
}
