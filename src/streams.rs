//! The streams of a running pipeline, their services, tables and sinks. They need no graph: they begin as soon as the transport has their
//! topics. What a pipeline's file says of them can be read again while it runs: what is the same goes on, what is not stops, and begins
//! anew where it was.

mod changed;
mod falling;
pub(crate) mod tables;
mod unit;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::Definition;
use tributary_dsl::plan::{IndexSinkPlan, SinkPlan, StreamPlan, own_topic};
use tributary_event::Health;
use tributary_indexer::request::names;
use tributary_indexer::store::DocumentStore;
use tributary_processor::{Table, Taps};
use tributary_services::Service;
use tributary_transport::{DeadLetters, Retention, TopicSpec, Transport, dead_letter};

pub use self::changed::Reloaded;
use self::changed::{Changed, refusals};
use self::falling::Falling;
use self::tables::Surroundings;
use self::unit::{Parts, Unit, unusable};
use crate::backends::retention;
use crate::cli::exit::Failure;
use crate::definition::Draft;

/// A stream that is told to stop has so long.
pub const STOPPING: Duration = Duration::from_secs(15);

/// The topics that streams write: those of users, their own, and that of what is set aside.
pub fn topics(definition: &Definition) -> Vec<TopicSpec> {
    let retention = retention(definition);
    let partitions = definition.transport().partitions();
    let spec = |name: String, retention: &Retention| TopicSpec { name, partitions, retention: retention.clone() };
    let mut topics = vec![dead_letter::spec(&names::dead_letters(definition.pipeline()))];
    for stream in definition.streams() {
        topics.extend(stream.topics.iter().map(|sink| {
            let kept = if sink.compact { &Retention::Compact } else { &retention };
            spec(sink.name.clone(), kept)
        }));
        if stream.keeps_events {
            topics.push(spec(own_topic(definition.pipeline(), &stream.name), &retention));
        }
    }
    topics
}

/// Somebody wants the file to be read again.
#[derive(Debug)]
pub struct Reload {
    /// Whether it is only to be said what would come of it.
    pub is_dry: bool,
    /// What came of it.
    pub answer: oneshot::Sender<Result<Reloaded, Failure>>,
}

/// What streams there are now, for whoever asks the pipeline.
#[derive(Default)]
pub struct Shown {
    /// Their names, with those of their steps.
    pub streams: Vec<(String, Vec<String>)>,
    /// The indexes that they fill, by name.
    pub indexes: HashMap<String, Arc<dyn DocumentStore>>,
    /// The tables that their steps look into.
    pub tables: Vec<Arc<Table>>,
}

/// The streams of a pipeline. Nothing of them runs before [`Streams::run`].
pub struct Streams {
    draft: Arc<Draft>,
    transport: Arc<dyn Transport>,
    health: Health,
    taps: Arc<Taps>,
    letters: DeadLetters,
    surroundings: Surroundings,
    asked: Asked,
    /// What lets answers fall that are kept.
    falling: Option<Arc<Falling>>,
    units: Vec<Unit>,
    shown: Arc<RwLock<Shown>>,
}

/// What steps can ask, by name.
#[derive(Default)]
struct Asked {
    services: HashMap<String, Arc<Service>>,
    tables: HashMap<String, Arc<Table>>,
}

/// What runs.
struct Running {
    tasks: JoinSet<(String, Result<(), Failure>)>,
    units: BTreeMap<String, Begun>,
    tables: HashMap<String, CancellationToken>,
    /// Whether changes are followed that let answers fall.
    is_following: bool,
}

/// A stream that runs.
struct Begun {
    stop: CancellationToken,
    /// Ends it as a crash does.
    kill: CancellationToken,
    /// Its parts in `/health`.
    parts: Vec<String>,
}

