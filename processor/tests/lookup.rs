//! Tables that steps look into, on the embedded log: what they have of a key, and when they say nothing.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::LookupTable;
use tributary_event::Health;
use tributary_expression::{Program, Shape};
use tributary_processor::{Answer, Enricher, OutsideError, Table};
use tributary_transport::{Batch, Embedded, EmbeddedSettings, Purpose, Retention, TopicSpec, Transport};

struct Bench {
    _folder: tempfile::TempDir,
    log: Arc<Embedded>,
    shutdown: CancellationToken,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default()).unwrap());
        let spec = TopicSpec { name: "rates".into(), partitions: 2, retention: Retention::Compact };
        log.ensure_topics(&[spec]).await.unwrap();
        Self { _folder: folder, log, shutdown: CancellationToken::new() }
    }

    async fn append(&self, records: &[(&str, Option<&str>)]) {
        let mut batch = Batch::new();
        for (key, value) in records {
            batch.push(&Arc::from("rates"), 1, Some(key.as_bytes()), value.map(str::as_bytes));
        }
        self.log.producer("test", Purpose::Stage).await.unwrap().append(&batch).await.unwrap();
    }

    fn table(&self, key: Option<&str>, limit: u64) -> (Arc<Table>, Health) {
        let key = key.map(|key| Program::compile(key, &Shape::any()).unwrap().0);
        let table = Table::new(LookupTable { name: "rates".into(), topic: "rates".into(), key, limit });
        let health = Health::default();
        let (log, part) = (self.log.clone(), health.part("table rates"));
        tokio::spawn(table.clone().follow(log, part, self.shutdown.clone()));
        (table, health)
    }
}

async fn ask(table: &Table, keys: &[&str]) -> Result<Vec<Answer>, OutsideError> {
    let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
    table.ask(&keys).await
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn found(json: &str) -> Answer {
    Answer::Found(json.to_owned().into())
}

#[tokio::test]
async fn the_last_record_of_a_key_holds_until_it_is_taken_out() {
    let bench = Bench::new().await;
    bench.append(&[("EUR", Some(r#"{"rate":1}"#)), ("7", Some("7.5")), ("EUR", Some(r#"{"rate":2}"#))]).await;
    let (table, health) = bench.table(None, 1 << 20);
    // Before it is whole it says nothing, rather than that something is missing.
    if let Err(error) = ask(&table, &["\"EUR\""]).await {
        assert!(error.message.contains("not read to its end"), "{error}");
    }
    until("it is whole", async || health.parts()["table rates"].up).await;
    let answers = ask(&table, &["\"EUR\"", "7", "\"7\"", "\"USD\""]).await.unwrap();
    assert_eq!(answers, [found(r#"{"rate":2}"#), found("7.5"), found("7.5"), Answer::Missing]);
    bench.append(&[("EUR", None), ("USD", Some("1"))]).await;
    let expected = [Answer::Missing, found("1")];
    until("it follows", async || ask(&table, &["\"EUR\"", "\"USD\""]).await.unwrap() == expected).await;
}

#[tokio::test]
async fn a_program_may_say_what_a_record_is_known_by() {
    let bench = Bench::new().await;
    bench
        .append(&[("1", Some(r#"{"currency":"EUR"}"#)), ("2", Some(r#"{"currency":7}"#)), ("3", Some("no object"))])
        .await;
    let (table, health) = bench.table(Some(".currency"), 1 << 20);
    until("it is whole", async || health.parts()["table rates"].up).await;
    let answers = ask(&table, &["\"EUR\"", "7", "3"]).await.unwrap();
    assert_eq!(answers, [found(r#"{"currency":"EUR"}"#), found(r#"{"currency":7}"#), Answer::Missing]);
}

#[tokio::test]
async fn a_table_above_its_limit_says_so_and_is_not_looked_into() {
    let bench = Bench::new().await;
    let long = format!("\"{}\"", "x".repeat(600));
    bench.append(&[("EUR", Some("1")), ("USD", Some(&long)), ("GBP", Some(&long))]).await;
    let (table, health) = bench.table(None, 1_000);
    until("it is down for that", async || {
        health.parts()["table rates"].why.as_deref().is_some_and(|why| why.contains("`limit` of 1000 bytes"))
    })
    .await;
    assert!(ask(&table, &["\"EUR\""]).await.unwrap_err().message.contains("raise it"));
}
