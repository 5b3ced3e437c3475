//! Records that are missing, doubled or late in a topic are seen, told, and made up for; and an audit finds them, and what an index
//! lacks.

use serde_json::Value as Json;
use tributary_transport::{Batch, Checkpoint, Polled, Purpose, Sequence, Transport};

use crate::client;
use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World};

/// The record with the highest number, of a partition that has any.
async fn highest(transport: &dyn Transport, topic: &str) -> (Polled, Sequence) {
    for records in records(transport, topic).await {
        let numbered = |record: Polled| Sequence::of(record.headers.view()).map(|sequence| (record, sequence));
        let found = records.into_iter().filter_map(numbered).max_by_key(|(_, sequence)| sequence.number);
        if let Some(found) = found {
            return found;
        }
    }
    panic!("no record of {topic} has a number");
}

/// Appends copies of the last record, with numbers so far behind its own.
async fn plant(world: &World, pair: Pair, topic: &str, numbers: &[u64]) {
    let transport = world.transport(pair);
    let (record, last) = highest(transport.as_ref(), topic).await;
    let mut batch = Batch::new();
    for number in numbers {
        batch.push(&topic.into(), record.timestamp_ms, record.key.as_deref(), record.value.as_deref());
        let sequence = Sequence { number: last.number + number, ..last };
        batch.header(tributary_transport::numbers::SEQUENCE, sequence.to_string().as_bytes());
    }
    transport.appender().await.expect("an appender").append(&batch).await.expect("appended");
}

/// How many records a process has found that are missing, doubled, late.
async fn found(address: &str) -> [u64; 3] {
    let metrics = client::text(address, "/metrics").await.unwrap_or_default();
    ["missing", "doubled", "reordered"].map(|kind| {
        let of = metrics.lines().filter(|line| line.starts_with(&format!("tributary_records_{kind}_total{{")));
        of.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    })
}

/// The exit code of an audit, and what it found.
async fn audit(world: &World, documents: &str) -> (i32, Json) {
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, out, err) = world.run(&["audit", &pipeline, "--json", "--since", "1h", "--documents", documents]).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{code}: {error}: {out}{err}")))
}

fn of_topic<'a>(audit: &'a Json, topic: &str) -> &'a Json {
    audit["topics"].as_array().and_then(|all| all.iter().find(|t| t["topic"] == topic)).unwrap_or(&Json::Null)
}

async fn planted(pair: Pair) {
    let mut world = World::new("order", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'first' WHERE id BETWEEN 10 AND 60; DELETE FROM movie WHERE id = 11").await;
    world.assert_converged().await;
    // A crash makes no difference.
    world.kill();
    world.start();
    world.execute("UPDATE movie SET title = 'second' WHERE id BETWEEN 10 AND 60").await;
    world.assert_converged().await;
    let topic = world.topic("public.movie");
    let (code, well) = audit(&world, "500").await;
    let records = of_topic(&well, &topic)["records"].as_u64().unwrap_or(0);
    assert!(code == 0 && records > 100 && of_topic(&well, &topic)["unnumbered"] == 0, "{code}: {well:#}");
    assert!(well["indexes"][0]["compared"].as_u64().is_some_and(|compared| compared > 50), "{well:#}");
    assert_eq!(found(&world.address().expect("it runs")).await, [0; 3]);

    if pair == Pair::Embedded {
        world.kill();
    }
    plant(&world, pair, &topic, &[1, 3, 3, 2]).await;
    if pair == Pair::Embedded {
        world.start();
    }
    world.until("each is counted", async |address: &str| found(address).await == [1; 3]).await;
    let part = format!("order of {}", world.index());
    let told = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"][&part]["note"].as_str().is_some_and(|note| note.contains(&topic))
    };
    world.until("health tells", told).await;
    world
        .until("the index is listed anew", async |address: &str| {
            let metrics = client::text(address, "/metrics").await.unwrap_or_default();
            metrics.lines().any(|line| line.starts_with("tributary_repairs_total") && !line.ends_with(" 0"))
        })
        .await;
    for words in ["records are missing from a topic", "a record came twice", "a record came late"] {
        assert_eq!(world.said(words).min(1), 1, "{words}: {}", world.log());
    }
    world.assert_converged().await;
    let (code, bad) = audit(&world, "500").await;
    let bad = of_topic(&bad, &topic);
    assert_eq!(
        (code, &bad["missing"], &bad["doubled"], &bad["reordered"]),
        (1, &1.into(), &1.into(), &1.into()),
        "{bad:#}"
    );
    assert!(bad["findings"][0].as_str().is_some_and(|finding| finding.contains("are missing")), "{bad:#}");

    // What went missing while nobody read is seen by who reads on.
    world.kill();
    plant(&world, pair, &topic, &[5]).await;
    world.start();
    world.until("the gap is seen", async |address: &str| found(address).await[0] >= 4).await;
    world.assert_converged().await;
}