impl Streams {
    /// Opens them. Nothing is connected to.
    ///
    /// # Errors
    /// A service or a sink cannot be used as it is described.
    pub fn open(
        draft: Arc<Draft>,
        transport: Arc<dyn Transport>,
        health: &Health,
        taps: Arc<Taps>,
        surroundings: Surroundings,
    ) -> Result<Self, Failure> {
        surroundings.sweep(draft.definition());
        let letters = DeadLetters::new(transport.clone(), names::dead_letters(draft.definition().pipeline()));
        let mut opened = Self {
            draft: draft.clone(),
            transport,
            health: health.clone(),
            taps,
            letters,
            surroundings,
            asked: Asked::default(),
            falling: Falling::new(draft.definition()),
            units: Vec::new(),
            shown: Arc::default(),
        };
        let definition = draft.definition();
        opened.asked = opened.asked(definition, &Changed::default())?;
        let all: HashSet<&str> = definition.streams().iter().map(|stream| stream.name.as_str()).collect();
        opened.units = opened.open_units(definition, &opened.asked, &all)?;
        opened.units.iter().flat_map(Unit::health_parts).for_each(|part| drop(health.part(part)));
        opened.show(definition);
        Ok(opened)
    }

    /// What streams there are now.
    pub fn shown(&self) -> Arc<RwLock<Shown>> {
        self.shown.clone()
    }

    /// The services and tables of a definition: those that stay as they are, and others, which are opened.
    fn asked(&self, definition: &Definition, changed: &Changed) -> Result<Asked, Failure> {
        let mut asked = Asked::default();
        for plan in definition.services() {
            let kept = self.asked.services.get(&plan.name).filter(|_| changed.kept_services.contains(&plan.name));
            let service = match kept {
                Some(service) => service.clone(),
                None => {
                    let part = self.health.reporter(format!("service {}", plan.name));
                    Service::new(plan, part).map_err(unusable)?
                }
            };
            asked.services.insert(plan.name.clone(), service);
        }
        for plan in definition.tables() {
            let kept = self.asked.tables.get(&plan.name).filter(|_| changed.kept_tables.contains(&plan.name));
            let table = kept.cloned().unwrap_or_else(|| self.surroundings.table(definition, plan));
            asked.tables.insert(plan.name.clone(), table);
        }
        Ok(asked)
    }

    fn open_units(
        &self,
        definition: &Definition,
        Asked { services, tables }: &Asked,
        names: &HashSet<&str>,
    ) -> Result<Vec<Unit>, Failure> {
        let Self { transport, health, taps, letters, falling, .. } = self;
        let falling = falling.as_ref().filter(|_| falling::is_needed(definition));
        let parts = Parts { definition, transport, health, taps, letters, services, tables, falling };
        let streams = definition.streams().iter().filter(|stream| names.contains(stream.name.as_str()));
        streams.map(|stream| Unit::open(&parts, stream)).collect()
    }

    fn show(&self, definition: &Definition) {
        let steps = |stream: &StreamPlan| stream.steps.iter().map(|step| step.name.clone()).collect();
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        shown.streams = definition.streams().iter().map(|stream| (stream.name.clone(), steps(stream))).collect();
        shown.tables = self.asked.tables.values().cloned().collect();
        shown.indexes.extend(self.units.iter().flat_map(|unit| unit.indexes.iter().cloned()));
        let there: HashSet<&str> = row_indexes(definition.streams()).map(|index| index.name.as_str()).collect();
        shown.indexes.retain(|name, _| there.contains(name.as_str()));
    }

