//! The command `tributary`: reads the command line, starts logging, and turns failures into exit codes.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use tributary::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(message) = tributary::logs::init(cli.log_format, cli.log_filter()) {
        let _ = writeln!(std::io::stderr(), "error: {message}");
        return ExitCode::from(2);
    }
    match Box::pin(tributary::commands::execute(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.code()
        }
    }
}
