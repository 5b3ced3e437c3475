//! What Elasticsearch and OpenSearch have in common: one Java process, a home folder, an HTTP port.

use crate::java::{ClassData, Installation, JavaPart, claim_class_data};
use crate::server::Server;
use crate::server::account::{self, Account};
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub(crate) const LOGGING: &str = include_str!("../search-node/log4j2.properties");

/// What a node is made of, apart from its jars.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) part: &'static JavaPart,
    /// The settings file's name in the folder `config`.
    pub(crate) settings_file: &'static str,
    /// Arguments of the launcher after the home folder.
    pub(crate) arguments: &'static [&'static str],
    /// Whether the node wants the system's zstd library beside it.
    pub(crate) needs_zstd: bool,
}

/// What a caller may choose.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) port: Option<u16>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) heap: String,
    pub(crate) jvm: Vec<String>,
    pub(crate) settings: Vec<(String, String)>,
}

/// A running node.
#[derive(Debug)]
pub(crate) struct SearchNode {
    pub(crate) server: Server,
    scheme: &'static str,
    port: Port,
    _transport: Port,
}

impl SearchNode {
    pub(crate) async fn start(kind: &Kind, choice: &Choice) -> Result<SearchNode> {
        let (installation, class_data) = install(kind).await?;
        boot(kind, &installation, &class_data, choice).await
    }

    /// A node whose server runs.
    pub(crate) fn of(server: Server, scheme: &'static str, port: Port, transport: Port) -> SearchNode {
        SearchNode { server, scheme, port, _transport: transport }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port.number)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number
    }
}

/// Fetches what the node needs; the first time, it also starts a node once to record its class data.
pub(crate) async fn install(kind: &Kind) -> Result<(Installation, ClassData)> {
    let installation = kind.part.install().await?;
    let mut class_data = claim_class_data(&installation).await?;
    if class_data.records() {
        let choice =
            Choice { port: None, data_dir: None, heap: "1g".to_owned(), jvm: Vec::new(), settings: Vec::new() };
        let node = boot(kind, &installation, &class_data, &choice).await?;
        node.server.stop().await?;
        class_data = class_data.finish()?;
    }
    Ok((installation, class_data))
}

async fn boot(kind: &Kind, installation: &Installation, class_data: &ClassData, choice: &Choice) -> Result<SearchNode> {
    let folder = RunFolder::make(kind.part.name, None).await?;
    let (port, transport) = (port::take(choice.port)?, port::take(None)?);
    let (data, config) = folders(choice, &folder.path, None)?;
    write(&config.join("log4j2.properties"), LOGGING)?;
    write(&config.join(kind.settings_file), &settings(&port, &transport, &data, &choice.settings)?)?;

    let mut options = choice.jvm.clone();
    if kind.needs_zstd {
        options.push(format!("-Des.nativelibs.path={}", native_folder(&folder.path)?.display()));
    }
    let mut arguments: Vec<OsString> = vec![folder.path.clone().into_os_string()];
    arguments.extend(kind.arguments.iter().map(OsString::from));
    let launch = installation.launch(&choice.heap, class_data, &options, &arguments);
    let server = Server::start(kind.part.name, launch, Probe::Http(health(&port)), folder).await?;
    Ok(SearchNode::of(server, "http", port, transport))
}

/// Makes the folders of a node's data and of its configuration, which belong to the account it runs under.
pub(crate) fn folders(choice: &Choice, run: &Path, account: Option<Account>) -> Result<(PathBuf, PathBuf)> {
    let data = match &choice.data_dir {
        Some(path) => std::path::absolute(path)?,
        None => run.join("data"),
    };
    let config = run.join("config");
    for path in [&data, &config] {
        std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        account::give(path, account)?;
    }
    Ok((data, config))
}

/// What answers once the node's cluster is at least yellow.
pub(crate) fn health(port: &Port) -> String {
    format!("http://127.0.0.1:{}/_cluster/health?wait_for_status=yellow&timeout=3s", port.number)
}

/// The settings file; a setting of the caller replaces ours.
pub(crate) fn settings(http: &Port, transport: &Port, data: &Path, theirs: &[(String, String)]) -> Result<String> {
    let mut all: Vec<(String, String)> = [
        ("cluster.name", "tributary".to_owned()),
        ("node.name", "node-0".to_owned()),
        ("network.host", "127.0.0.1".to_owned()),
        ("http.port", http.number.to_string()),
        ("transport.port", transport.number.to_string()),
        ("path.data", data.display().to_string()),
        ("discovery.type", "single-node".to_owned()),
        // A developer's full disk would make every index read-only.
        ("cluster.routing.allocation.disk.threshold_enabled", "false".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    all.retain(|(name, _)| theirs.iter().all(|(other, _)| other != name));
    all.extend(theirs.iter().cloned());
    let mut text = String::new();
    for (name, value) in all {
        // A JSON string is a YAML scalar (YAML 1.2, section 1.2).
        writeln!(text, "{name}: {}", serde_json::to_string(&value)?)?;
    }
    Ok(text)
}

/// A folder with `libzstd.so`, as Elasticsearch looks it up; the system has it under its versioned name.
fn native_folder(run: &Path) -> Result<PathBuf> {
    let architecture = std::env::consts::ARCH;
    let places = [format!("/usr/lib/{architecture}-linux-gnu"), "/usr/lib64".to_owned(), "/usr/lib".to_owned()];
    let library = places.iter().map(|place| Path::new(place).join("libzstd.so.1")).find(|path| path.exists());
    let library = library.context("libzstd.so.1 is not in the system's library folders: apt-get install libzstd1")?;
    let folder = run.join("native");
    std::fs::create_dir_all(&folder)?;
    std::os::unix::fs::symlink(library, folder.join("libzstd.so"))?;
    Ok(folder)
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
