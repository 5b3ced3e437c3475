//! Tools that alter tables online, by a copy that takes the table's place: while rows change, nothing of it is lost or captured twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::process::Command;

use crate::server::{Database, databases, run, session};
use crate::support::{Recorder, Running, until};

const ROWS: u32 = 2_000;

/// Whether a program is there and runs; if not, that is said.
async fn is_here(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output().await.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("NOT TESTED: {program} is missing ({package})");
    }
    found
}

/// Lets a tool add the column `y` to a table whose rows change meanwhile. `away`: the source does not run then, and reads all of it later.
async fn alters(mut db: Database, tool: &mut Command, away: bool) {
    db.run("create table t (id int primary key, x int not null)").await;
    let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, 0)")).collect();
    db.run(&format!("insert into t values {}", rows.join(","))).await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let mut running = Some(Running::streaming(&settings, &recorder).await);
    if let Some(running) = running.take_if(|_| away) {
        running.kill().await;
    }
    let (over, updates) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let writing = tokio::spawn({
        let (over, updates, url, name) = (over.clone(), updates.clone(), db.url.clone(), db.name.clone());
        async move {
            let mut sql = session(&url).await;
            while !over.load(Ordering::Relaxed) {
                let count = updates.fetch_add(1, Ordering::Relaxed);
                run(&mut sql, &format!("update {name}.t set x = x + 1 where id = {}", 1 + count * 7 % ROWS)).await;
            }
            sql.disconnect().await.expect("disconnects");
        }
    });
    let output = tool.output().await.expect("the tool runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "(MariaDB: {}) {said}", db.is_mariadb);
    // Some behind it.
    let altered = updates.load(Ordering::Relaxed);
    until("rows change behind it", async || updates.load(Ordering::Relaxed) > altered + 100).await;
    over.store(true, Ordering::Relaxed);
    writing.await.expect("it wrote");
    db.run(&format!("insert into t (id, x, y) values ({}, 1, 8)", ROWS + 1)).await;
    let count = updates.load(Ordering::Relaxed) as usize;
    let running = running.unwrap_or_else(|| Running::start(&settings, &recorder));
    let records = recorder.wait(count + 1).await;
    let last = records.last().expect("the last row");
    assert_eq!(last.get("/after"), serde_json::json!({"id": ROWS + 1, "x": 1, "y": 8}));
    let mut captured: BTreeMap<u64, u64> = (1..=u64::from(ROWS)).map(|id| (id, 0)).collect();
    for record in &records[..count] {
        let number = |name: &str| record.get(name).as_u64().expect("a number");
        let before = captured.insert(number("/after/id"), number("/after/x"));
        assert_eq!(before, Some(number("/after/x") - 1), "each change once");
    }
    let rows: Vec<(u64, u64, u64)> = db.rows(&format!("select id, x, y from t where id <= {ROWS}")).await;
    assert!(rows.iter().all(|(_, _, y)| *y == 7));
    assert_eq!(captured, rows.into_iter().map(|(id, x, _)| (id, x)).collect());
    running.stop().await;
    db.remove().await;
}

/// Host and port of a server.
fn address(db: &Database) -> (String, String) {
    let address = db.url.trim_end_matches('/').rsplit_once('@').expect("a user").1;
    let (host, port) = address.split_once(':').expect("a port");
    (host.to_owned(), port.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn pt_online_schema_change() {
    const TOOL: &str = "pt-online-schema-change";
    if !is_here(TOOL, "apt-get install percona-toolkit").await {
        return;
    }
    for away in [false, true] {
        for db in databases("ptosc").await {
            let (host, port) = address(&db);
            let table = format!("D={},t=t,h={host},P={port},u=root", db.name);
            let mut tool = Command::new(TOOL);
            tool.args(["--alter", "add column y int not null default 7", "--execute", "--no-version-check"]);
            tool.args(["--recursion-method", "none", "--chunk-size", "100", "--max-load", "", "--critical-load", ""]);
            alters(db, tool.arg(&table), away).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gh_ost() {
    const TOOL: &str = "gh-ost";
    if !is_here(TOOL, "go install github.com/github/gh-ost/go/cmd/gh-ost@latest").await {
        return;
    }
    for db in databases("ghost").await {
        // It does not support MariaDB.
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        let (host, port) = address(&db);
        let mut tool = Command::new(TOOL);
        tool.args(["--host", &host, "--port", &port, "--user", "root", "--database", &db.name, "--table", "t"]);
        tool.args(["--alter", "add column y int not null default 7", "--execute", "--allow-on-master"]);
        tool.args([
            "--initially-drop-ghost-table",
            "--initially-drop-old-table",
            "--ok-to-drop-table",
            "--chunk-size",
            "100",
        ]);
        tool.args(["--default-retries", "20", "--cut-over-lock-timeout-seconds", "5", "--serve-socket-file"]);
        tool.arg(format!("/tmp/gh-ost.{}.sock", db.name));
        alters(db, &mut tool, false).await;
    }
}
