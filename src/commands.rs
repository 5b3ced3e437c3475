//! What each command does.

mod audit;
mod definition;
mod documents;
mod letters;
mod proposal;
mod running;

use crate::cases::{Way, test};
use crate::cli::{Cli, Command, Dlq};
use crate::exit::Failure;
use crate::tap::{Wish, tap};

/// Carries a command out.
pub async fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Init { graph, source, root, header, folder } => {
            proposal::init(proposal::Wish { graph, source, root, headers: header, folder }).await
        }
        Command::Check(pipeline) => definition::check(&pipeline.file).await,
        Command::Plan(pipeline) => definition::plan(&pipeline.file).await,
        Command::Graph { pipeline, format } => definition::graph(&pipeline.file, format).await,
        Command::Run { pipeline, quiet, fail_fast, watch } => {
            running::run(&pipeline.file, quiet, fail_fast, watch).await
        }
        Command::Reload(pipeline) => running::reload(&pipeline.file).await,
        Command::Reindex { pipeline, index } => running::reindex(&pipeline.file, index.as_deref()).await,
        Command::ResumeDeletes { pipeline, index } => letters::resume_deletes(&pipeline.file, index.as_deref()).await,
        Command::Audit { pipeline, since, documents, json } => {
            audit::audit(&pipeline.file, since, documents, json).await
        }
        Command::Search { pipeline, index, query, from, size } => {
            documents::search(&pipeline.file, &index, query, from, size).await
        }
        Command::Get { pipeline, index, id } => documents::get(&pipeline.file, &index, &id).await,
        Command::Test { pipeline, cases, only, crash } => {
            let way = if crash { Way::Crashing } else { Way::Calm };
            test(&pipeline.file, &cases, only.as_deref(), way).await
        }
        Command::Tap { pipeline, target, condition, rate, count, json } => {
            let wish = Wish { condition, rate: Some(rate), ..Wish::of(target.as_deref()) };
            tap(&pipeline.file, wish, count, json).await
        }
        Command::Dlq(Dlq::List(pipeline)) => letters::list(&pipeline.file).await,
        Command::Dlq(Dlq::Show { pipeline, id }) => letters::show(&pipeline.file, &id).await,
        Command::Dlq(Dlq::Discard { pipeline, ids }) => letters::discard(&pipeline.file, ids).await,
        Command::Dlq(Dlq::Replay { pipeline, ids, all }) => {
            letters::replay(&pipeline.file, (!all).then_some(ids)).await
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
