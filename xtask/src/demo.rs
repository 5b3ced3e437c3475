//! `x demo`: starts the demo's servers, fills the database, and runs `tributary` on the demo's pipeline.

use crate::interrupt::unless_interrupted;
use crate::parts::Wanted;
use anyhow::{Result, bail};
use clap::Args;
use std::process::ExitCode;

/// Options of `x demo`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Run a scripted scenario, prove that the index equals the graph, print figures and exit
    #[arg(long)]
    once: bool,
    /// Carry the events through a Kafka broker instead of the embedded log
    #[arg(long)]
    kafka: bool,
    /// Keep the documents in Elasticsearch instead of the embedded index
    #[arg(long, conflicts_with = "opensearch")]
    elasticsearch: bool,
    /// Keep the documents in OpenSearch instead of the embedded index
    #[arg(long)]
    opensearch: bool,
}

/// Runs the demo.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { once, kafka, elasticsearch, opensearch } = arguments;
    let wanted = Wanted { postgres: Some("18".to_owned()), kafka, elasticsearch, opensearch };
    let running = unless_interrupted(Box::pin(wanted.start())).await?;
    for (name, _, address) in running.addresses() {
        println!("{name:<14} {address}");
    }
    running.stop().await?;
    bail!("the demo's scenario is not written yet (once: {once})")
}
