//! MySQL and MariaDB start, answer, are killed, start again on the same port with the same data, and stop.

use super::servers::{left_out, seconds};
use anyhow::{Result, ensure};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use std::time::Instant;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

/// The version to test, unless there is none here.
fn version(product: MySqlProduct) -> Option<&'static str> {
    if let Some(cause) = product.left_out() {
        eprintln!("NOT TESTED: {product}: {cause}");
    }
    product.newest().filter(|_| !left_out(&product.to_string().to_lowercase()))
}

async fn query(url: &str, sql: &str) -> Result<Vec<String>> {
    let mut connection = Conn::new(Opts::from_url(url)?).await?;
    let rows = connection.query(sql).await?;
    connection.disconnect().await?;
    Ok(rows)
}

async fn keeps_committed_rows_over_kill_and_restart(product: MySqlProduct, version: &str) -> Result<()> {
    let begin = Instant::now();
    let server = MySql::start(MySqlOptions::of(product, version)).await?;
    seconds(&format!("{product} {version} started"), begin);
    let url = server.url("mysql");
    let told = query(&url, "SELECT version()").await?;
    ensure!(told.iter().all(|told| told.starts_with(version)), "{told:?} is not {version}");
    assert_eq!(query(&url, "SELECT concat(@@binlog_format, ' ', @@binlog_row_image)").await?, ["ROW FULL"]);
    let position = match product {
        MySqlProduct::MySql => "SELECT @@gtid_executed",
        MySqlProduct::MariaDb => "SELECT @@gtid_binlog_pos",
    };
    assert_eq!(query(&url, position).await?, [""], "what a start does is no part of the log");
    query(&url, "CREATE DATABASE kept").await?;
    query(&server.url("kept"), "CREATE TABLE t (id int)").await?;
    query(&server.url("kept"), "INSERT INTO t VALUES (7)").await?;
    let written = query(&url, position).await?;
    ensure!(written.iter().all(|position| position.ends_with('3')), "three changes, but {written:?}");

    server.kill().await?;
    assert!(query(&url, "SELECT 1").await.is_err());
    let begin = Instant::now();
    server.start_again().await?;
    seconds(&format!("{product} {version} started again"), begin);
    assert_eq!(query(&server.url("kept"), "SELECT id FROM t").await?, ["7"]);
    server.restart().await?;
    assert_eq!(query(&server.url("kept"), "SELECT id FROM t").await?, ["7"]);
    assert_eq!(query(&url, position).await?, written);
    server.stop().await?;
    assert!(query(&url, "SELECT 1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn mysql_keeps_committed_rows_over_kill_and_restart() -> Result<()> {
    let Some(version) = version(MySqlProduct::MySql) else { return Ok(()) };
    keeps_committed_rows_over_kill_and_restart(MySqlProduct::MySql, version).await
}

#[tokio::test]
async fn mariadb_keeps_committed_rows_over_kill_and_restart() -> Result<()> {
    let Some(version) = version(MySqlProduct::MariaDb) else { return Ok(()) };
    keeps_committed_rows_over_kill_and_restart(MySqlProduct::MariaDb, version).await
}

/// Those that no other test waits for: they are fetched for this one.
#[tokio::test]
#[ignore = "fetches 150 MB more; run it after a change of what is fetched"]
async fn mariadb_of_other_versions_keeps_committed_rows_too() -> Result<()> {
    for version in ["11.4", "10.11"] {
        keeps_committed_rows_over_kill_and_restart(MySqlProduct::MariaDb, version).await?;
    }
    Ok(())
}

#[tokio::test]
async fn mariadb_checks_a_password_and_takes_settings_and_keeps_a_given_data_folder() -> Result<()> {
    let Some(version) = version(MySqlProduct::MariaDb) else { return Ok(()) };
    let folder = tempfile::tempdir_in("/tmp")?;
    super::servers::make_enterable(folder.path())?;
    let options = MySqlOptions {
        password: Some(r"a b'c/d\".to_owned()),
        data_dir: Some(folder.path().join("data")),
        settings: vec![("wait-timeout".to_owned(), "77".to_owned())],
        fsync: false,
        ..MySqlOptions::of(MySqlProduct::MariaDb, version)
    };
    let server = MySql::start(options.clone()).await?;
    assert_eq!(query(&server.url("mysql"), "SELECT @@global.wait_timeout").await?, ["77"]);
    let open = format!("mysql://root@127.0.0.1:{}/mysql", server.port());
    let refusal = query(&open, "SELECT 1").await.unwrap_err();
    assert!(format!("{refusal:?}").contains("Access denied"), "{refusal:?}");
    query(&server.url("mysql"), "CREATE DATABASE kept").await?;
    drop(server);

    let server = MySql::start(options).await?;
    assert_eq!(query(&server.url("kept"), "SELECT database()").await?, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn a_mariadb_that_does_not_start_shows_its_log() -> Result<()> {
    let Some(version) = version(MySqlProduct::MariaDb) else { return Ok(()) };
    let settings = vec![("no-such-setting".to_owned(), "1".to_owned())];
    let options = MySqlOptions { settings, ..MySqlOptions::of(MySqlProduct::MariaDb, version) };
    let text = format!("{:#}", MySql::start(options).await.unwrap_err());
    assert!(text.contains("no-such-setting"), "{text}");
    Ok(())
}
