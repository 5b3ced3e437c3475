//! `tributary test --record`: cases with what services answer and what comes of it, of changes that flow through a running pipeline, or of
//! cases that lack them. In the first way answers are what the steps of the pipeline were seen to put into events; in the second one the
//! services are asked, as the pipeline says it.

mod journey;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use tributary_dsl::plan::{StepPlan, StreamPlan};
use tributary_event::Health;
use tributary_processor::{Answer, Enricher};
use tributary_services::{Asking, Service};

use self::journey::Journeys;
use super::answers::Given;
use super::engine::{Came, Problem};
use super::{Case, Way, came, chosen, written};
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{self, Draft, PipelineFile};
use crate::run::record;
use crate::run::tap::Wish;

/// What cases are made of.
#[derive(Debug)]
pub enum From {
    /// So many changes that flow through a stream of the running pipeline.
    Running {
        /// The stream.
        stream: String,
        /// How many.
        count: usize,
    },
    /// Cases of files, or those of them with these words in their names.
    Files(Vec<PathBuf>, Option<String>),
}

/// `test --record`.
///
/// # Errors
/// The pipeline does not run here, a service does not answer, a case cannot be run, or the file cannot be written.
pub async fn record(pipeline: &PipelineFile, from: From, into: &Path) -> Result<(), Failure> {
    let draft = Arc::new(definition::read(pipeline).await?);
    draft.text_is_right()?;
    let cases = match from {
        From::Files(files, only) => chosen(&draft, &files, only.as_deref())?,
        From::Running { stream, count } => watched(&draft, pipeline, &stream, count).await?,
    };
    let mut text = String::new();
    let count = cases.len();
    for (case, plan) in cases {
        let (case, came) = Box::pin(answered(&draft, case, plan)).await?;
        line(&format!("recorded  {}", case.case));
        text.push_str(&written::case(&case, &came));
    }
    let failed = |e| Failure::Stopped(format!("cannot write the cases {}: {e}", into.display()));
    tokio::fs::write(into, text).await.map_err(failed)?;
    line(&format!("{count} recorded in {}", into.display()));
    Ok(())
}

/// A case with the answers that it lacked, and what comes of it.
async fn answered(draft: &Arc<Draft>, mut case: Case, plan: StreamPlan) -> Result<(Case, Came), Failure> {
    loop {
        let failed = |why: String| Failure::Stopped(format!("case {:?}: {why}", case.case));
        match came(draft.clone(), case.clone(), plan.clone(), Way::Calm).await? {
            Ok(came) => return Ok((case, came)),
            Err(Problem::Other(why)) => return Err(failed(why)),
            Err(Problem::Unanswered(unanswered)) => {
                for (name, keys) in unanswered {
                    if draft.definition().tables().iter().any(|table| table.name == name) {
                        let keys = keys.join(", ");
                        return Err(failed(format!(
                            "it does not say what the table {name} has of {keys}; add it to `given`, or record a running pipeline \
                             (--stream)"
                        )));
                    }
                    ask(draft, &plan, &name, &keys, case.given.entry(name.clone()).or_default()).await?;
                }
            }
        }
    }
}

/// Asks a service in all the ways in which a stream does.
async fn ask(draft: &Draft, plan: &StreamPlan, name: &str, keys: &[String], given: &mut Given) -> Result<(), Failure> {
    let outside = |e: tributary_processor::OutsideError| Failure::of(e.class, e.message);
    let Some(service) = draft.definition().services().iter().find(|service| service.name == name) else {
        return Ok(());
    };
    let service = Service::new(service, Health::default().part("service")).map_err(outside)?;
    let asked: Vec<bytes::Bytes> = keys.iter().map(|key| bytes(key)).collect();
    for step in &plan.steps {
        let StepPlan::Enrich(enrich) = &step.plan else { continue };
        if enrich.service != name {
            continue;
        }
        let asking = Asking::new(service.clone(), enrich, None).map_err(outside)?;
        let answers = asking.ask(&asked).await.map_err(outside)?;
        for (key, answer) in keys.iter().zip(answers) {
            add(given, key, answer);
        }
    }
    Ok(())
}

/// A key as it is asked for: a case writes text as it is.
fn bytes(key: &str) -> bytes::Bytes {
    match serde_json::from_str::<Json>(key) {
        Ok(_) => key.to_owned().into(),
        Err(_) => Json::from(key).to_string().into(),
    }
}

/// Adds what a service says of a key. Where it is asked in several ways, objects have what all of them have.
fn add(given: &mut Given, key: &str, answer: Answer) {
    match answer {
        Answer::Found(json) => {
            let found: Json = serde_json::from_slice(&json).unwrap_or(Json::Null);
            match (given.found.get_mut(key), found) {
                (Some(Json::Object(before)), Json::Object(found)) => before.extend(found),
                (_, found) => drop(given.found.insert(key.to_owned(), found)),
            }
        }
        Answer::Missing => {
            let key = Json::from(key);
            if !given.missing.contains(&key) {
                given.missing.push(key);
            }
        }
        Answer::Failed(why) => drop(given.failed.insert(key.to_owned(), why)),
    }
}

/// Cases of changes that flow through a running pipeline from now on.
async fn watched(
    draft: &Draft,
    file: &PipelineFile,
    stream: &str,
    count: usize,
) -> Result<Vec<(Case, StreamPlan)>, Failure> {
    let definition = draft.definition();
    let plan = definition.streams().iter().find(|plan| plan.name == stream);
    let unknown = || Failure::NotFound(format!("no stream {stream:?} in this pipeline"));
    let plan = plan.ok_or_else(unknown)?;
    let Some(running) = record::find(definition.data(), definition.pipeline()).await else {
        return Err(Failure::NotFound(format!(
            "the pipeline {} does not run on this machine (tributary run {} starts it)",
            definition.pipeline(),
            file.path.display()
        )));
    };
    let mut lines = running.lines("/tap", &Wish::of(Some(stream))).await?;
    let mut journeys = Journeys::new(plan);
    while journeys.ended() < count {
        let Some(text) = lines.next().await? else {
            return Err(Failure::Unreachable("the pipeline stopped".to_owned()));
        };
        let Ok(told) = serde_json::from_str::<Json>(&text) else { continue };
        if let Some(missed) = told["missed"].as_u64() {
            return Err(Failure::Stopped(format!(
                "{missed} events came faster than they could be recorded; try again"
            )));
        }
        journeys.add(&told);
    }
    let cases = journeys.cases().into_iter().take(count).map(|case| (case, plan.clone()));
    Ok(cases.collect())
}

/// What is given, by names.
type AllGiven = BTreeMap<String, Given>;
