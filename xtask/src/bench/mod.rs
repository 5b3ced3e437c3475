//! `x bench`: repeatable measurements on real servers; each ends with one line of `key=value` figures.

use anyhow::{Result, bail};
use clap::Args;
use std::process::ExitCode;

/// Options of `x bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Which measurement: capture or index
    name: String,
}

/// Runs a measurement.
#[allow(clippy::unused_async, reason = "the measurements, which start servers, are not written yet")]
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    bail!("there is no measurement named {:?} yet", arguments.name)
}
