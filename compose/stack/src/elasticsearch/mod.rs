//! Elasticsearch: one real node. Version 9 is started from its Maven jars by a launcher of ours (`elasticsearch/src`), 8 as
//! its own [`distribution`].
//!
//! There are no scripts, no `_reindex` and no `_update_by_query`: those modules are not published. Security is there in 8.

mod distribution;

use crate::java::JavaPart;
use crate::search_node::{self, Choice, Kind, SearchNode};
use anyhow::{Result, anyhow, bail};
pub use distribution::Security;
use std::path::PathBuf;

static PART: JavaPart = JavaPart {
    name: "elasticsearch",
    pom: include_str!("../../elasticsearch/pom.xml"),
    sources: &[
        (
            "org/elasticsearch/node/ClasspathNode.java",
            include_str!("../../elasticsearch/src/org/elasticsearch/node/ClasspathNode.java"),
        ),
        (
            "org/elasticsearch/plugins/ClasspathPluginsService.java",
            include_str!("../../elasticsearch/src/org/elasticsearch/plugins/ClasspathPluginsService.java"),
        ),
        (
            "tributary/stack/AbsentModules.java",
            include_str!("../../elasticsearch/src/tributary/stack/AbsentModules.java"),
        ),
        ("tributary/stack/Root.java", include_str!("../../elasticsearch/src/tributary/stack/Root.java")),
        ("tributary/stack/English.java", include_str!("../../elasticsearch/src/tributary/stack/English.java")),
    ],
    main_class: "org.elasticsearch.node.ClasspathNode",
    options: &["-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false"],
};

static KIND: Kind = Kind {
    part: &PART,
    settings_file: "elasticsearch.yml",
    arguments: &["org.elasticsearch.transport.netty4.Netty4Plugin", "tributary.stack.AbsentModules"],
    needs_zstd: true,
};

/// The newest version that the stack has.
pub(crate) const NEWEST: &str = "9";

/// Fetches what a node of this major version needs.
pub(crate) async fn install(version: &str) -> Result<()> {
    match version {
        NEWEST => Box::pin(search_node::install(&KIND)).await.map(drop),
        OLDEST => distribution::install().await.map(drop),
        _ => Err(unknown(version)),
    }
}

/// The oldest version that the stack has.
const OLDEST: &str = "8";

fn unknown(version: &str) -> anyhow::Error {
    anyhow!("there is no Elasticsearch {version} in the stack: {NEWEST} and {OLDEST} are there")
}

/// What kind of node to start.
#[derive(Clone, Debug)]
pub struct ElasticsearchOptions {
    /// The major version: `9` or `8`.
    pub version: String,
    /// TLS and users; only version 8 has them.
    pub security: Option<Security>,
    /// The HTTP port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// The data folder, made if absent and left in place; `None` takes a fresh one that goes with the handle.
    pub data_dir: Option<PathBuf>,
    /// The Java heap, for example `1g`.
    pub heap: String,
    /// Further options of the Java machine; they win over ours.
    pub jvm: Vec<String>,
    /// Further settings of the node; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl Default for ElasticsearchOptions {
    fn default() -> Self {
        ElasticsearchOptions {
            version: NEWEST.to_owned(),
            security: None,
            port: None,
            data_dir: None,
            heap: "1g".to_owned(),
            jvm: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// An Elasticsearch node. Dropping it kills the node, and removes the data folder unless one was given.
#[derive(Debug)]
pub struct Elasticsearch {
    node: SearchNode,
}

impl Elasticsearch {
    /// Fetches the jars if needed, starts the node and waits until its cluster is at least yellow.
    ///
    /// # Errors
    /// If something cannot be fetched, or the node does not start; the error shows the end of its log.
    pub async fn start(options: ElasticsearchOptions) -> Result<Elasticsearch> {
        let ElasticsearchOptions { version, security, port, data_dir, heap, jvm, settings } = options;
        let choice = Choice { port, data_dir, heap, jvm, settings };
        let node = match version.as_str() {
            NEWEST if security.is_some() => {
                bail!("the stack's Elasticsearch {version} has no security: ask for {OLDEST}")
            }
            NEWEST => Box::pin(SearchNode::start(&KIND, &choice)).await?,
            OLDEST => Box::pin(distribution::start(&choice, security.as_ref())).await?,
            _ => return Err(unknown(&version)),
        };
        Ok(Elasticsearch { node })
    }

    /// The node's URL, for example `http://127.0.0.1:20001`.
    pub fn url(&self) -> String {
        self.node.url()
    }

    /// The HTTP port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.node.port()
    }

    /// The file that the node logs to.
    pub fn log(&self) -> PathBuf {
        self.node.server.log()
    }

    /// The number of the node's process while it runs, to measure it.
    pub async fn pid(&self) -> Option<u32> {
        self.node.server.pid().await
    }

    /// Stops the node in good order.
    ///
    /// # Errors
    /// If the process neither stops nor can be killed.
    pub async fn stop(&self) -> Result<()> {
        self.node.server.stop().await
    }

    /// Ends the node with SIGKILL.
    ///
    /// # Errors
    /// If the process does not go away.
    pub async fn kill(&self) -> Result<()> {
        self.node.server.kill().await
    }

    /// Lets the node stand still, as a machine that is suspended does.
    pub async fn pause(&self) {
        self.node.server.pause().await;
    }

    /// Lets what was paused go on.
    pub async fn resume(&self) {
        self.node.server.resume().await;
    }

    /// Starts the node again on the same port and data, unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start; the error shows the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        self.node.server.start_again().await
    }

    /// Stops the node in good order and starts it again.
    ///
    /// # Errors
    /// As [`Elasticsearch::stop`] and [`Elasticsearch::start_again`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }
}
