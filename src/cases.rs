//! `tributary test`: cases of streams, run by the engine that runs pipelines, on an embedded log of their own and without any server.
//!
//! A case says which changes come and when, what services answer, and what is to come of it, in topics and other sinks. What a service is
//! asked for and the case does not answer fails it, with the answer to be filled in. Time passes by a clock of the case.

mod answers;
mod changes;
mod clock;
mod compare;
mod engine;
pub mod recording;
mod sinks;
mod trouble;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;
use tributary_dsl::plan::{Origin, StreamInput, StreamPlan};
use tributary_dsl::{Definition, duration};
use tributary_event::TableName;

use self::answers::Given;
use self::engine::{Came, Problem};
use self::sinks::SinkGiven;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{self, Draft, PipelineFile};

/// Cases that run at a time.
const AT_A_TIME: usize = 4;

/// A case of a stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows, in a sentence.
    case: String,
    /// The stream.
    stream: String,
    /// What services answer, by their names.
    #[serde(default)]
    given: BTreeMap<String, Given>,
    /// What is wrong with sinks, by their names.
    #[serde(default)]
    sinks: BTreeMap<String, SinkGiven>,
    /// What changes, in order: each under its table.
    events: Vec<BTreeMap<String, Change>>,
    /// What is to come of it; where it is to be recorded, nothing.
    #[serde(default)]
    expect: Option<Expectation>,
}

/// A change of a row.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    op: String,
    #[serde(default)]
    before: Json,
    #[serde(default)]
    after: Json,
    /// The row's key; left out, its `id`.
    #[serde(default)]
    key: Option<Json>,
    /// How long after the beginning it was committed, such as `90m`, and comes; left out, a millisecond after the one before, which it comes
    /// together with.
    #[serde(default, deserialize_with = "period")]
    at: Option<Duration>,
    /// Columns whose value did not change and was not sent.
    #[serde(default)]
    unchanged: Option<Vec<String>>,
}

fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map(Some).map_err(D::Error::custom)
}

/// A value that is said, be it null.
fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// A duration as cases have it.
fn print(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1_000) { format!("{}s", milliseconds / 1_000) } else { format!("{milliseconds}ms") }
}

/// What is to come of the changes of a case. What is left out may be anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    /// The events behind all steps, in order. Of an object only the fields that are named here are compared.
    #[serde(default)]
    events: Option<Vec<Json>>,
    /// The records of topics, in the order of each key.
    #[serde(default)]
    topics: BTreeMap<String, Vec<Record>>,
    /// What came to other sinks, by their names: requests, workflows, rows, documents, events in files.
    #[serde(default)]
    sinks: BTreeMap<String, Vec<Json>>,
    /// How often services, tables and sinks were asked, by their names.
    #[serde(default)]
    calls: BTreeMap<String, Calls>,
    /// So long it takes at most.
    #[serde(default, deserialize_with = "period")]
    within: Option<Duration>,
    /// What is set aside.
    #[serde(default)]
    dead_letters: Option<Vec<Letter>>,
    /// Words of the cause why the stream stands still.
    #[serde(default)]
    stands_still: Option<String>,
    /// Whether objects have no other fields than those that are named.
    #[serde(default)]
    exactly: bool,
}

/// How often somebody was asked.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    #[serde(default)]
    at_least: Option<usize>,
    #[serde(default)]
    at_most: Option<usize>,
    /// The keys of each request.
    #[serde(default)]
    keys: Option<Vec<Vec<Json>>>,
}

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    key: Option<String>,
    /// Null: it has none. Left out where it may be anything.
    #[serde(default, deserialize_with = "said")]
    value: Option<Json>,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Letter {
    /// Words of its cause.
    cause: String,
    #[serde(default)]
    key: Option<String>,
}

/// How cases are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Once, to the end.
    Calm,
    /// Killed again and again on the way.
    Crashing,
}

