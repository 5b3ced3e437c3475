//! What each command does.

mod audit;
mod definition;
mod documents;
mod letters;
mod proposal;
mod running;

use std::sync::Arc;

use crate::cases::{Way, recording, test};
use crate::cli::exit::Failure;
use crate::cli::{Cli, Command, Dlq, Pipeline};
use crate::definition::PipelineFile;
use crate::functions::Functions;
use crate::run::tap::{Wish, tap};

/// Carries a command out.
pub async fn execute(cli: Cli, functions: Functions) -> Result<(), Failure> {
    let functions = Arc::new(functions);
    let file = |pipeline: Pipeline| PipelineFile { path: pipeline.file, functions: functions.clone() };
    match cli.command {
        Command::Init { graph, source, root, header, folder } => {
            proposal::init(proposal::Wish { graph, source, root, headers: header, folder }).await
        }
        Command::Check(pipeline) => definition::check(&file(pipeline)).await,
        Command::Plan(pipeline) => definition::plan(&file(pipeline)).await,
        Command::Graph { pipeline, format } => definition::graph(&file(pipeline), format).await,
        Command::Run { pipeline, quiet, fail_fast, watch } => {
            running::run(&file(pipeline), quiet, fail_fast, watch).await
        }
        Command::Reload { pipeline, dry_run } => running::reload(&file(pipeline), dry_run).await,
        Command::Reindex { pipeline, index } => running::reindex(&file(pipeline), index.as_deref()).await,
        Command::ResumeDeletes { pipeline, index } => letters::resume_deletes(&file(pipeline), index.as_deref()).await,
        Command::Audit { pipeline, since, documents, json } => {
            audit::audit(&file(pipeline), since, documents, json).await
        }
        Command::Search { pipeline, index, query, from, size } => {
            documents::search(&file(pipeline), &index, query, from, size).await
        }
        Command::Get { pipeline, index, id } => documents::get(&file(pipeline), &index, &id).await,
        Command::Test { pipeline, cases, only, record: Some(into), stream, count, .. } => {
            let from = match stream {
                Some(stream) => recording::From::Running { stream, count },
                None => recording::From::Files(cases, only),
            };
            Box::pin(recording::record(&file(pipeline), from, &into)).await
        }
        Command::Test { pipeline, cases, only, crash, .. } => {
            let way = if crash { Way::Crashing } else { Way::Calm };
            test(&file(pipeline), &cases, only.as_deref(), way).await
        }
        Command::Tap { pipeline, target, condition, rate, count, json } => {
            let wish = Wish { condition, rate: Some(rate), ..Wish::of(target.as_deref()) };
            tap(&file(pipeline), wish, count, json).await
        }
        Command::Dlq(Dlq::List(pipeline)) => letters::list(&file(pipeline)).await,
        Command::Dlq(Dlq::Show { pipeline, id }) => letters::show(&file(pipeline), &id).await,
        Command::Dlq(Dlq::Discard { pipeline, ids }) => letters::discard(&file(pipeline), ids).await,
        Command::Dlq(Dlq::Replay { pipeline, ids, all }) => {
            letters::replay(&file(pipeline), (!all).then_some(ids)).await
        }
        Command::Schema => {
            definition::schema();
            Ok(())
        }
        Command::Completions { shell } => {
            definition::completions(shell);
            Ok(())
        }
    }
}
