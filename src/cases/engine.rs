//! Runs a case: its changes in topics of an embedded log in a folder of its own, through the stream and into its sinks as pipelines do it,
//! by a clock of the case's own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tributary_dsl::Definition;
use tributary_dsl::plan::{DeliveryOrder, Start, StepPlan, StreamPlan, own_topic};
use tributary_event::{Health, HealthState};
use tributary_expression::by_clock;
use tributary_processor::{Delivery, Enricher, Lag, Parked, StageError, Stream};
use tributary_services::{Asking, Service};
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Producer, Purpose, Retention, TopicSpec, Transport, TransportError,
    dead_letter,
};

use super::answers::Answers;
use super::changes::{self, Group};
use super::clock::Still;
use super::sinks::{Got, Sinks};
use super::{Case, Letter, Record, Way};

/// A case that takes longer, by a real clock, is taken for one that never ends. It is long because a busy machine may be ten times as slow.
const LONGEST: Duration = Duration::from_secs(600);
/// By the clock of the case: how often it is looked how it is.
const LOOK: Duration = Duration::from_millis(100);
/// So long nothing is left to do when it has come to its end. The lags of stages are measured twice meanwhile.
const REST: Duration = Duration::from_millis(1_500);
/// What stands still for so long, when all troubles that pass are over, does so for good; a sink that is in trouble may make a pause besides.
const PATIENCE: Duration = Duration::from_secs(60);
/// Kills of a case that is run so.
const KILLS: u32 = 12;

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub events: Vec<serde_json::Value>,
    pub topics: BTreeMap<String, Vec<Record>>,
    pub letters: Vec<Letter>,
    pub stands_still: Option<String>,
    pub sinks: BTreeMap<String, Got>,
    /// The keys of each request to each service and table.
    pub calls: BTreeMap<String, Vec<Vec<String>>>,
    /// When it came to its end, by its clock.
    pub after: Duration,
}

/// Why a case could not be run to its end.
#[derive(Debug)]
pub(super) enum Problem {
    /// Services and tables were asked for keys that it does not answer.
    Unanswered(BTreeMap<String, Vec<String>>),
    /// Something else.
    Other(String),
}

impl From<TransportError> for Problem {
    fn from(error: TransportError) -> Self {
        Self::Other(error.message)
    }
}

