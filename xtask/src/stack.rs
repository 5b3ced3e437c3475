//! `x stack`: servers for a person to work with.

use crate::interrupt::{asked_to_end, unless_interrupted};
use crate::parts::Wanted;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use tributary_stack::MySqlProduct;

/// What to do with the stack.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start servers, print their addresses, and keep them until Ctrl-C (all of them if none is named)
    Up(Choice),
    /// Fetch what the servers need, so that a later start needs no network (all of them if none is named)
    Fetch(Choice),
}

/// Which parts.
#[derive(Args, Debug)]
pub(crate) struct Choice {
    /// PostgreSQL, of this major version
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "18")]
    postgres: Option<String>,
    /// MySQL, of this version (on Debian only)
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "9.7")]
    mysql: Option<String>,
    /// MariaDB, of this version: 11.8 and 10.11 (on Debian only), or 11.4
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = mariadb())]
    mariadb: Option<String>,
    /// One Kafka broker, of this version
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "4.1")]
    kafka: Option<String>,
    /// One Elasticsearch node, of this major version
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "9")]
    elasticsearch: Option<String>,
    /// One OpenSearch node, of this major version
    #[arg(long, value_name = "VERSION", num_args = 0..=1, default_missing_value = "3")]
    opensearch: Option<String>,
}

impl Choice {
    fn wanted(self) -> Wanted {
        let Choice { postgres, mysql, mariadb, kafka, elasticsearch, opensearch } = self;
        let wanted = Wanted { postgres, mysql, mariadb, kafka, elasticsearch, opensearch };
        if wanted.parts().is_empty() { Wanted::everything() } else { wanted }
    }
}

fn mariadb() -> &'static str {
    MySqlProduct::MariaDb.newest().unwrap_or("11.4")
}

/// Runs the command.
pub(crate) async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Fetch(choice) => {
            let parts = choice.wanted().parts();
            unless_interrupted(tributary_stack::prefetch(&parts)).await?;
            for part in parts {
                println!("{part}: ready in {}", tributary_stack::cache_folder()?.display());
            }
        }
        Command::Up(choice) => {
            let running = unless_interrupted(choice.wanted().start()).await?;
            for (name, variable, address) in running.addresses() {
                println!("{name:<14} {address}   (export {variable}={address})");
            }
            println!("\nIn pipeline.yaml:");
            for line in running.settings() {
                println!("  {line}");
            }
            println!("\nCtrl-C stops them and removes their data.");
            asked_to_end().await?;
            println!("stopping");
            running.stop().await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
