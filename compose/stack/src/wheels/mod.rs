//! Programs that come as Python wheels: pip fetches them by their digests, into a folder of their own.

mod duckdb;

use crate::server::command;
use anyhow::{Context as _, Result};
use std::path::Path;
use tokio::process::Command;

pub use duckdb::DuckDb;

/// Where packages are in the folder that was installed into.
pub(crate) const PACKAGES: &str = "packages";

/// Installs what pip's own list of requirements says, with digests, and nothing that it depends on. `remedy`: what helps if that fails.
pub(crate) async fn install(folder: &Path, requirements: &str, remedy: &str) -> Result<()> {
    let list = folder.join("requirements.txt");
    std::fs::write(&list, requirements).with_context(|| format!("writing {}", list.display()))?;
    // A virtual environment has a pip of its own, also where the system's Python has none or closes its own packages.
    let environment = folder.join("environment");
    let mut create = Command::new("python3");
    create.args(["-m", "venv"]).arg(&environment);
    command::run(create, remedy).await?;
    let mut pip = Command::new(environment.join("bin/python"));
    pip.args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"]);
    pip.arg("--target").arg(folder.join(PACKAGES)).arg("-r").arg(&list);
    command::run(pip, remedy).await?;
    std::fs::remove_dir_all(&environment).with_context(|| format!("removing {}", environment.display()))
}
