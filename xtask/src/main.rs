//! `cargo xtask`, in front of which stands `./x`: the project's own commands.
//!
//! Each command is a file: `demo`, `test`, `chaos`, `bench`, `stack`, `ci`. They share `parts` (which servers are wanted, and
//! starting them), `answers` (what a running pipeline answers) and `tools` (running cargo).

// This program talks to a person at a terminal.
#![allow(clippy::print_stdout)]

mod answers;
mod bench;
mod chaos;
mod ci;
mod demo;
mod interrupt;
mod parts;
mod stack;
mod test;
mod tools;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tributary's own commands.
#[derive(Debug, Parser)]
#[command(name = "x", bin_name = "x", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run SQL on the running demo's database
    Sql {
        /// The statements
        statements: String,
        /// On the database of vendors and deals, of a demo with two databases
        #[arg(long)]
        contracts: bool,
    },
    /// Run the demo: movies in PostgreSQL, a GraphQL service, a search index that follows
    Demo(demo::Arguments),
    /// Fetch and start every server, then run all tests
    Test(test::Arguments),
    /// Hurt everything at random while several processes follow a database, then compare
    Chaos(chaos::Arguments),
    /// Measure, and print one line of figures at the end
    Bench(bench::Arguments),
    /// Servers without Docker
    #[command(subcommand)]
    Stack(stack::Command),
    /// Everything that a submission must pass: format, lints, documentation, licences, tests
    Ci,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => Box::pin(demo::run(arguments)).await,
        Command::Sql { statements, contracts } => Box::pin(demo::sql(&statements, contracts)).await,
        Command::Test(arguments) => Box::pin(test::run(arguments)).await,
        Command::Chaos(arguments) => Box::pin(chaos::run(arguments)).await,
        Command::Bench(arguments) => Box::pin(bench::run(arguments)).await,
        Command::Stack(command) => Box::pin(stack::run(command)).await,
        Command::Ci => Box::pin(ci::run()).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
