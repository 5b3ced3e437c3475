//! GraphQL servers that others wrote, over a PostgreSQL database: PostGraphile 4 and 5 and Platformatic, which read the
//! schema from the tables, and a subgraph of Apollo Federation over the tables of the tests.
//!
//! They are fetched with npm, for tests on a developer's machine; continuous integration does without them.

mod npm;

use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use crate::server::{Launch, Server};
use anyhow::Result;
use npm::Project;
use rustix::process::Signal;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A GraphQL server that others wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphqlProduct {
    /// PostGraphile 4: global ids in `nodeId`, connections, no list by ids.
    Postgraphile4,
    /// PostGraphile 4 with the plugin that gives its connections filters, among them lists of ids.
    Postgraphile4WithFilters,
    /// PostGraphile 5 with its preset Amber: global ids in `id`, keys in `rowId`, connections, no list by ids.
    Postgraphile5,
    /// Platformatic: plain lists with filters, of ten members unless a limit is given, of a hundred at most.
    Platformatic,
    /// Apollo Server with a subgraph of Apollo Federation.
    Apollo,
}

static POSTGRAPHILE_4: Project = Project {
    name: "postgraphile-4",
    package: include_str!("../../graphql/postgraphile-4/package.json"),
    lock: include_str!("../../graphql/postgraphile-4/package-lock.json"),
    program: None,
};

const POSTGRAPHILE_4_PROGRAM: &str = "node_modules/postgraphile/cli.js";

static POSTGRAPHILE_5: Project = Project {
    name: "postgraphile-5",
    package: include_str!("../../graphql/postgraphile-5/package.json"),
    lock: include_str!("../../graphql/postgraphile-5/package-lock.json"),
    program: None,
};

static PLATFORMATIC: Project = Project {
    name: "platformatic",
    package: include_str!("../../graphql/platformatic/package.json"),
    lock: include_str!("../../graphql/platformatic/package-lock.json"),
    program: Some(include_str!("../../graphql/platformatic/server.mjs")),
};

static APOLLO: Project = Project {
    name: "apollo",
    package: include_str!("../../graphql/apollo/package.json"),
    lock: include_str!("../../graphql/apollo/package-lock.json"),
    program: Some(include_str!("../../graphql/apollo/server.mjs")),
};

impl GraphqlProduct {
    /// All of them.
    pub const ALL: [GraphqlProduct; 5] =
        [Self::Postgraphile4, Self::Postgraphile4WithFilters, Self::Postgraphile5, Self::Platformatic, Self::Apollo];

    /// Why these servers cannot be had here, if so.
    pub fn left_out() -> Option<&'static str> {
        (!npm::is_there()).then_some("npm is not installed (apt-get install npm)")
    }

    fn project(self) -> &'static Project {
        match self {
            Self::Postgraphile4 | Self::Postgraphile4WithFilters => &POSTGRAPHILE_4,
            Self::Postgraphile5 => &POSTGRAPHILE_5,
            Self::Platformatic => &PLATFORMATIC,
            Self::Apollo => &APOLLO,
        }
    }

    /// What Node.js runs, in the folder of the product's packages.
    fn arguments(self, packages: &Path, database_url: &str, port: u16) -> Vec<OsString> {
        let port = port.to_string();
        let plugin = packages.join("node_modules/postgraphile-plugin-connection-filter").into_os_string();
        let at = ["--connection", database_url, "--schema", "public", "--host", "127.0.0.1", "--port", &port];
        let owned = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let (program, options) = match self {
            Self::Postgraphile4 => (POSTGRAPHILE_4_PROGRAM, owned(&[&at[..], &["--disable-graphiql"]].concat())),
            Self::Postgraphile4WithFilters => {
                let options = owned(&[&at[..], &["--disable-graphiql", "--append-plugins"]].concat());
                (POSTGRAPHILE_4_PROGRAM, [options, vec![plugin]].concat())
            }
            Self::Postgraphile5 => {
                let options = owned(&[&["--preset", "postgraphile/presets/amber"], &at[..]].concat());
                ("node_modules/postgraphile/dist/cli-run.js", options)
            }
            Self::Platformatic | Self::Apollo => (npm::PROGRAM, owned(&[database_url, &port])),
        };
        let program = packages.join(program).into_os_string();
        std::iter::once(program).chain(options).collect()
    }

    fn path(self) -> &'static str {
        if self == Self::Apollo { "" } else { "graphql" }
    }
}

impl std::fmt::Display for GraphqlProduct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Postgraphile4 => "PostGraphile 4",
            Self::Postgraphile4WithFilters => "PostGraphile 4 with filters",
            Self::Postgraphile5 => "PostGraphile 5",
            Self::Platformatic => "Platformatic",
            Self::Apollo => "Apollo Federation",
        })
    }
}

/// Fetches a product and what runs it.
pub(crate) async fn install(product: GraphqlProduct) -> Result<(PathBuf, PathBuf)> {
    Ok((npm::node().await?, product.project().fetch().await?))
}

/// A running GraphQL server. Dropping it kills it.
#[derive(Debug)]
pub struct GraphqlServer {
    server: Server,
    url: String,
    _port: Port,
}

impl GraphqlServer {
    /// Fetches the product if needed, starts it over the database, whose tables must be there, and waits until it answers.
    ///
    /// # Errors
    /// If something cannot be fetched, or the server does not start; the error shows the end of its log.
    pub async fn start(product: GraphqlProduct, database_url: &str) -> Result<Self> {
        let (node, packages) = install(product).await?;
        let project = product.project();
        let folder = RunFolder::make(project.name, None).await?;
        let port = port::take(None)?;
        let url = format!("http://127.0.0.1:{}/{}", port.number, product.path());
        let arguments = product.arguments(&packages, database_url, port.number);
        let launch = Launch { program: node, arguments, account: None, stop: Signal::TERM };
        let server = Server::start(project.name, launch, Probe::Graphql(url.clone()), folder).await?;
        Ok(Self { server, url, _port: port })
    }

    /// Where it is asked, for example `http://127.0.0.1:20001/graphql`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file that it logs to.
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// If it neither stops nor can be killed.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop().await
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// If the process does not go away.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Starts it again on the same port, unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start; the error shows the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        self.server.start_again().await
    }
}
