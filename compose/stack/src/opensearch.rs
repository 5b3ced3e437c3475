//! OpenSearch: one real node, started from its Maven jars by a launcher of ours (`opensearch/src`).
//!
//! There is no security. Scripts, `_reindex` and `_update_by_query` are there. Indexes are made by any write (the
//! default of OpenSearch).

use crate::java::JavaPart;
use crate::search_node::{Choice, Kind, SearchNode};
use anyhow::{Result, bail};
use std::path::PathBuf;

const LIFE: (&str, &str) = ("tributary/stack/Life.java", include_str!("../opensearch/src/tributary/stack/Life.java"));
const SEGMENTATION: (&str, &str) =
    ("tributary/stack/Segmentation.java", include_str!("../opensearch/src/tributary/stack/Segmentation.java"));

static SOURCES_3: &[(&str, &str)] = &[
    LIFE,
    SEGMENTATION,
    ("tributary/stack/CommonAnalysis.java", include_str!("../opensearch/src/tributary/stack/CommonAnalysis.java")),
    ("tributary/stack/OpenSearchNode.java", include_str!("../opensearch/src/tributary/stack/OpenSearchNode.java")),
];

/// Modules have other names in version 2, and the node takes them otherwise.
static SOURCES_2: &[(&str, &str)] = &[
    LIFE,
    SEGMENTATION,
    ("tributary/stack/CommonAnalysis.java", include_str!("../opensearch/src-2/tributary/stack/CommonAnalysis.java")),
    ("tributary/stack/OpenSearchNode.java", include_str!("../opensearch/src-2/tributary/stack/OpenSearchNode.java")),
];

static PART_3: JavaPart = part("opensearch", include_str!("../opensearch/pom.xml"), SOURCES_3);
static PART_2: JavaPart = part("opensearch-2", include_str!("../opensearch/pom-2.xml"), SOURCES_2);

const fn part(name: &'static str, pom: &'static str, sources: &'static [(&'static str, &'static str)]) -> JavaPart {
    JavaPart {
        name,
        pom,
        sources,
        main_class: "tributary.stack.OpenSearchNode",
        options: &[
            "-Djna.nosys=true",
            "-Dlog4j.shutdownHookEnabled=false",
            "-Dlog4j2.disable.jmx=true",
            "-Dio.netty.noUnsafe=true",
        ],
    }
}

static KIND_3: Kind = kind_of(&PART_3);
static KIND_2: Kind = kind_of(&PART_2);

const fn kind_of(part: &'static JavaPart) -> Kind {
    Kind { part, settings_file: "opensearch.yml", arguments: &[], needs_zstd: false }
}

/// The newest version that the stack has.
pub(crate) const NEWEST: &str = "3";

/// What a node of this major version is made of.
pub(crate) fn kind(version: &str) -> Result<&'static Kind> {
    match version {
        NEWEST => Ok(&KIND_3),
        "2" => Ok(&KIND_2),
        _ => bail!("there is no OpenSearch {version} in the stack: 3 and 2 are there"),
    }
}

/// What kind of node to start.
#[derive(Clone, Debug)]
pub struct OpenSearchOptions {
    /// The major version: `3` or `2`.
    pub version: String,
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

impl Default for OpenSearchOptions {
    fn default() -> Self {
        OpenSearchOptions {
            version: NEWEST.to_owned(),
            port: None,
            data_dir: None,
            heap: "1g".to_owned(),
            jvm: Vec::new(),
            settings: Vec::new(),
        }
    }
}

/// An OpenSearch node. Dropping it kills the node, and removes the data folder unless one was given.
#[derive(Debug)]
pub struct OpenSearch {
    node: SearchNode,
}

impl OpenSearch {
    /// Fetches the jars if needed, starts the node and waits until its cluster is at least yellow.
    ///
    /// # Errors
    /// If something cannot be fetched, or the node does not start; the error shows the end of its log.
    pub async fn start(options: OpenSearchOptions) -> Result<OpenSearch> {
        let OpenSearchOptions { version, port, data_dir, heap, jvm, settings } = options;
        let choice = Choice { port, data_dir, heap, jvm, settings };
        Ok(OpenSearch { node: Box::pin(SearchNode::start(kind(&version)?, &choice)).await? })
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
    /// As [`OpenSearch::stop`] and [`OpenSearch::start_again`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }
}