/// Runs a case, on a runtime whose clock is the case's.
pub(super) fn run(definition: &Definition, case: &Case, plan: StreamPlan, way: Way) -> Result<Came, Problem> {
    let other = |e: std::io::Error| Problem::Other(format!("the case cannot be run: {e}"));
    let folder = tempfile::tempdir().map_err(other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(other)?;
    let begun = {
        let _entered = runtime.enter();
        Instant::now()
    };
    // Changes are dated from the epoch on, and programs run in this thread alone.
    let clock = move || std::time::SystemTime::UNIX_EPOCH + begun.elapsed();
    let came = by_clock(clock, || {
        runtime.block_on(Box::pin(async {
            let world = World::new(definition, case, plan, folder.path()).await?;
            world.run(case, way).await
        }))
    });
    // What is left of sinks and of the log may need a moment.
    runtime.shutdown_timeout(Duration::from_secs(5));
    came
}

/// All that a case has, and that outlives a crash.
struct World {
    pipeline: String,
    plan: Arc<StreamPlan>,
    transport: Arc<dyn Transport>,
    letters: DeadLetters,
    answers: BTreeMap<String, Arc<Answers>>,
    enrichers: HashMap<String, Arc<dyn Enricher>>,
    sinks: Sinks,
    begun: Instant,
    /// The longest pause between two tries of a sink.
    pause: Duration,
    real: std::time::Instant,
}

/// The stages of a stream that runs.
struct Running {
    tasks: JoinSet<Result<(), StageError>>,
    health: Health,
    lags: Vec<Lag>,
    shutdown: CancellationToken,
    /// Since when there is nothing to do.
    rests: Option<Instant>,
    /// Since when something stands still.
    stands: Option<Instant>,
}

impl World {
    async fn new(definition: &Definition, case: &Case, plan: StreamPlan, folder: &Path) -> Result<Self, Problem> {
        let log: Arc<dyn Transport> =
            Arc::new(Embedded::open(folder.join("log"), EmbeddedSettings::default()).map_err(Problem::from)?);
        let transport: Arc<dyn Transport> = Arc::new(Still(log));
        let pipeline = definition.pipeline().to_owned();
        let plan = Arc::new(StreamPlan { start: Start::First, keeps_events: true, ..plan });
        let spec = |name: &str| TopicSpec {
            name: name.to_owned(),
            partitions: 1,
            retention: Retention::Delete { age: None, bytes: None },
        };
        let mut topics: Vec<TopicSpec> = plan.from.iter().map(|from| spec(&from.topic)).collect();
        topics.extend(plan.topics.iter().map(|sink| spec(&sink.name)));
        topics.extend([spec(&own_topic(&pipeline, &plan.name)), dead_letter::spec("letters")]);
        transport.ensure_topics(&topics).await?;
        let sinks = Sinks::new(&plan, &case.sinks, folder).map_err(Problem::Other)?;
        let services = definition.services().iter().map(|service| service.name.as_str());
        let tables = definition.tables().iter().map(|table| table.name.as_str());
        let named = services.chain(tables).map(|name| (name, Answers::new(name, case.given.get(name))));
        let answers: BTreeMap<String, Arc<Answers>> =
            named.map(|(name, answers)| (name.to_owned(), Arc::new(answers))).collect();
        if let Some(name) = case.given.keys().find(|name| !answers.contains_key(*name)) {
            return Err(Problem::Other(format!("given.{name}: the pipeline has no service or table of that name")));
        }
        let pauses = plan.deliveries.iter().map(|delivery| delivery.redelivery.max_pause);
        let pause = if case.sinks.is_empty() { None } else { pauses.max() };
        Ok(Self {
            enrichers: enrichers(definition, &plan, &answers)?,
            letters: DeadLetters::new(transport.clone(), "letters"),
            pause: pause.unwrap_or_default(),
            pipeline,
            plan,
            transport,
            answers,
            sinks,
            begun: Instant::now(),
            real: std::time::Instant::now(),
        })
    }

    /// Starts the stream and its sinks.
    fn begin(&self) -> Result<Running, Problem> {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let (mut tasks, mut lags) = (JoinSet::new(), Vec::new());
        let mut lag = || {
            let lag = Lag::default();
            lags.push(lag.clone());
            lag
        };
        let name = &self.plan.name;
        let stream = Stream {
            pipeline: self.pipeline.clone(),
            plan: self.plan.clone(),
            transport: self.transport.clone(),
            enrichers: self.enrichers.clone(),
            changes: None,
            taps: Arc::default(),
            parked: Arc::new(Parked::new(self.letters.clone(), Stream::stage(name))),
            reading: health.part("reader"),
            working: health.part("stream"),
            lag: lag(),
        };
        tasks.spawn(stream.run(shutdown.clone()));
        for plan in &self.plan.deliveries {
            let stage = Delivery::stage(name, &plan.name);
            let delivery = Delivery {
                pipeline: self.pipeline.clone(),
                stream: name.clone(),
                sink: self.sinks.sink(name, plan).map_err(Problem::Other)?,
                transport: self.transport.clone(),
                parked: Arc::new(
                    Parked::new(self.letters.clone(), &*stage).each_alone(plan.order == DeliveryOrder::None),
                ),
                plan: Arc::new(plan.clone()),
                reading: health.part(format!("reader of {stage}")),
                working: health.part(stage),
                lag: lag(),
            };
            tasks.spawn(delivery.run(shutdown.clone()));
        }
        Ok(Running { tasks, health, lags, shutdown, rests: None, stands: None })
    }

    async fn run(&self, case: &Case, way: Way) -> Result<Came, Problem> {
        let groups = changes::groups(case, &self.plan);
        let mut producer = self.transport.producer("cases", Purpose::Stage).await?;
        let mut left = groups.iter().peekable();
        if way == Way::Crashing {
            for group in left.by_ref() {
                append(producer.as_mut(), group).await?;
            }
            for _ in 0..KILLS {
                let mut running = self.begin()?;
                some_time().await;
                running.tasks.shutdown().await;
            }
        }
        let mut running = self.begin()?;
        for group in left {
            while let Some(wait) = group.at.checked_sub(self.begun.elapsed()).filter(|wait| !wait.is_zero()) {
                // While there is nothing to do, nobody minds a leap.
                if running.is_at_rest() && wait > REST {
                    tokio::time::advance(wait - LOOK).await;
                }
                sleep(wait.min(LOOK)).await;
                self.look(&mut running)?;
            }
            append(producer.as_mut(), group).await?;
            (running.rests, running.stands) = (None, None);
        }
        let stands_still = loop {
            sleep(LOOK).await;
            let stands_still = self.look(&mut running)?;
            if stands_still.is_some() || running.is_at_rest() {
                break stands_still;
            }
        };
        let after = running.rests.unwrap_or_else(Instant::now) - self.begun;
        // One that stands still has records in flight, and would wait for them.
        if stands_still.is_some() {
            running.tasks.abort_all();
        }
        running.shutdown.cancel();
        while running.tasks.join_next().await.is_some() {}
        self.came(stands_still, after).await
    }

    /// Looks how it is. What stands still for good is told.
    fn look(&self, running: &mut Running) -> Result<Option<String>, Problem> {
        if let Some(ended) = running.tasks.try_join_next() {
            let why = match ended {
                Ok(Ok(())) => "a stage ended by itself".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            return Err(Problem::Other(format!("the stream ended: {why}")));
        }
        let unanswered = self.answers.iter().map(|(name, answers)| (name.clone(), answers.unanswered()));
        let unanswered: BTreeMap<String, Vec<String>> = unanswered.filter(|(_, keys)| !keys.is_empty()).collect();
        if !unanswered.is_empty() {
            return Err(Problem::Unanswered(unanswered));
        }
        if self.real.elapsed() > LONGEST {
            return Err(Problem::Other(format!("it did not come to its end within {LONGEST:?}")));
        }
        let parts = running.health.parts();
        let down = parts.values().find(|part| part.state == HealthState::Down);
        let is_done = down.is_none() && running.lags.iter().all(|lag| lag.get() == Some(0));
        running.rests = is_done.then(|| running.rests.unwrap_or_else(Instant::now));
        let will_pass = self.sinks.will_pass() || self.answers.values().any(|answers| answers.will_pass());
        let since = running.stands.filter(|_| !will_pass).unwrap_or_else(Instant::now);
        running.stands = down.map(|_| since);
        let is_for_good = running.stands.is_some_and(|since| since.elapsed() > PATIENCE + self.pause);
        Ok(down.filter(|_| is_for_good).map(|part| part.why.clone().unwrap_or_default()))
    }

    async fn came(&self, stands_still: Option<String>, after: Duration) -> Result<Came, Problem> {
        let mut came = Came { stands_still, after, ..Came::default() };
        let own = changes::read(self.transport.as_ref(), &own_topic(&self.pipeline, &self.plan.name)).await?;
        came.events = own.iter().map(changes::value).collect();
        for sink in &self.plan.topics {
            let records = changes::read(self.transport.as_ref(), &sink.name).await?;
            let told = records.iter().map(|record| Record {
                key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
                value: Some(changes::value(record)),
            });
            came.topics.insert(sink.name.clone(), told.collect());
        }
        let set_aside = self.letters.list().await?;
        let told = |letter: tributary_transport::DeadLetter| Letter { key: letter.key_text(), cause: letter.cause };
        came.letters = set_aside.into_iter().map(told).collect();
        came.sinks = self.sinks.got().await.map_err(Problem::Other)?;
        came.calls = self.answers.iter().map(|(name, answers)| (name.clone(), answers.calls())).collect();
        Ok(came)
    }
}

impl Running {
    fn is_at_rest(&self) -> bool {
        self.rests.is_some_and(|rests| rests.elapsed() >= REST)
    }
}

/// What asks services and tables, by the steps' names. Services are asked as pipelines ask them, up to the request.
fn enrichers(
    definition: &Definition,
    plan: &StreamPlan,
    answers: &BTreeMap<String, Arc<Answers>>,
) -> Result<HashMap<String, Arc<dyn Enricher>>, Problem> {
    let unusable = |e: tributary_processor::OutsideError| Problem::Other(e.message);
    let mut services: HashMap<&str, Arc<Service>> = HashMap::new();
    for service in definition.services() {
        let Some(answers) = answers.get(&service.name) else { continue };
        let health = Health::default().part(format!("service {}", service.name));
        let stood_in = Service::stood_in(service, answers.clone(), health).map_err(unusable)?;
        services.insert(&service.name, stood_in);
    }
    let mut enrichers: HashMap<String, Arc<dyn Enricher>> = HashMap::new();
    for step in &plan.steps {
        match &step.plan {
            StepPlan::Enrich(enrich) => {
                if let Some(service) = services.get(enrich.service.as_str()) {
                    let asking = Asking::new(service.clone(), enrich, None).map_err(unusable)?;
                    enrichers.insert(step.name.clone(), asking);
                }
            }
            StepPlan::Lookup(lookup) => {
                if let Some(table) = answers.get(&lookup.table) {
                    enrichers.insert(step.name.clone(), table.clone());
                }
            }
            _ => {}
        }
    }
    Ok(enrichers)
}

async fn append(producer: &mut dyn Producer, group: &Group) -> Result<(), TransportError> {
    let batch: &Batch = &group.batch;
    if batch.is_empty() { Ok(()) } else { producer.append(batch).await }
}

/// Some time until a kill: a few steps of whatever can go on, or of the disk's, or until a while after everybody waits.
async fn some_time() {
    match fastrand::u8(0..3) {
        0 => {
            for _ in 0..fastrand::u32(0..2_000) {
                tokio::task::yield_now().await;
            }
        }
        1 => {
            let time = Duration::from_millis(fastrand::u64(0..15));
            let _ = tokio::task::spawn_blocking(move || std::thread::sleep(time)).await;
        }
        _ => sleep(Duration::from_millis(fastrand::u64(0..1_000))).await,
    }
}
