//! Dead letters: list, show, replay. Through the running pipeline where there is one (it may hold the embedded log), else on
//! the transport itself.

use std::path::Path;

use serde_json::Value as Json;
use tributary_dsl::plan::Plan;
use tributary_indexer::request::names;
use tributary_transport::dead_letter::{DeadLetter, DeadLetters};

use crate::backends;
use crate::definition::load;
use crate::exit::Failure;
use crate::http::Replay;
use crate::output::line;
use crate::record::{self, expect_ok};

async fn letters(plan: &Plan) -> Result<DeadLetters, Failure> {
    let letters = DeadLetters::new(backends::transport(plan).await?, names::dead_letters(&plan.pipeline));
    letters.ensure().await.map_err(|e| Failure::of(e.class, e.message))?;
    Ok(letters)
}

fn read<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, Failure> {
    serde_json::from_value(json)
        .map_err(|e| Failure::Stopped(format!("the running pipeline answered something else: {e}")))
}

/// `dlq list`.
pub async fn list(file: &Path) -> Result<(), Failure> {
    let plan = load(file).await?;
    let all: Vec<DeadLetter> = match record::find(&plan).await {
        Some(running) => read(expect_ok(running.get("/dead-letters").await?)?)?,
        None => letters(&plan).await?.list().await.map_err(|e| Failure::of(e.class, e.message))?,
    };
    if all.is_empty() {
        line("no dead letters");
    }
    for letter in all {
        line(&format!("{}  {} after {} tries: {}", letter.id, letter.class, letter.attempts, letter.cause));
    }
    Ok(())
}

/// `dlq show`.
pub async fn show(file: &Path, id: &str) -> Result<(), Failure> {
    let plan = load(file).await?;
    let letter: DeadLetter = match record::find(&plan).await {
        Some(running) => {
            let path = format!("/dead-letters/{}", backends::percent_encode(id));
            read(expect_ok(running.get(&path).await?)?)?
        }
        None => {
            let found = letters(&plan).await?.get(id).await.map_err(|e| Failure::of(e.class, e.message))?;
            found.ok_or_else(|| Failure::NotFound(format!("no dead letter {id:?} (tributary dlq list shows all)")))?
        }
    };
    line(&serde_json::to_string_pretty(&letter).unwrap_or_default());
    Ok(())
}

/// `dlq replay`.
pub async fn replay(file: &Path, ids: Option<Vec<String>>) -> Result<(), Failure> {
    let plan = load(file).await?;
    let replayed: u64 = match record::find(&plan).await {
        Some(running) => {
            let answer = expect_ok(running.post("/dead-letters-replay", &Replay { ids }).await?)?;
            answer["replayed"].as_u64().unwrap_or(0)
        }
        None => {
            let replayed = letters(&plan).await?.replay(ids.as_deref()).await;
            replayed.map_err(|e| Failure::of(e.class, e.message))? as u64
        }
    };
    if replayed == 0 {
        return Err(Failure::NotFound("no such dead letter (tributary dlq list shows all)".into()));
    }
    line(&format!("{replayed} sent back; they are tried when the pipeline runs"));
    Ok(())
}
