//! Jars, fetched by Maven as a pinned project names them.

use crate::cache;
use crate::cache::artifact::{self, Claim};
use crate::server::command;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use tokio::process::Command;

const REMEDY: &str = "Maven is needed (apt-get install maven), and its repository must be reachable";

/// The folder of a project's jars, fetched if it is not in the cache. A changed project is another folder.
pub(super) async fn fetch(name: &str, pom: &str) -> Result<PathBuf> {
    match artifact::claim(&format!("jars/{name}-{}", artifact::hash(&[pom]))).await? {
        Claim::Present(path) => Ok(path),
        Claim::Absent(making) => {
            // Maven 3 does not guard its local repository against a second Maven.
            let _alone = cache::lock("maven").await?;
            eprintln!("fetching the jars of {name} with Maven");
            let folder = &making.partial;
            std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
            let project = folder.join("pom.xml");
            std::fs::write(&project, pom).with_context(|| format!("writing {}", project.display()))?;
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", "-f"]).arg(&project);
            maven.arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies");
            maven.arg(format!("-DoutputDirectory={}", folder.join("lib").display())).arg("-DincludeScope=runtime");
            maven.current_dir(folder);
            command::run(maven, REMEDY).await?;
            ensure!(!list(folder)?.is_empty(), "Maven copied no jars for {name}: see {}", project.display());
            making.finish()
        }
    }
}

/// The folder of a distribution, fetched and unpacked if it is not in the cache.
pub(crate) async fn unpack(name: &str, artifact: &str) -> Result<PathBuf> {
    match artifact::claim(name).await? {
        Claim::Present(path) => Ok(path),
        Claim::Absent(making) => {
            let _alone = cache::lock("maven").await?;
            eprintln!("fetching {name} with Maven");
            let folder = &making.partial;
            std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
            let mut maven = Command::new("mvn");
            // A distribution's parent project may be unpublished, which later versions of the plugin insist on.
            maven.args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:2.8:unpack"]);
            maven.arg(format!("-Dartifact={artifact}"));
            maven.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(folder);
            command::run(maven, REMEDY).await?;
            making.finish()
        }
    }
}

/// The jars in the folder `lib` of a fetched folder, in the same order on every machine.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let lib = folder.join("lib");
    let entries = std::fs::read_dir(&lib).with_context(|| format!("listing {}", lib.display()))?;
    let mut jars: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    jars.retain(|path| path.extension().is_some_and(|extension| extension == "jar"));
    jars.sort();
    Ok(jars)
}