/// A broker lost the end of a partition, and nothing comes behind it: the source has given three numbers that no record has.
async fn an_end_is_lost(pair: Pair) {
    let mut world = World::new("end", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'first' WHERE id BETWEEN 10 AND 60").await;
    world.assert_converged().await;
    let topic = world.topic("public.movie");
    if pair == Pair::Embedded {
        world.kill();
    }
    {
        let transport = world.transport(pair);
        let (record, last) = highest(transport.as_ref(), &topic).await;
        let given = transport.numbers().await.expect("numbers");
        let given = given.iter().find(|(of, _)| *of == topic).map(|(_, given)| given).expect("those of the topic");
        assert_eq!(given.last(record.place.partition), Some(last));
        let number = |partition: u32| {
            let last = given.last(partition).map_or(0, |last| last.number);
            last + 1 + if partition == record.place.partition { 3 } else { 0 }
        };
        let partitions = transport.partitions(&topic).await.expect("partitions");
        let next: Vec<String> = (0..partitions).map(|partition| number(partition).to_string()).collect();
        let (source, _) = topic.split_once('.').expect("the name of the source");
        let name = format!("{source}\0numbers\0{topic}");
        let content = format!("{:016x}:{}", last.run, next.join(",")).into();
        let mut batch = Batch::new();
        batch.checkpoint = Some(Checkpoint { name, content });
        let mut producer = transport.producer("somebody", Purpose::Stage).await.expect("a producer");
        producer.append(&batch).await.expect("appended");
    }
    if pair == Pair::Embedded {
        world.start();
    }
    world.until("the end is missed", async |address: &str| found(address).await == [3, 0, 0]).await;
    let (code, audited) = audit(&world, "10").await;
    assert_eq!((code, &of_topic(&audited, &topic)["missing"]), (1, &3.into()), "{audited:#}");
    world.assert_converged().await;
    // What comes then has the numbers that come then.
    if pair == Pair::Embedded {
        world.execute("UPDATE movie SET title = 'second' WHERE id BETWEEN 10 AND 60").await;
        world.assert_converged().await;
        assert_eq!(found(&world.address().expect("it runs")).await, [3, 0, 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_lost_embedded() {
    an_end_is_lost(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_lost_kafka_elasticsearch() {
    an_end_is_lost(Pair::KafkaElasticsearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_embedded() {
    planted(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planted_kafka_elasticsearch() {
    planted(Pair::KafkaElasticsearch).await;
}

/// What an index lacks, has too much, or has from before, an audit finds, whether the pipeline runs or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_was_changed_by_hand() {
    let mut world = World::new("audited", Pair::KafkaElasticsearch, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    let base = format!("{}/{}", world.store_url(), world.index());
    let http = reqwest::Client::new();
    let done = |response: Result<reqwest::Response, reqwest::Error>| {
        response.and_then(reqwest::Response::error_for_status).map(drop).expect("it is done")
    };
    done(http.delete(format!("{base}/_doc/7")).send().await);
    let mut document: Json =
        http.get(format!("{base}/_source/9")).send().await.expect("sent").json().await.expect("JSON");
    document["_key"] = "99999".into();
    done(http.put(format!("{base}/_doc/99999?version=1&version_type=external")).json(&document).send().await);
    done(
        http.post(format!("{base}/_update/20"))
            .json(&serde_json::json!({ "doc": { "_hash": "another" } }))
            .send()
            .await,
    );
    for runs in [true, false] {
        // All are compared. None was changed through the pipeline, which would look at it again and mend it.
        let (code, found) = audit(&world, "10000").await;
        let index = &found["indexes"][0];
        let counts = ["missing", "extra", "stale"].map(|kind| index[kind].as_u64());
        assert_eq!((code, counts), (1, [Some(1); 3]), "{runs}: {found:#}");
        assert_eq!(index["named"], serde_json::json!(["7: missing", "99999: extra", "20: stale"]), "{found:#}");
        if runs {
            world.kill();
        }
    }
}
