//! Events for sinks, and databases that they go to.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tributary_event::Op;
use tributary_processor::sink::OutEvent;
use tributary_stack::{Postgres, PostgresOptions};
use tributary_transport::TopicPartition;

/// No condition takes longer, unless it is never met.
const PATIENCE: Duration = Duration::from_secs(120);

/// An event of a stream, without a row.
pub fn event(sequence: u64) -> OutEvent {
    OutEvent {
        id: sequence.to_string(),
        source: "/films/main".into(),
        kind: "orders.shipped".into(),
        op: Op::Update,
        sequence,
        committed_us: Some(1_614_265_330_250_000),
        key: Some(format!("{{\"id\":{sequence}}}").into()),
        content: Some(format!("{{\"id\":{sequence},\"status\":\"shipped\"}}").into()),
        row_key: None,
    }
}

/// An event of a row: its key, and its columns if it was not deleted.
pub fn row(sequence: u64, key: &str, columns: Option<&str>) -> OutEvent {
    let op = if columns.is_some() { Op::Update } else { Op::Delete };
    let content = columns.map(|columns| columns.to_owned().into());
    OutEvent { op, content, row_key: Some(key.to_owned().into()), ..event(sequence) }
}

/// A truncate of the events' table.
pub fn truncate(sequence: u64) -> OutEvent {
    OutEvent { op: Op::Truncate, key: None, content: None, ..event(sequence) }
}

/// A partition of a topic.
pub fn place(partition: u32) -> TopicPartition {
    TopicPartition { topic: "films.orders".into(), partition }
}

/// A database of its own, dropped by nobody: it goes with the server, or with the shared server's folder.
pub struct Database {
    pub url: String,
    pub sql: Client,
    _server: Option<Arc<Postgres>>,
}

/// The server of the tests that run now, where `TRIBUTARY_TEST_POSTGRES` names none.
static SERVER: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

impl Database {
    pub async fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sinks_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let (server, url) = match std::env::var("TRIBUTARY_TEST_POSTGRES") {
            Ok(url) => (None, url),
            Err(_) => {
                let mut running = SERVER.lock().await;
                let server = match running.upgrade() {
                    Some(server) => server,
                    None => {
                        let options = PostgresOptions { fsync: false, ..PostgresOptions::default() };
                        let server = Arc::new(Postgres::start(options).await.expect("PostgreSQL starts"));
                        *running = Arc::downgrade(&server);
                        server
                    }
                };
                let url = server.server_url();
                (Some(server), url)
            }
        };
        let url = |name: &str| format!("{}/{name}", url.trim_end_matches('/'));
        let admin = connect(&url("postgres")).await;
        // An earlier process may have had the same number, and a server of its own.
        admin.batch_execute(&format!("drop database if exists {name} with (force)")).await.expect("dropped");
        admin.batch_execute(&format!("create database {name}")).await.expect("a database");
        Self { url: url(&name), sql: connect(&url(&name)).await, _server: server }
    }

    pub async fn run(&self, statements: &str) {
        self.sql.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// The answer of a query as the text of each row, values parted by `|`.
    pub async fn rows(&self, query: &str) -> Vec<String> {
        let messages = self.sql.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                let values: Vec<&str> = (0..row.len()).map(|n| row.get(n).unwrap_or("-")).collect();
                Some(values.join("|"))
            }
            _ => None,
        };
        messages.into_iter().filter_map(row).collect()
    }

    /// Waits until a query answers at least one row.
    pub async fn until(&self, query: &str) -> String {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE, "never answered: {query}");
            if let Some(row) = self.rows(query).await.into_iter().next() {
                return row;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