    /// Runs them until shutdown or a fatal error, and reads the file again when somebody asks.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(
        mut self,
        mut reloads: mpsc::Receiver<Reload>,
        shutdown: CancellationToken,
    ) -> Result<(), Failure> {
        let mut running =
            Running { tasks: JoinSet::new(), units: BTreeMap::new(), tables: HashMap::new(), is_following: false };
        self.begin(&mut running, &shutdown);
        let ended = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                Some(ended) = running.tasks.join_next(), if !running.tasks.is_empty() => match ended {
                    Ok((name, Ok(()))) => drop(running.units.remove(&name)),
                    Ok((_, Err(failure))) => break Err(failure),
                    Err(error) => break Err(Failure::Stopped(format!("a task of the streams panicked: {error}"))),
                },
                Some(Reload { is_dry, answer }) = reloads.recv() => {
                    if is_dry {
                        // Whoever asked may have left.
                        let _ = answer.send(self.foreseen(&running).await);
                        continue;
                    }
                    let reloaded = match self.reload(&mut running, &shutdown).await {
                        Ok(reloaded) => reloaded,
                        Err(failure) => break Err(failure),
                    };
                    match &reloaded {
                        Ok(reloaded) => info!(?reloaded, "the pipeline's file was read again"),
                        Err(error) => warn!(%error, "the pipeline's file was read again, and nothing was changed"),
                    }
                    let _ = answer.send(reloaded);
                }
            }
        };
        shutdown.cancel();
        let mut ended = ended;
        while let Some(joined) = running.tasks.join_next().await {
            if let Ok((_, Err(failure))) = joined {
                ended = ended.and(Err(failure));
            }
        }
        ended
    }

    /// Lets units run that do not yet, and tables that nobody reads.
    fn begin(&mut self, running: &mut Running, shutdown: &CancellationToken) {
        let falling = self.falling.as_ref().filter(|_| falling::is_needed(self.draft.definition()));
        if let Some(falling) = falling.filter(|_| !std::mem::replace(&mut running.is_following, true)) {
            let (falling, transport, stop) = (falling.clone(), self.transport.clone(), shutdown.child_token());
            running.tasks.spawn(async move {
                falling.follow(transport, stop).await;
                ("changes that let answers fall".to_owned(), Ok(()))
            });
        }
        for (name, table) in &self.asked.tables {
            if running.tables.contains_key(name) {
                continue;
            }
            let (stop, table, transport) = (shutdown.child_token(), table.clone(), self.transport.clone());
            running.tables.insert(name.clone(), stop.clone());
            let (part, name) = (self.health.part(format!("table {name}")), format!("table {name}"));
            running.tasks.spawn(async move {
                table.follow(transport, part, stop).await;
                (name, Ok(()))
            });
        }
        for unit in std::mem::take(&mut self.units) {
            let stop = shutdown.child_token();
            let parts = unit.health_parts();
            parts.iter().for_each(|part| drop(self.health.part(part.as_str())));
            let kill = CancellationToken::new();
            running.units.insert(unit.name.clone(), Begun { stop: stop.clone(), kill: kill.clone(), parts });
            running.tasks.spawn(async move {
                let name = unit.name.clone();
                (name, Box::pin(unit.run(stop, kill)).await)
            });
        }
    }

    /// Reads the file again, and lets run what it says now. Either all of it, or nothing: the inner error says why.
    ///
    /// # Errors
    /// What does not pass by itself, of a stream that was told to stop.
    async fn reload(
        &mut self,
        running: &mut Running,
        shutdown: &CancellationToken,
    ) -> Result<Result<Reloaded, Failure>, Failure> {
        let (draft, changed, asked, units) = match self.opened_again(running).await {
            Ok(opened) => opened,
            Err(refused) => return Ok(Err(refused)),
        };
        let definition = draft.definition();
        let to_stop: Vec<&String> = changed.stopped.iter().chain(&changed.restarted).collect();
        // If one fails, the pipeline ends with it, as it does without a reload.
        for (name, parts) in self.stop(running, &to_stop).await? {
            let stay: Vec<String> =
                units.iter().filter(|unit| unit.name == name).flat_map(Unit::health_parts).collect();
            parts.iter().filter(|part| !stay.contains(part)).for_each(|part| self.health.forget(part));
        }
        running.tables.retain(|name, stop| {
            let stays = changed.kept_tables.contains(name);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for name in self.asked.services.keys().filter(|name| !asked.services.contains_key(*name)) {
            self.health.forget(&format!("service {name}"));
        }
        for name in self.asked.tables.keys().filter(|name| !asked.tables.contains_key(*name)) {
            self.health.forget(&format!("table {name}"));
        }
        (self.asked, self.units) = (asked, units);
        self.show(definition);
        self.draft = draft.clone();
        self.begin(running, shutdown);
        Ok(Ok(changed.reloaded()))
    }

    /// What a reload would do. Nothing is opened for it, so what only shows there, such as a header that cannot be sent, is not known.
    async fn foreseen(&self, running: &Running) -> Result<Reloaded, Failure> {
        let (draft, changed) = self.read_again(running).await?;
        Ok(Reloaded { refused: refusals(&self.draft, &draft), ..changed.reloaded() })
    }

    /// What the file says now, and what is otherwise in it.
    async fn read_again(&self, running: &Running) -> Result<(Arc<Draft>, Changed), Failure> {
        let draft = Arc::new(self.draft.read_again().await?);
        draft.text_is_right()?;
        let mut changed = Changed::between(self.draft.definition(), draft.definition());
        changed.begins_again(|name| !running.units.contains_key(name));
        Ok((draft, changed))
    }

    /// What the file says now, opened, while everything goes on.
    async fn opened_again(&self, running: &Running) -> Result<(Arc<Draft>, Changed, Asked, Vec<Unit>), Failure> {
        let (draft, changed) = self.read_again(running).await?;
        let refused = refusals(&self.draft, &draft);
        if !refused.is_empty() {
            return Err(Failure::Stopped(refused.join("; ")));
        }
        // Whatever can be refused is refused before anything stops.
        let definition = draft.definition();
        self.transport.ensure_topics(&topics(definition)).await.map_err(|e| Failure::of(e.class, e.message))?;
        let names: HashSet<&str> = changed.started.iter().chain(&changed.restarted).map(String::as_str).collect();
        let opened = self.asked(definition, &changed).and_then(|asked| {
            let units = self.open_units(definition, &asked, &names)?;
            Ok((asked, units))
        });
        match opened {
            Ok((asked, units)) => Ok((draft.clone(), changed, asked, units)),
            Err(refused) => {
                let is_new = |name: &&str| !self.asked.services.contains_key(*name);
                let services = definition.services().iter().map(|service| service.name.as_str()).filter(is_new);
                services.for_each(|name| self.health.forget(&format!("service {name}")));
                Err(refused)
            }
        }
    }

    /// Lets streams come to their ends, all at the same time: their parts in `/health`, by their names. What they did not finish comes again.
    async fn stop(&self, running: &mut Running, names: &[&String]) -> Result<BTreeMap<String, Vec<String>>, Failure> {
        let begun = names.iter().filter_map(|name| Some(((*name).clone(), running.units.remove(*name)?)));
        let begun: BTreeMap<String, Begun> = begun.collect();
        begun.values().for_each(|begun| begun.stop.cancel());
        let mut left: HashSet<String> = begun.keys().cloned().collect();
        let mut ended = timeout(STOPPING, ending(&mut running.tasks, &mut left)).await;
        if ended.is_err() {
            for stream in &left {
                warn!(stream, "the stream waits for something that does not answer; it is ended as by a crash");
                begun.get(stream).inspect(|begun| begun.kill.cancel());
            }
            ended = timeout(STOPPING, ending(&mut running.tasks, &mut left)).await;
        }
        let lasting = || left.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        ended.map_err(|_| Failure::Stopped(format!("the streams {} do not come to their ends", lasting())))??;
        let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
        let streams = self.draft.definition().streams().iter();
        for index in row_indexes(streams.filter(|stream| begun.contains_key(&stream.name))) {
            shown.indexes.remove(&index.name);
        }
        Ok(begun.into_iter().map(|(name, begun)| (name, begun.parts)).collect())
    }
}

/// Waits until none of these streams is left.
async fn ending(tasks: &mut JoinSet<(String, Result<(), Failure>)>, left: &mut HashSet<String>) -> Result<(), Failure> {
    while !left.is_empty()
        && let Some(joined) = tasks.join_next().await
    {
        match joined {
            Ok((ended, result)) => {
                left.remove(&ended);
                result?;
            }
            Err(error) => return Err(Failure::Stopped(format!("a task of the streams panicked: {error}"))),
        }
    }
    Ok(())
}

/// The indexes that streams fill.
pub fn row_indexes<'a>(streams: impl IntoIterator<Item = &'a StreamPlan>) -> impl Iterator<Item = &'a IndexSinkPlan> {
    streams.into_iter().flat_map(|stream| &stream.deliveries).filter_map(|delivery| match &delivery.sink {
        SinkPlan::Index(index) => Some(index),
        _ => None,
    })
}
