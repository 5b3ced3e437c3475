//! Databases that sinks write to: one of each kind of server, which is started when a test asks for it first.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mysql_async::consts::ColumnType;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Value};
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use tributary_stack::{MySql, MySqlOptions, MySqlProduct, Postgres, PostgresOptions};

/// No condition takes longer, unless it is never met.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often conditions are looked at, by all tests together: what MySQL tells of transactions stays as it is while anybody asks more often
/// than each 100 ms.
const PAUSE: Duration = Duration::from_millis(150);

/// Whoever has it may look once.
static TURN: Mutex<()> = Mutex::const_new(());

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    MySql,
    MariaDb,
}

/// The same tests on each kind of server that can be had.
macro_rules! on_every_database {
    ($($test:ident),* $(,)?) => {
        mod postgres { crate::sql::database::on_every_database!(@ Postgres, $($test),*); }
        mod mysql { crate::sql::database::on_every_database!(@ MySql, $($test),*); }
        mod mariadb { crate::sql::database::on_every_database!(@ MariaDb, $($test),*); }
    };
    (@ $kind:ident, $($test:ident),*) => {
        $(
            #[tokio::test]
            async fn $test() {
                if let Some(database) = crate::sql::database::Database::of(crate::sql::database::Kind::$kind).await {
                    Box::pin(super::$test(database)).await;
                }
            }
        )*
    };
}

/// The same tests on MySQL and MariaDB.
macro_rules! on_mysql_and_mariadb {
    ($($test:ident),* $(,)?) => {
        mod mysql { crate::sql::database::on_every_database!(@ MySql, $($test),*); }
        mod mariadb { crate::sql::database::on_every_database!(@ MariaDb, $($test),*); }
    };
}

pub(crate) use {on_every_database, on_mysql_and_mariadb};

/// A server that runs.
enum Server {
    Postgres(Postgres),
    MySql(MySql),
}

impl Server {
    async fn start(kind: Kind) -> Self {
        let product = match kind {
            Kind::Postgres => {
                let options = PostgresOptions { fsync: false, ..PostgresOptions::default() };
                return Self::Postgres(Postgres::start(options).await.expect("PostgreSQL starts"));
            }
            Kind::MySql => MySqlProduct::MySql,
            Kind::MariaDb => MySqlProduct::MariaDb,
        };
        let version = product.newest().expect("a version");
        let options = MySqlOptions { fsync: false, ..MySqlOptions::of(product, version) };
        Self::MySql(MySql::start(options).await.expect("a server starts"))
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.server_url(),
            Self::MySql(server) => server.server_url(),
        }
    }
}

/// The servers of the tests that run now, where no variable names one.
static SERVERS: [Mutex<Weak<Server>>; 3] =
    [Mutex::const_new(Weak::new()), Mutex::const_new(Weak::new()), Mutex::const_new(Weak::new())];

/// A connection of a test's own.
pub enum Connection {
    Postgres(Client),
    MySql(Mutex<Conn>),
}

pub async fn connect(url: &str) -> Connection {
    if url.starts_with("mysql:") {
        let connection = Conn::new(Opts::from_url(url).expect("a URL")).await.expect("connects");
        return Connection::MySql(Mutex::new(connection));
    }
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Connection::Postgres(client)
}

