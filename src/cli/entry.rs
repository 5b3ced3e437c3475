//! The command itself: reads the command line, starts logging, and turns failures into exit codes. `main` calls it with nothing, a program of
//! a user's own with functions and streams.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use super::Cli;
use crate::functions::Functions;

/// What is still under way when a command has ended may take so long, such as a function of a user that does not come to its end.
const ENDING: Duration = Duration::from_secs(10);

/// Runs the command line of this process, with functions and streams of a user, which every command knows.
pub fn cli(functions: Functions) -> ExitCode {
    let cli = Cli::parse();
    let say = |message: &dyn std::fmt::Display| drop(writeln!(std::io::stderr(), "error: {message}"));
    if let Err(message) = super::logs::init(cli.log_format, cli.log_filter()) {
        say(&message);
        return ExitCode::from(2);
    }
    if !functions.problems().is_empty() {
        functions.problems().iter().for_each(|problem| say(problem));
        return ExitCode::from(3);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no threads to run on: {error}"));
            return ExitCode::from(1);
        }
    };
    let ended = runtime.block_on(Box::pin(crate::commands::execute(cli, functions)));
    runtime.shutdown_timeout(ENDING);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&failure);
            failure.code()
        }
    }
}
