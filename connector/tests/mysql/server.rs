//! A database for one test, on one of the servers.

use std::sync::atomic::{AtomicU32, Ordering};

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts};
use tokio::sync::Mutex;
use tributary_connector::{ConnectorSettings, MySqlSettings, SourceSettings};
use tributary_event::TableName;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

/// A database of its own, with a session in it.
pub struct Database {
    pub name: String,
    pub url: String,
    pub is_mariadb: bool,
    pub sql: Conn,
}

/// Tests that need what the log tells of tables to be so and not otherwise: that is a setting of the whole server.
pub static METADATA: Mutex<()> = Mutex::const_new(());

/// The servers that are there.
fn servers() -> Vec<(bool, String)> {
    let variables = [(false, "TRIBUTARY_TEST_MYSQL"), (true, "TRIBUTARY_TEST_MARIADB")];
    let found = variables.map(|(is_mariadb, variable)| {
        let url = std::env::var(variable).ok();
        if url.is_none() {
            eprintln!("NOT TESTED: {variable} is not set");
        }
        url.map(|url| (is_mariadb, url))
    });
    found.into_iter().flatten().collect()
}

/// A database in each of the servers that are there.
pub async fn databases(test: &str) -> Vec<Database> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mut all = Vec::new();
    for (is_mariadb, server) in servers() {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}_{test}", std::process::id());
        let mut admin = session(&server).await;
        admin.query_drop(format!("create database {name} character set utf8mb4")).await.expect("a database");
        admin.query_drop(format!("use {name}")).await.expect("a database");
        admin.query_drop("set time_zone = '+00:00', sql_mode = ''").await.expect("settings");
        all.push(Database { name, url: server, is_mariadb, sql: admin });
    }
    all
}

/// A session.
pub async fn session(url: &str) -> Conn {
    Conn::new(Opts::from_url(url).expect("a URL")).await.expect("connects")
}

pub async fn run(sql: &mut Conn, statement: &str) {
    sql.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
}

impl Database {
    pub async fn run(&mut self, statement: &str) {
        run(&mut self.sql, statement).await;
    }

    pub async fn rows<T: FromRow + Send + 'static>(&mut self, query: &str) -> Vec<T> {
        self.sql.query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"))
    }

    /// Whether the server knows a type: MariaDB has vectors from 11.7 on.
    pub async fn knows(&mut self, kind: &str) -> bool {
        if !kind.starts_with("vector") || !self.is_mariadb {
            return true;
        }
        let version: Vec<String> = self.rows("select version()").await;
        let mut numbers = version[0].split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or_default());
        (numbers.next(), numbers.next()) >= (Some(11), Some(7))
    }

    /// Runs a statement that must fail.
    pub async fn refuses(&mut self, statement: &str) {
        assert!(self.sql.query_drop(statement).await.is_err(), "{statement} is allowed");
    }

    pub fn settings(&self, tables: &[&str]) -> ConnectorSettings {
        let tables: Vec<TableName> = tables.iter().map(|table| TableName::new(self.name.as_str(), *table)).collect();
        ConnectorSettings::mysql(&self.name, self.url.as_str().into(), tables)
    }

    pub async fn remove(mut self) {
        let name = self.name.clone();
        self.run(&format!("drop database {name}")).await;
        self.sql.disconnect().await.expect("disconnects");
    }
}

pub fn mysql_mut(settings: &mut ConnectorSettings) -> &mut MySqlSettings {
    let SourceSettings::MySql(mysql) = &mut settings.source else { panic!("a MySQL source") };
    mysql
}

/// The products that tests run on, of which each may start servers of its own.
pub fn products() -> Vec<MySqlProduct> {
    servers().into_iter().map(|(is_mariadb, _)| product(is_mariadb)).collect()
}

pub fn product(is_mariadb: bool) -> MySqlProduct {
    if is_mariadb { MySqlProduct::MariaDb } else { MySqlProduct::MySql }
}

/// A server of its own, with settings, the database `films`, and a session in it.
pub async fn start(product: MySqlProduct, settings: &[(&str, &str)]) -> (MySql, Conn) {
    start_with(product, settings, false).await
}

/// The same, with plugins that are in a package of their own, if there is one.
pub async fn start_with(product: MySqlProduct, settings: &[(&str, &str)], further_plugins: bool) -> (MySql, Conn) {
    let version = product.newest().expect("a version that this machine can have");
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = MySqlOptions { fsync: false, further_plugins, settings, ..MySqlOptions::of(product, version) };
    let server = MySql::start(options).await.expect("a server");
    let mut sql = session(&server.url("mysql")).await;
    run(&mut sql, "create database films").await;
    run(&mut sql, "use films").await;
    (server, sql)
}

/// A source of tables of `films`.
pub fn films(url: &str, tables: &[&str]) -> ConnectorSettings {
    let tables: Vec<TableName> = tables.iter().map(|table| TableName::new("films", *table)).collect();
    ConnectorSettings::mysql("films", url.into(), tables)
}

/// A database in each server that lets tables with and without transactions be changed together: MySQL with GTIDs does not.
pub async fn without_gtids(test: &str) -> Vec<(Database, Option<MySql>)> {
    let mut all = Vec::new();
    for db in databases(test).await {
        if db.is_mariadb {
            all.push((db, None));
            continue;
        }
        let off = [("gtid-mode", "OFF"), ("enforce-gtid-consistency", "OFF")];
        let (server, sql) = start(MySqlProduct::MySql, &off).await;
        let own = Database { name: "films".to_owned(), url: server.server_url(), is_mariadb: false, sql };
        all.push((own, Some(server)));
        db.remove().await;
    }
    all
}