impl Connection {
    pub async fn run(&self, statements: &str) {
        match self {
            Self::Postgres(client) => {
                client.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
            }
            Self::MySql(connection) => {
                let mut connection = connection.lock().await;
                connection.query_drop(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
            }
        }
    }

    /// The answer of a query as the text of each row, values parted by `|`.
    pub async fn rows(&self, query: &str) -> Vec<String> {
        match self {
            Self::Postgres(client) => {
                let messages = client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
                let row = |message| match message {
                    SimpleQueryMessage::Row(row) => {
                        let values: Vec<&str> = (0..row.len()).map(|n| row.get(n).unwrap_or("-")).collect();
                        Some(values.join("|"))
                    }
                    _ => None,
                };
                messages.into_iter().filter_map(row).collect()
            }
            Self::MySql(connection) => {
                let mut connection = connection.lock().await;
                let rows: Vec<mysql_async::Row> =
                    connection.query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
                rows.into_iter().map(told).collect()
            }
        }
    }
}

/// A row as PostgreSQL would tell it.
fn told(row: mysql_async::Row) -> String {
    let value = |n: usize| {
        let column = &row.columns_ref()[n];
        let is_boolean = column.column_type() == ColumnType::MYSQL_TYPE_TINY && column.column_length() == 1;
        match row.as_ref(n) {
            Some(Value::Bytes(bytes)) if is_boolean => if bytes == b"0" { "f" } else { "t" }.to_owned(),
            Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => "-".to_owned(),
        }
    };
    (0..row.len()).map(value).collect::<Vec<_>>().join("|")
}

/// A database of its own, dropped by nobody: it goes with the server, or with the shared server's folder.
pub struct Database {
    pub kind: Kind,
    pub url: String,
    pub sql: Connection,
    name: String,
    _server: Option<Arc<Server>>,
}

impl Database {
    /// A database of this kind; none: no server of it can be had here, which is said.
    pub async fn of(kind: Kind) -> Option<Self> {
        let product = match kind {
            Kind::Postgres => return Some(Self::create(kind).await),
            Kind::MySql => MySqlProduct::MySql,
            Kind::MariaDb => MySqlProduct::MariaDb,
        };
        let without = std::env::var("TRIBUTARY_TEST_WITHOUT").unwrap_or_default();
        let word = product.to_string().to_lowercase();
        let cause = match without.split(',').any(|part| part.trim() == word) {
            true => Some("it is left out by TRIBUTARY_TEST_WITHOUT"),
            false => product.left_out(),
        };
        if let Some(cause) = cause {
            eprintln!("NOT TESTED: {product}: {cause}");
            return None;
        }
        Some(Self::create(kind).await)
    }

    async fn create(kind: Kind) -> Self {
        let (variable, place) = match kind {
            Kind::Postgres => ("TRIBUTARY_TEST_POSTGRES", 0),
            Kind::MySql => ("TRIBUTARY_TEST_MYSQL", 1),
            Kind::MariaDb => ("TRIBUTARY_TEST_MARIADB", 2),
        };
        let (server, url) = match std::env::var(variable) {
            Ok(url) => (None, url),
            Err(_) => {
                let mut running = SERVERS[place].lock().await;
                let server = match running.upgrade() {
                    Some(server) => server,
                    None => {
                        let server = Arc::new(Server::start(kind).await);
                        *running = Arc::downgrade(&server);
                        server
                    }
                };
                let url = server.url();
                (Some(server), url)
            }
        };
        Self { _server: server, ..Self::at(kind, &url).await }
    }

    /// A database at a server.
    pub async fn at(kind: Kind, server: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("sinks_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let url = |name: &str| format!("{}/{name}", server.trim_end_matches('/'));
        let (admin, force) = match kind {
            Kind::Postgres => (connect(&url("postgres")).await, "with (force)"),
            Kind::MySql | Kind::MariaDb => (connect(&url("mysql")).await, ""),
        };
        // An earlier process may have had the same number, and a server of its own.
        admin.run(&format!("drop database if exists {name} {force}")).await;
        admin.run(&format!("create database {name}")).await;
        Self { kind, url: url(&name), sql: connect(&url(&name)).await, name, _server: None }
    }

    /// The schema of its tables.
    pub fn schema(&self) -> &str {
        match self.kind {
            Kind::Postgres => "public",
            Kind::MySql | Kind::MariaDb => &self.name,
        }
    }

    pub async fn run(&self, statements: &str) {
        self.sql.run(statements).await;
    }

    /// The answer of a query as the text of each row, values parted by `|`.
    pub async fn rows(&self, query: &str) -> Vec<String> {
        self.sql.rows(query).await
    }

    /// Waits until a query answers at least one row.
    pub async fn until(&self, query: &str) -> String {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE, "never answered: {query}");
            let _turn = TURN.lock().await;
            tokio::time::sleep(PAUSE).await;
            if let Some(row) = self.rows(query).await.into_iter().next() {
                return row;
            }
        }
    }
}
