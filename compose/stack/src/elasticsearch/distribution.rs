//! Elasticsearch 8: its own distribution from Maven, with security and TLS, but without most modules; what is missing of
//! them comes as a plugin of ours.
//!
//! It refuses to run as root, and its Java needs a module that small runtimes lack.

use crate::java::launcher::{self, Sources};
use crate::java::{find_complete, maven};
use crate::search_node::{self, Choice, LOGGING, SearchNode, write};
use crate::server::account::{self, Account};
use crate::server::port;
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use crate::server::{Launch, Server};
use anyhow::{Context as _, Result};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

const VERSION: &str = "8.19.21";

/// The distribution runs on Java 17 or newer.
const OLDEST_JAVA: u32 = 17;

const PLUGIN: Sources = Sources {
    name: "elasticsearch-8-plugin",
    pin: VERSION,
    release: "17",
    files: &[
        (
            "tributary/stack/AbsentModules.java",
            include_str!("../../elasticsearch/src-8/tributary/stack/AbsentModules.java"),
        ),
        ("tributary/stack/Email.java", include_str!("../../elasticsearch/src-8/tributary/stack/Email.java")),
        ("tributary/stack/Root.java", include_str!("../../elasticsearch/src/tributary/stack/Root.java")),
        ("tributary/stack/English.java", include_str!("../../elasticsearch/src/tributary/stack/English.java")),
    ],
};

/// [`Security::USER`] as the file realm keeps it: the password's bcrypt hash, of the least cost.
const USERS: &str = "tributary:$2a$04$xCiZ1q8cQr7uq4F382mq/.ISzp4VJPooHDzlpeKaYxe1QbCwqEf8a\n";
const ROLES: &str = "superuser:tributary\n";

/// A node that speaks only TLS, and only with those who say who they are: its user, and the holders of API keys.
#[derive(Clone, Debug)]
pub struct Security {
    /// The node's certificate, and those between it and its authority, as PEM.
    pub certificate: String,
    /// The certificate's key, as PEM.
    pub key: String,
}

impl Security {
    /// The user that the node knows, who may do everything.
    pub const USER: &str = "tributary";
    /// That user's password.
    pub const PASSWORD: &str = "tributary-test";
}

/// The unpacked distribution with our plugin in it, and where its Java is.
pub(crate) async fn install() -> Result<(PathBuf, PathBuf)> {
    let runtime = find_complete(OLDEST_JAVA, "jdk.jlink")?;
    let artifact = format!("org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip");
    let home = maven::unpack(&format!("elasticsearch-{VERSION}"), &artifact).await?;
    let home = home.join(format!("elasticsearch-{VERSION}"));
    let jar = launcher::compile(&PLUGIN, &runtime, &maven::list(&home)?).await?;
    let plugin = home.join("plugins/absent-modules");
    std::fs::create_dir_all(&plugin).with_context(|| format!("making {}", plugin.display()))?;
    let descriptor = format!(
        "name=absent-modules\ndescription=what the distribution lacks\nversion=1\njava.version={}\n\
         elasticsearch.version={VERSION}\nclassname=tributary.stack.AbsentModules\n",
        PLUGIN.release
    );
    put(&plugin.join("plugin-descriptor.properties"), descriptor.as_bytes())?;
    put(
        &plugin.join("absent-modules.jar"),
        &std::fs::read(&jar).with_context(|| format!("reading {}", jar.display()))?,
    )?;
    let java_home = runtime.java.ancestors().nth(2).context("Java lies in no home")?.to_owned();
    Ok((home, java_home))
}

/// Writes a file of the plugin unless it is there: other nodes may be reading it.
fn put(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    std::fs::write(&partial, content).with_context(|| format!("writing {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("putting {} in its place", path.display()))
}

pub(crate) async fn start(choice: &Choice, security: Option<&Security>) -> Result<SearchNode> {
    let (home, java_home) = install().await?;
    let account = account::unprivileged();
    let folder = RunFolder::make("elasticsearch-8", account).await?;
    let (port, transport) = (port::take(choice.port)?, port::take(None)?);
    let (data, config) = search_node::folders(choice, &folder.path, account)?;
    let mut settings = search_node::settings(&port, &transport, &data, &choice.settings)?;
    let _ = writeln!(settings, "path.logs: {}", serde_json::to_string(&folder.path.join("logs"))?);
    let _ = writeln!(settings, "xpack.security.enabled: {}", security.is_some());
    if let Some(Security { certificate, key }) = security {
        settings.push_str(
            "xpack.security.http.ssl: { enabled: true, certificate: node.crt, key: node.key, client_authentication: none }\n",
        );
        give(&config, "node.crt", certificate, account)?;
        give(&config, "node.key", key, account)?;
        give(&config, "users", USERS, account)?;
        give(&config, "users_roles", ROLES, account)?;
    }
    give(&config, "elasticsearch.yml", &settings, account)?;
    give(&config, "log4j2.properties", LOGGING, account)?;
    give(&config, "jvm.options", &java_options(choice), account)?;

    let mut arguments: Vec<OsString> = [("ES_JAVA_HOME", &java_home), ("ES_PATH_CONF", &config), ("ES_TMPDIR", &data)]
        .iter()
        .map(|(name, value)| format!("{name}={}", value.display()).into())
        .collect();
    arguments.extend(["ES_JAVA_OPTS=".into(), home.join("bin/elasticsearch").into_os_string()]);
    let launch = Launch { program: "/usr/bin/env".into(), arguments, account, stop: Signal::TERM };
    let (scheme, probe) = match security {
        None => ("http", Probe::Http(search_node::health(&port))),
        Some(_) => ("https", Probe::Port(port.number)),
    };
    let server = Server::start("elasticsearch-8", launch, probe, folder).await?;
    Ok(SearchNode::of(server, scheme, port, transport))
}

fn java_options(choice: &Choice) -> String {
    let heap = &choice.heap;
    let ours =
        [format!("-Xms{heap}"), format!("-Xmx{heap}"), "-XX:+UseSerialGC".into(), "-XX:TieredStopAtLevel=1".into()];
    ours.iter().chain(&choice.jvm).map(|option| format!("{option}\n")).collect()
}

/// A file of the configuration, the server's own.
fn give(config: &Path, name: &str, text: &str, account: Option<Account>) -> Result<()> {
    let path = config.join(name);
    write(&path, text)?;
    account::give(&path, account)
}
