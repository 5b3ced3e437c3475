//! The command `tributary`, without functions and streams of a user.

use std::process::ExitCode;

use tributary::functions::Functions;

fn main() -> ExitCode {
    tributary::cli(Functions::new())
}
