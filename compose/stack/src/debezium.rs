//! Debezium Server, for benchmarks and comparisons: its distribution from Maven, 780 MB, so no test waits for it.

use crate::java::{Runtime, find_or_fetch, maven};
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use crate::server::{Launch, Server};
use anyhow::{Context as _, Result};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const VERSION: &str = "3.6.0.Final";

/// A running Debezium Server. Dropping it kills it.
#[derive(Debug)]
pub struct Debezium {
    server: Server,
    _port: Port,
}

impl Debezium {
    /// Starts it with these settings, as its `application.properties` has them, and waits until it answers; its connector may
    /// need longer. It gets a free port, and a folder for its offsets that goes with the handle.
    ///
    /// # Errors
    /// If its distribution cannot be fetched or it does not start.
    pub async fn start(settings: &[(String, String)]) -> Result<Self> {
        let home = fetch().await?;
        let runtime = find_or_fetch().await?;
        let folder = RunFolder::make("debezium", None).await?;
        let port = port::take(None)?;
        let offsets = folder.path.join("offsets.dat");
        let mut text = format!(
            "quarkus.http.port={}\nquarkus.http.host=127.0.0.1\nquarkus.log.console.json=false\n\
             debezium.source.offset.storage.file.filename={}\n",
            port.number,
            offsets.display()
        );
        for (name, value) in settings {
            let _ = writeln!(text, "{name}={value}");
        }
        let config = folder.path.join("config");
        std::fs::create_dir(&config).with_context(|| format!("making {}", config.display()))?;
        let file = config.join("application.properties");
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let launch = launch(&runtime, &home, &folder.path)?;
        let probe = Probe::Http(format!("http://127.0.0.1:{}/q/health/live", port.number));
        Ok(Self { server: Server::start("debezium", launch, probe, folder).await?, _port: port })
    }

    /// The number of its process while it runs, to measure it.
    pub async fn pid(&self) -> Option<u32> {
        self.server.pid().await
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// If it neither stops nor can be killed.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop().await
    }
}

/// It reads `config/application.properties` below the folder that it runs in.
fn launch(runtime: &Runtime, home: &Path, folder: &Path) -> Result<Launch> {
    let runner = home.join(format!("debezium-server-dist-{VERSION}-runner.jar"));
    let class_path =
        std::env::join_paths([runner, folder.join("config"), home.join("lib/*")]).context("a class path")?;
    let arguments: Vec<OsString> = vec!["-cp".into(), class_path, "io.debezium.server.Main".into()];
    Ok(Launch { program: runtime.java.clone(), arguments, account: None, stop: Signal::TERM })
}

/// The unpacked distribution.
async fn fetch() -> Result<PathBuf> {
    let artifact = format!("io.debezium:debezium-server-dist:{VERSION}:tar.gz");
    Ok(maven::unpack(&format!("debezium-server-{VERSION}"), &artifact).await?.join("debezium-server"))
}
