//! `tributary test`: cases of streams, run by the engine that runs pipelines, on an embedded log of their own and without any server.
//!
//! A case says which changes come, what services answer, and what is to come of it. What a service is asked for and the case does not
//! answer fails it, with the answer to be filled in.

mod answers;
mod compare;
mod engine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value as Json;
use tributary_dsl::plan::{Origin, StreamInput, StreamPlan};
use tributary_dsl::{Definition, duration};
use tributary_event::TableName;

use self::answers::Given;
use crate::definition::{self, PipelineFile};
use crate::exit::Failure;
use crate::output::line;

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
    /// What changes, in order: each under its table.
    events: Vec<BTreeMap<String, Change>>,
    /// What is to come of it.
    expect: Expectation,
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
    /// How long after the beginning it was committed, such as `90m`; left out, a millisecond after the one before.
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

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    value: Json,
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
    let draft = definition::read(pipeline).await?;
    draft.text_is_right()?;
    let mut cases = Vec::new();
    for file in files {
        cases.extend(read(file, draft.definition())?);
    }
    cases.retain(|(case, _)| only.is_none_or(|only| case.case.contains(only)));
    let count = cases.len();
    if count == 0 {
        return Err(Failure::NotFound("no case of that name".to_owned()));
    }
    let definition = draft.definition();
    let run = |(case, plan): (Case, StreamPlan)| async move {
        let came = engine::run(definition, &case, plan, way).await;
        let wrong = match came {
            Ok(came) => compare::compare(&case.expect, &came),
            Err(problem) => vec![problem],
        };
        (case.case, wrong)
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
