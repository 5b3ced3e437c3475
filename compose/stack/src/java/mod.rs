//! Parts that run on Java: their jars, our launchers for them, and the command line.

mod class_data;
pub(crate) mod launcher;
pub(crate) mod maven;
mod runtime;
mod wheel;

use crate::cache::artifact;
use crate::server::Launch;
use anyhow::Result;
pub(crate) use runtime::{Runtime, find_complete, find_or_fetch};
use rustix::process::Signal;
use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use class_data::{ClassData, claim as claim_class_data};

/// How one part is made from Maven's jars.
#[derive(Debug)]
pub(crate) struct JavaPart {
    /// The part's name in messages and in the cache.
    pub(crate) name: &'static str,
    /// The Maven project that pins its jars.
    pub(crate) pom: &'static str,
    /// Our own sources as (path, text); empty when the jars hold a main class that suits.
    pub(crate) sources: &'static [(&'static str, &'static str)],
    /// The class to run.
    pub(crate) main_class: &'static str,
    /// Options of the Java runtime that the part always needs.
    pub(crate) options: &'static [&'static str],
}

/// A part that is ready to run.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    runtime: Runtime,
    jars: Vec<PathBuf>,
    part: &'static JavaPart,
}

impl JavaPart {
    /// Fetches and compiles whatever is not in the cache.
    pub(crate) async fn install(&'static self) -> Result<Installation> {
        let runtime = runtime::find_or_fetch().await?;
        let folder = maven::fetch(self.name, self.pom).await?;
        let mut jars = maven::list(&folder)?;
        if !self.sources.is_empty() {
            let Self { name, pom: pin, sources: files, .. } = *self;
            let sources = launcher::Sources { name, pin, release: "21", files };
            jars.insert(0, launcher::compile(&sources, &runtime, &jars).await?);
        }
        Ok(Installation { runtime, jars, part: self })
    }
}

impl Installation {
    /// The part's main class with these arguments; `heap` is a size such as `512m`.
    pub(crate) fn launch(
        &self,
        heap: &str,
        class_data: &ClassData,
        options: &[String],
        arguments: &[OsString],
    ) -> Launch {
        let mut line = self.line(heap);
        line.extend(class_data.option());
        line.extend(options.iter().map(OsString::from));
        line.extend(["-cp".into(), self.class_path(), self.part.main_class.into()]);
        line.extend(arguments.iter().cloned());
        Launch { program: self.runtime.java.clone(), arguments: line, account: None, stop: Signal::TERM }
    }

    /// Another main class of the same jars, as a server.
    pub(crate) fn launch_class(&self, class: &str, heap: &str, options: &[String], arguments: &[OsString]) -> Launch {
        let mut line = self.line(heap);
        line.extend(options.iter().map(OsString::from));
        line.extend(["-cp".into(), self.class_path(), class.into()]);
        line.extend(arguments.iter().cloned());
        Launch { program: self.runtime.java.clone(), arguments: line, account: None, stop: Signal::TERM }
    }

    /// A command that runs another main class of the same jars to its end.
    pub(crate) fn tool(&self, class: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.runtime.java);
        command.args(self.line("256m")).arg("-cp").arg(self.class_path()).arg(class);
        command
    }

    /// What the class-data archive depends on.
    fn fingerprint(&self) -> String {
        let class_path = self.class_path();
        artifact::hash(&[&self.runtime.version, &self.runtime.java.to_string_lossy(), &class_path.to_string_lossy()])
    }

    fn line(&self, heap: &str) -> Vec<OsString> {
        let mut line: Vec<OsString> = [
            &format!("-Xmx{heap}"),
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "--enable-native-access=ALL-UNNAMED",
        ]
        .map(OsString::from)
        .into();
        if self.runtime.feature >= 23 {
            line.push("--sun-misc-unsafe-memory-access=allow".into());
        }
        line.extend(self.part.options.iter().map(OsString::from));
        line
    }

    fn class_path(&self) -> OsString {
        launcher::join(&self.jars)
    }
}