/// `test`.
///
/// # Errors
/// A case fails, or a file cannot be read.
pub async fn test(pipeline: &PipelineFile, files: &[PathBuf], only: Option<&str>, way: Way) -> Result<(), Failure> {
    let draft = Arc::new(definition::read(pipeline).await?);
    draft.text_is_right()?;
    let cases = chosen(&draft, files, only)?;
    let count = cases.len();
    let run = |(case, plan): (Case, StreamPlan)| {
        let draft = draft.clone();
        async move {
            let name = case.case.clone();
            let wrong = run(draft, case, plan, way).await;
            (name, wrong.unwrap_or_else(|failure| vec![failure.to_string()]))
        }
    };
    let mut running = futures::stream::iter(cases).map(run).buffered(AT_A_TIME);
    let mut failed = 0;
    while let Some((name, wrong)) = running.next().await {
        if wrong.is_empty() {
            line(&format!("ok    {name}"));
            continue;
        }
        failed += 1;
        line(&format!("FAIL  {name}"));
        for text in wrong.iter().flat_map(|problem| problem.lines()) {
            line(&format!("      {text}"));
        }
    }
    match failed {
        0 => {
            line(&format!("{count} passed"));
            Ok(())
        }
        failed => Err(Failure::Stopped(format!("{failed} of {count} cases failed"))),
    }
}

/// Cases with their streams, of which there is one at least.
fn chosen(draft: &Draft, files: &[PathBuf], only: Option<&str>) -> Result<Vec<(Case, StreamPlan)>, Failure> {
    let mut cases = Vec::new();
    for file in files {
        cases.extend(read(file, draft.definition())?);
    }
    cases.retain(|(case, _)| only.is_none_or(|only| case.case.contains(only)));
    if cases.is_empty() { Err(Failure::NotFound("no case of that name".to_owned())) } else { Ok(cases) }
}

/// Runs a case on a thread of its own: what is otherwise than expected.
async fn run(draft: Arc<Draft>, case: Case, plan: StreamPlan, way: Way) -> Result<Vec<String>, Failure> {
    let Some(expected) = case.expect.clone() else {
        return Ok(vec!["it does not say what is expected; add `expect`, or record it (--record)".to_owned()]);
    };
    Ok(match came(draft, case, plan, way).await? {
        Ok(came) => compare::compare(&expected, &came, way),
        Err(Problem::Other(problem)) => vec![problem],
        Err(Problem::Unanswered(unanswered)) => {
            unanswered.iter().map(|(service, keys)| answers::stub(service, keys)).collect()
        }
    })
}

/// What comes of a case, which has a thread and a clock of its own.
async fn came(draft: Arc<Draft>, case: Case, plan: StreamPlan, way: Way) -> Result<Result<Came, Problem>, Failure> {
    let run = move || engine::run(draft.definition(), &case, plan, way);
    tokio::task::spawn_blocking(run).await.map_err(|e| Failure::Stopped(format!("a case panicked: {e}")))
}

/// The cases of a file, each with its stream.
fn read(file: &Path, definition: &Definition) -> Result<Vec<(Case, StreamPlan)>, Failure> {
    let shown = file.display();
    let text =
        std::fs::read_to_string(file).map_err(|e| Failure::NotFound(format!("cannot read the cases {shown}: {e}")))?;
    let cases: Vec<Case> = serde_saphyr::from_str(&text)
        .map_err(|e| Failure::Stopped(format!("the cases {shown} cannot be read: {e}")))?;
    let with_stream = |case: Case| {
        let streams = definition.streams();
        let Some(plan) = streams.iter().find(|stream| stream.name == case.stream).cloned() else {
            let known: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
            let (name, stream, known) = (&case.case, &case.stream, known.join(", "));
            let message = format!("{shown}: case {name:?}: there is no stream `{stream}` (there is: {known})");
            return Err(Failure::Stopped(message));
        };
        if let Some(table) = case.events.iter().flat_map(BTreeMap::keys).find(|table| input(&plan, table).is_none()) {
            let name = &case.case;
            let message = format!("{shown}: case {name:?}: no changes of `{table}` flow through `{}`", plan.name);
            return Err(Failure::Stopped(message));
        }
        Ok((case, plan))
    };
    cases.into_iter().map(with_stream).collect()
}

/// What a case names that a stream reads: a table, or another stream, or a topic.
fn input<'a>(plan: &'a StreamPlan, named: &str) -> Option<&'a StreamInput> {
    let table: Option<TableName> = named.parse().ok();
    plan.from.iter().find(|input| match &input.origin {
        Origin::Table { table: name, .. } => Some(name) == table.as_ref(),
        Origin::Stream(name) => name == named,
        Origin::Topic => input.topic == named,
    })
}
