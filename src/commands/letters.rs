//! Dead letters: list, show, replay; and deletes that wait, which are among them. Through the running pipeline where there is one (it may hold the embedded log), else on
//! the transport itself.

use serde_json::Value as Json;
use tributary_dsl::Definition;
use tributary_dsl::plan::StreamPlan;
use tributary_indexer::letters::replay;
use tributary_indexer::request::names;
use tributary_processor::{Delivery, Stream};
use tributary_transport::dead_letter::{DeadLetter, DeadLetters};

use crate::backends;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{self, Draft, PipelineFile};
use crate::run::http::Replay;
use crate::run::record::{self, expect_ok};

/// The definition, which is all that is needed: the graph may be away.
async fn definition(file: &PipelineFile) -> Result<Draft, Failure> {
    let draft = definition::read(file).await?;
    draft.text_is_right()?;
    Ok(draft)
}

async fn running(definition: &Definition) -> Option<record::Running> {
    record::find(definition.data(), definition.pipeline()).await
}

async fn letters(definition: &Definition) -> Result<DeadLetters, Failure> {
    let topic = names::dead_letters(definition.pipeline());
    let letters = DeadLetters::new(backends::transport(definition).await?, topic);
    letters.ensure().await.map_err(|e| Failure::of(e.class, e.message))?;
    Ok(letters)
}

fn read<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, Failure> {
    serde_json::from_value(json)
        .map_err(|e| Failure::Stopped(format!("the running pipeline answered something else: {e}")))
}

/// `dlq list`.
pub async fn list(file: &PipelineFile) -> Result<(), Failure> {
    let draft = definition(file).await?;
    let all: Vec<DeadLetter> = match running(draft.definition()).await {
        Some(running) => read(expect_ok(running.get("/dead-letters").await?)?)?,
        None => letters(draft.definition()).await?.list().await.map_err(|e| Failure::of(e.class, e.message))?,
    };
    if all.is_empty() {
        line("no dead letters");
    }
    for letter in all {
        let before = if is_of_another_plan(draft.definition(), &letter) {
            " (under another plan than the file has now)"
        } else {
            ""
        };
        line(&format!("{}  {} after {} tries: {}{before}", letter.id, letter.class, letter.attempts, letter.cause));
    }
    Ok(())
}

/// Whether the stream that set an event aside says something else in the file now. A replay may end otherwise then.
fn is_of_another_plan(definition: &Definition, letter: &DeadLetter) -> bool {
    let is_its = |stream: &&StreamPlan| {
        letter.stage == Stream::stage(&stream.name) || letter.stage.starts_with(&Delivery::stage(&stream.name, ""))
    };
    let now = definition.streams().iter().find(is_its).and_then(|stream| definition.plan_hash(stream));
    now.zip(letter.plan).is_some_and(|(now, then)| now != then)
}

/// `dlq show`.
pub async fn show(file: &PipelineFile, id: &str) -> Result<(), Failure> {
    let draft = definition(file).await?;
    let letter: DeadLetter = match running(draft.definition()).await {
        Some(running) => {
            let path = format!("/dead-letters/{}", backends::percent_encode(id));
            read(expect_ok(running.get(&path).await?)?)?
        }
        None => {
            let found =
                letters(draft.definition()).await?.get(id).await.map_err(|e| Failure::of(e.class, e.message))?;
            found.ok_or_else(|| Failure::NotFound(format!("no dead letter {id:?} (tributary dlq list shows all)")))?
        }
    };
    line(&serde_json::to_string_pretty(&letter).unwrap_or_default());
    Ok(())
}

/// `dlq replay`.
pub async fn replay(file: &PipelineFile, ids: Option<Vec<String>>) -> Result<(), Failure> {
    let draft = definition(file).await?;
    let replayed: u64 = match running(draft.definition()).await {
        Some(running) => {
            let answer = expect_ok(running.post("/dead-letters-replay", &Replay { ids }).await?)?;
            answer["replayed"].as_u64().unwrap_or(0)
        }
        None => {
            let replayed = letters(draft.definition()).await?.replay(ids.as_deref()).await;
            replayed.map_err(|e| Failure::of(e.class, e.message))? as u64
        }
    };
    if replayed == 0 {
        return Err(Failure::NotFound("no such dead letter (tributary dlq list shows all)".into()));
    }
    line(&format!("{replayed} sent back; they are tried when the pipeline runs"));
    Ok(())
}

/// `dlq discard`.
pub async fn discard(file: &PipelineFile, ids: Vec<String>) -> Result<(), Failure> {
    let draft = definition(file).await?;
    match running(draft.definition()).await {
        Some(running) => drop(expect_ok(running.post("/dead-letters-discard", &ids).await?)?),
        None => {
            let discarded = letters(draft.definition()).await?.discard(&ids).await;
            discarded.map_err(|e| Failure::of(e.class, e.message))?;
        }
    }
    line(&format!("{} given up", ids.len()));
    Ok(())
}

/// `resume-deletes`.
pub async fn resume_deletes(file: &PipelineFile, index: Option<&str>) -> Result<(), Failure> {
    let draft = definition(file).await?;
    let all: Vec<&str> = draft.definition().indexes().collect();
    if let Some(name) = index.filter(|name| !all.contains(name)) {
        let known = all.join(", ");
        return Err(Failure::NotFound(format!("no index {name:?} in this pipeline (it has: {known})")));
    }
    let running = running(draft.definition()).await;
    let letters = if running.is_none() { Some(letters(draft.definition()).await?) } else { None };
    for name in all.into_iter().filter(|name| index.is_none_or(|index| index == *name)) {
        let resumed: u64 = match (&running, &letters) {
            (Some(running), _) => {
                let path = format!("/indexes/{}/resume-deletes", backends::percent_encode(name));
                expect_ok(running.post(&path, &()).await?)?["resumed"].as_u64().unwrap_or(0)
            }
            (None, Some(letters)) => {
                let resumed = replay::resume_deletes(letters, name).await;
                resumed.map_err(|e| Failure::of(e.class, e.message))? as u64
            }
            (None, None) => 0,
        };
        line(&match resumed {
            0 => format!("{name}: no delete waits"),
            1 => format!("{name}: 1 delete goes on, if the graph still does not know the document"),
            n => format!("{name}: {n} deletes go on, if the graph still does not know the documents"),
        });
    }
    Ok(())
}
