//! One world: its plan, its processes, and what happens to them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::time::{Instant, sleep};
use tributary_dsl::plan::Plan;
use tributary_dsl::{Inputs, Schema, check, parse};

use super::process::{Process, Shared};
use super::random::{Dice, Random};
use super::store::ModelIndex;
use super::topics::Topics;
use super::truth::{EMBEDDED, KINDS, State, Truth};
use crate::context::{MUTANT, Rule};
use crate::documents::document::assemble;

const PIPELINE: &str = r#"
pipeline: model
sources:
  db: { postgres: { url: "postgres://db/db", tables: [public.movie, public.talent, public.distributor, public.movie_talent, public.review] } }
transport: { kafka: { brokers: "localhost:1", replication: 1 } }
graph:
  endpoint: http://localhost:1/graphql
  lag: LAG
  vertices:
    public.movie: [{ type: Movie, id: "{id}" }]
    public.talent: [{ type: Talent, id: "{id}" }]
    public.distributor: [{ type: Distributor, id: "{id}" }]
    public.review: [{ type: Review, id: "{id}" }]
    public.movie_talent: [{ type: Movie, id: "{movie_id}" }, { type: Talent, id: "{talent_id}" }]
  edges:
    Movie.talents: { tables: [public.movie_talent] }
    Movie.distributor: { stored_in: parent }
indexes:
  movies:
    query: movies.graphql
    roots: { table: public.movie }
    refresh: 1s
    build: { deadline: DEADLINE, batch: 2, concurrency: 2 }
    store: { elasticsearch: { url: "http://localhost:1" } }
"#;

const SCHEMA: &str = r#"
type Query { movies(ids: [ID!]!): [Movie]! reviews(ids: [ID!]!): [Review]! }
type Movie { id: ID! title: String talents: [Talent!]! reviews: [Review!]! distributor: Distributor }
type Talent { id: ID! name: String }
type Distributor { id: ID! name: String }
type Review { id: ID! text: String movie: Movie }
"#;

const QUERY: &str = "query Movies($ids: [ID!]!) { movies(ids: $ids) { id title talents { id name } reviews { id text } distributor { id name } } }";

struct Texts;

impl Inputs for Texts {
    fn file(&self, _: &str) -> Result<String, String> {
        Ok(QUERY.to_owned())
    }

    fn variable(&self, _: &str) -> Option<String> {
        None
    }
}

/// The longest that a build may take in a world.
const DEADLINE: Duration = Duration::from_secs(2);
/// What nobody does for so long is not under way: writes that nobody heard of have arrived, and who is dead has been replaced.
const QUIET: Duration = Duration::from_secs(60);

/// The plan of every world, but for how far its graph may be behind.
pub fn plan(lag: Duration) -> Plan {
    let text = PIPELINE
        .replace("DEADLINE", &format!("{}ms", DEADLINE.as_millis()))
        .replace("LAG", &format!("{}ms", lag.as_millis()));
    let (definition, found) = parse("pipeline.yaml", &text, &Texts);
    let told =
        |found: &[tributary_dsl::Diagnostic]| found.iter().map(|d| d.render(false)).collect::<Vec<_>>().join("\n");
    let definition = definition.unwrap_or_else(|| panic!("{}", told(&found)));
    let schema = Schema::from_sdl(SCHEMA, "schema.graphql").expect("a schema");
    check(&definition, &schema).unwrap_or_else(|found| panic!("{}", told(&found))).0
}

/// What was wrong at the end of a world.
pub struct Wrong {
    pub steps: usize,
    pub what: String,
}

pub struct World {
    shared: Shared,
    random: Random,
    processes: Vec<Option<Process>>,
    started: usize,
    /// Three of so many steps happen to processes, the others to the database.
    calm: usize,
    tells: bool,
}

