//! The second of the demo's graphs: movies and their talents, and the deals that vendors made over them. Films and contracts lie in one
//! database or in two, of PostgreSQL, MySQL or MariaDB; the graph is the same.

mod database;
mod fill;
mod graph;
mod truth;

use std::net::SocketAddr;

use anyhow::Context as _;
use async_graphql_axum::GraphQL;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use database::Database;
pub use fill::fill;
pub use truth::documents;

/// Where the graph has its rows.
#[derive(Debug, Clone)]
pub struct Databases {
    /// Movies and talents.
    pub films: Database,
    /// Vendors and deals.
    pub contracts: Database,
}

/// A running service. Dropping it stops it.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Service {
    /// Listens and serves.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(databases: Databases, listen: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
        let address = listener.local_addr()?;
        let router = axum::Router::new().route_service("/graphql", GraphQL::new(graph::schema(databases)));
        let task = tokio::spawn(async move {
            // Serving has no error of its own: accepting is tried again, a broken connection concerns its client alone.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, task })
    }

    /// Where GraphQL is served.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/graphql", self.address)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}
