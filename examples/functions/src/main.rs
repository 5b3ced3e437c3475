//! The command: everything that `tributary` can do, with this example's functions and streams in it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tributary::cli(deals::functions())
}