impl World {
    /// Runs the world of a seed to its end, and tells which way it went.
    pub fn run(seed: u64, tells: bool) -> Result<u64, Wrong> {
        // Pauses between tries are random too.
        fastrand::seed(seed);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut world = Self::new(seed, tells);
            let steps = 10 + world.random.below(40);
            if !world.may_show(MUTANT.get(), steps) {
                return Ok(0);
            }
            let result = Box::pin(world.live(steps)).await;
            result.map_err(|what| Wrong { steps, what })?;
            Ok(world.shared.topics.trace())
        })
    }

    /// Runs two processes, the clock of the second of which is ahead, until the first says how it finds the clocks. Nobody asks it for
    /// anything meanwhile.
    pub fn clocks(seed: u64, ahead: Duration) -> Option<String> {
        fastrand::seed(seed);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut world = Self::new(seed, false);
            world.processes.push(Some(Process::start(&world.shared, 1, 0)));
            // Everything is built, and nothing will change.
            sleep(QUIET).await;
            let ahead_us = ahead.as_micros() as i64;
            world.processes.push(Some(Process::start(&world.shared, 3, ahead_us)));
            let first = world.processes[0].as_ref().expect("a process").health.clone();
            let began = Instant::now();
            while began.elapsed() < QUIET {
                sleep(Duration::from_millis(10)).await;
                // Somebody has something to look at, or nobody would mind.
                if (began.elapsed().as_millis() % 5_000) < 10 {
                    let (events, _) = world.shared.truth.edit(&mut world.random, KINDS);
                    events.into_iter().for_each(|(topic, key, value)| world.shared.topics.log(&topic, key, value));
                }
                let parts = first.parts();
                if let Some(why) = parts.get("clock").and_then(|part| part.why.clone()) {
                    return Some(why);
                }
            }
            None
        })
    }

    fn new(seed: u64, tells: bool) -> Self {
        let mut random = Random::new(seed);
        let dice = Dice::new(random.next());
        let lag = [Duration::ZERO, Duration::from_millis(1500)][random.below(2)];
        let mut state = State::default();
        for movie in 0..3 {
            state.movies.insert(movie, ('A', Some(0)));
            state.movie_talents.insert((movie, movie % 2));
        }
        state.talents.extend([(0, 'A'), (1, 'A'), (2, 'A')]);
        state.distributors.extend([(0, 'A'), (1, 'A')]);
        // A graph that says how far it has come may be further behind than anybody thought.
        let says = seed % 5 == 3 && !lag.is_zero();
        let shared = Shared {
            plan: plan(lag),
            patience: if seed % 6 == 4 { 4 } else { 1 },
            tardy: seed % 5 == 1,
            truth: Truth::new(state),
            topics: Topics::new(dice.clone()),
            index: ModelIndex::new(),
            dice,
            lag: if says { 3 * lag } else { lag },
            says,
            origin: Instant::now(),
        };
        let calm = match MUTANT.get() {
            // What is missed then is missed where partitions move.
            Some(Rule::Doubt) => 5,
            _ if seed.is_multiple_of(2) => 20,
            _ => 6,
        };
        Self { shared, random, processes: Vec::new(), started: 0, calm, tells }
    }

    /// Whether a world that lacks a rule is worth a run: whether what the rule is about happens in it often. What an earlier owner does late
    /// is soon made good for other reasons, unless many things happen to processes and the graph does not lag.
    fn may_show(&self, lacks: Option<Rule>, steps: usize) -> bool {
        match lacks {
            Some(Rule::Doubt) => self.calm < 20 && self.shared.lag.is_zero() && steps >= 25,
            Some(Rule::LateLook) => !self.shared.lag.is_zero() && !self.shared.says,
            Some(Rule::Deadlines) => self.shared.patience > 1,
            Some(Rule::LateWrite) => self.shared.tardy && self.shared.lag.is_zero(),
            _ => true,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>8} ms  {}", self.shared.origin.elapsed().as_millis(), what());
        }
    }

    fn start(&mut self) {
        self.started += 1;
        // Restless worlds have clocks that differ by as much as they may.
        let skew = if self.calm < 20 { 900_000 * self.random.below(2) } else { self.random.below(900_000) } as i64;
        let skew = if MUTANT.get() == Some(Rule::Clocks) { 4_000_000 * (self.started as i64 % 2) } else { skew };
        self.tell(|| format!("process {} starts, {skew} us ahead", self.started));
        self.processes.push(Some(Process::start(&self.shared, self.started, skew)));
    }

    /// One of those that run.
    fn some(&mut self) -> Option<usize> {
        let alive: Vec<usize> = (0..self.processes.len()).filter(|i| self.processes[*i].is_some()).collect();
        if alive.is_empty() { None } else { Some(alive[self.random.below(alive.len())]) }
    }

    async fn live(&mut self, steps: usize) -> Result<(), String> {
        self.start();
        if !self.random.one_in(4) {
            self.start();
        }
        for _ in 0..steps {
            let pause = self.random.time(Duration::from_secs(1));
            sleep(pause).await;
            self.step().await?;
        }
        self.rest().await
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.random.below(self.calm) {
            0 => {
                if let Some(at) = self.some().filter(|_| self.started < 8) {
                    self.tell(|| format!("process {} is killed", at + 1));
                    let gate = self.processes[at].take().expect("a process").kill();
                    let topics = self.shared.topics.clone();
                    let silence = self.shared.dice.time(Duration::from_secs(1));
                    tokio::spawn(async move {
                        sleep(silence).await;
                        topics.forget(&gate);
                    });
                    self.start();
                }
            }
            1 => {
                if let Some(at) = self.some() {
                    self.tell(|| format!("process {} is frozen", at + 1));
                    let process = self.processes[at].as_ref().expect("a process");
                    process.freeze(true);
                    sleep(self.shared.dice.time(Duration::from_secs(8))).await;
                    let process = self.processes[at].as_ref().expect("a process");
                    if self.random.one_in(2) {
                        self.shared.topics.forget(&process.gate);
                    }
                    process.freeze(false);
                    self.tell(|| format!("process {} goes on", at + 1));
                }
            }
            2 => {
                self.tell(|| "partitions move".to_owned());
                self.shared.topics.shuffle();
            }
            _ => {
                let truth = self.shared.truth.clone();
                // Where a movie changes all the time, it is built again for other reasons.
                let kinds = match MUTANT.get() {
                    Some(Rule::LateWrite | Rule::Deadlines) => EMBEDDED,
                    _ => KINDS,
                };
                let (events, said) = truth.edit(&mut self.random, kinds);
                self.tell(|| said);
                for (topic, key, value) in events {
                    self.shared.topics.log(&topic, key, value);
                }
            }
        }
        self.all_run().await
    }

    /// No process ended by itself.
    async fn all_run(&mut self) -> Result<(), String> {
        for (i, process) in self.processes.iter_mut().enumerate() {
            if process.as_ref().is_some_and(Process::is_over) {
                let why = match process.take() {
                    Some(process) => process.stop().await.err().map(|e| e.to_string()),
                    None => None,
                };
                return Err(format!("process {} ended by itself: {why:?}", i + 1));
            }
        }
        Ok(())
    }

    /// Nothing changes any more: whatever is under way comes to its end, and then index and database are equal.
    async fn rest(&mut self) -> Result<(), String> {
        self.tell(|| "rest".to_owned());
        let patience = DEADLINE * 200;
        let until = Instant::now() + patience;
        let mut quiet = Duration::ZERO;
        while Instant::now() < until && quiet < QUIET {
            sleep(DEADLINE).await;
            self.all_run().await?;
            quiet = if self.shared.topics.left().is_empty() { quiet + DEADLINE } else { Duration::ZERO };
        }
        let left = self.shared.topics.left();
        let (expected, found) = (self.expected(), self.shared.index.contents());
        if expected != found {
            let show = |documents: &BTreeMap<String, Json>| {
                documents.iter().map(|(id, json)| format!("\n    {id}: {json}")).collect::<String>()
            };
            return Err(format!(
                "lag {:?}, the database:{}\n  the index:{}",
                self.shared.lag,
                show(&expected),
                show(&found)
            ));
        }
        if !left.is_empty() {
            return Err(format!("records are not done after {patience:?} of rest:\n    {}", left.join("\n    ")));
        }
        Ok(())
    }

    fn expected(&self) -> BTreeMap<String, Json> {
        let state = self.shared.truth.now();
        let index = &self.shared.plan.indexes[0];
        let content =
            |id: u8| assemble(index, &state.movie(id)?).ok().map(|document| (id.to_string(), document.content));
        state.movies.keys().filter_map(|id| content(*id)).collect()
    }
}
