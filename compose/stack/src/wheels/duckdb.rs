//! DuckDB, as a program that reads files which warehouses get.

use super::{PACKAGES, install};
use crate::cache::artifact::{self, Claim};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use tokio::process::Command;

/// Version and digests, in pip's own form.
const REQUIREMENTS: &str = include_str!("../../duckdb/requirements.txt");

/// Prints the rows of a query as a list of lists in JSON; what JSON has no type for as DuckDB prints it.
const PROGRAM: &str = "import json, sys, duckdb
print(json.dumps(duckdb.connect().execute(sys.argv[1]).fetchall(), default=str))";

/// DuckDB, from its Python wheel. It runs for a query and keeps nothing.
#[derive(Debug)]
pub struct DuckDb {
    packages: PathBuf,
}

impl DuckDb {
    /// Fetches it if needed.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn fetch() -> Result<Self> {
        const REMEDY: &str = "DuckDB comes as a wheel, which needs Python 3.9 to 3.14 with venv (apt-get install python3-venv) and its \
                              package index";
        // A wheel is for one version of Python.
        let version = Command::new("python3").arg("--version").output().await.context("running python3 --version")?;
        let python = String::from_utf8_lossy(&version.stdout).trim().to_owned();
        let name = format!("duckdb/{}", artifact::hash(&[REQUIREMENTS, &python]));
        let folder = match artifact::claim(&name).await? {
            Claim::Present(path) => path,
            Claim::Absent(making) => {
                eprintln!("fetching DuckDB with pip");
                std::fs::create_dir(&making.partial).with_context(|| format!("making {}", making.partial.display()))?;
                install(&making.partial, REQUIREMENTS, REMEDY).await?;
                making.finish()?
            }
        };
        Ok(Self { packages: folder.join(PACKAGES) })
    }

    /// The rows of a query, as a list of lists.
    ///
    /// # Errors
    /// What DuckDB says against the query.
    pub async fn rows(&self, query: &str) -> Result<serde_json::Value> {
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM, query]).env("PYTHONPATH", &self.packages);
        let output = python.output().await.context("running python3")?;
        if !output.status.success() {
            bail!("{query}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("reading the rows that DuckDB printed")
    }
}
