//! Rows above what fits into a packet, and transactions above what fits into memory.

use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mysql_async::prelude::Queryable as _;
use rand::RngCore as _;
use tributary_stack::MySqlProduct;

use crate::server::{databases, films, mysql_mut, products, run, session, start};
use crate::support::{Recorder, Running, drain};

/// Peak memory of the process that captures, in MB.
const LIMIT: f64 = 100.0;

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_more_than_a_packet_come_whole() {
    for product in products() {
        let room = match product {
            MySqlProduct::MySql => ("innodb-redo-log-capacity", "1G"),
            MySqlProduct::MariaDb => ("innodb-log-file-size", "400M"),
        };
        let (server, mut sql) = start(product, &[("max-allowed-packet", "1G"), room]).await;
        drop(sql);
        // The session has the limit of its beginning.
        sql = session(&server.url("films")).await;
        run(&mut sql, "create table t (id int primary key, x longtext)").await;
        let (recorder, mut settings) = (Recorder::new(), films(&server.server_url(), &["t"]));
        settings.batch.bytes = 1 << 20;
        let running = Running::streaming(&settings, &recorder).await;
        // Just below, at, and above what one packet holds, and three packets.
        const PACKET: usize = 0xff_ffff;
        let sizes = [PACKET - 64, PACKET - 20, PACKET, PACKET + 1, 40 << 20];
        for (id, size) in sizes.iter().enumerate() {
            run(&mut sql, &format!("insert into t values ({id}, repeat('x', {size}))")).await;
        }
        run(&mut sql, "insert into t values (99, 'small')").await;
        let records = recorder.wait(sizes.len() + 1).await;
        let found: Vec<usize> = records.iter().filter_map(|r| Some(r.get("/after/x").as_str()?.len())).collect();
        assert_eq!(found, [&sizes[..], &[5]].concat());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_three_hundred_megabytes_is_captured_in_little_memory() {
    captured("set @x = 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_transaction_of_three_hundred_megabytes_is_captured_in_little_memory() {
    captured("set session binlog_transaction_compression = on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_transaction_of_more_than_a_packet_is_read_from_a_file() {
    for mut db in databases("large_kept").await {
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("create table t (id int primary key, x longblob)").await;
        let folder = tempfile::tempdir().expect("a folder");
        let kept = folder.path().join("transactions");
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        mysql_mut(&mut settings).transactions = Some(kept.clone());
        let running = Running::streaming(&settings, &recorder).await;
        // What is random stays as long as it is: eighteen megabytes in one event, and a packet has sixteen.
        let mut values = vec![vec![0; 1 << 20]; 18];
        values.iter_mut().for_each(|value| rand::rng().fill_bytes(value));
        db.run("set session binlog_transaction_compression = on").await;
        db.run("begin").await;
        for (id, value) in values.iter().enumerate() {
            db.sql.exec_drop("insert into t values (?, ?)", (id, value)).await.expect("inserted");
        }
        db.run("commit").await;
        db.run("insert into t values (18, 'small')").await;
        values.push(b"small".to_vec());
        let records = recorder.wait(values.len()).await;
        running.stop().await;
        assert_eq!(records.len(), values.len());
        for (id, (record, value)) in records.iter().zip(&values).enumerate() {
            assert_eq!(record.get("/after/id").as_u64(), Some(id as u64));
            assert!(record.get("/after/x").as_str() == Some(BASE64_STANDARD.encode(value).as_str()), "{id}");
        }
        // The folder was made when the event came, and what was in it is gone.
        assert_eq!(std::fs::read_dir(&kept).expect("the folder").count(), 0);
        db.remove().await;
    }
}

/// A transaction of three hundred thousand rows of a kilobyte, behind a statement that sets the session.
async fn captured(setting: &str) {
    const ROWS: u32 = 300_000;
    for mut db in databases("large").await {
        if db.is_mariadb && setting.contains("compression") {
            db.remove().await;
            continue;
        }
        db.run("create table bench_row (id bigint primary key, title text, body text)").await;
        let folder = tempfile::tempdir().expect("a folder");
        let transport = format!("embedded:{}", folder.path().join("log").display());
        let (url, name) = (db.url.clone(), db.name.clone());
        let drained = async |action: &str| {
            let mut command = Command::new(drain());
            command.args([action, &url, &name, &transport, &ROWS.to_string()]);
            let output =
                tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{action}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        drained("prepare").await;
        db.run(setting).await;
        db.run("create table digits (d int primary key)").await;
        db.run("insert into digits values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)").await;
        // 8 KB of text that no compression makes small would take the log's disk; this is what rows are like.
        db.run(
            "insert into bench_row select a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d + 100000 * f.d + 1, 'The Movie', \
             concat(rand(), repeat('abcdefghijklmnopqrstuvwxy', 40)) \
             from digits a, digits b, digits c, digits d, digits e, digits f where f.d < 3 order by 1",
        )
        .await;
        let line = drained("run").await;
        let figure = |key: &str| -> f64 {
            let found = line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{key} is not in {line:?}"))
        };
        eprintln!("{} ({setting}): {}", db.url, line.trim());
        assert!(figure("events") >= f64::from(ROWS), "{line}");
        assert!(figure("peak_rss_mb") <= LIMIT, "{line}");
        drained("verify").await;
        db.remove().await;
    }
}
