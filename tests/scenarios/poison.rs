//! Events that nobody can take, in a stream that sets them aside: those of other keys go on, and those of their keys come in their order
//! when they can be taken, or are given up.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tributary_transport::{Batch, Retention, TopicSpec, Transport};

use crate::client;
use crate::world::topics::records;
use crate::world::{Own, Pair, World};

/// More than `max_event` of a stream is without a word, and less than a record of Kafka may have.
const LARGE: usize = 9 << 20;
/// Deeper than any stack.
const DEEP: usize = 100_000;

/// The records that a stream is given, in their order: keys and fields. One is too large, one too deep, one is nothing for the program; one
/// follows each of them.
fn given() -> [(&'static str, String); 8] {
    let deep = format!("{}1{}", "[".repeat(DEEP), "]".repeat(DEEP));
    [
        ("plain", r#""text":"1""#.to_owned()),
        ("large", format!(r#""text":"1","pad":"{}""#, "x".repeat(LARGE))),
        ("deep", format!(r#""text":"1","deep":{deep}"#)),
        ("word", r#""text":"seven""#.to_owned()),
        ("large", r#""text":"2""#.to_owned()),
        ("deep", r#""text":"2""#.to_owned()),
        ("word", r#""text":"2""#.to_owned()),
        ("plain", r#""text":"2""#.to_owned()),
    ]
}

/// By key the places of the records that came out, in their order.
async fn came(transport: &dyn Transport, topic: &str) -> BTreeMap<String, Vec<u64>> {
    let mut came: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for record in records(transport, topic).await.iter().flatten() {
        let event: Json = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let key = event["key"].as_str().expect("a key").to_owned();
        came.entry(key).or_default().push(event["place"].as_u64().expect("a place"));
    }
    came
}

fn expected<const N: usize>(places: [(&str, &[u64]); N]) -> BTreeMap<String, Vec<u64>> {
    places.into_iter().map(|(key, places)| (key.to_owned(), places.to_vec())).collect()
}

/// The letter whose cause says this.
fn because<'a>(letters: &'a [Json], words: &str) -> Option<&'a Json> {
    letters.iter().find(|letter| letter["cause"].as_str().is_some_and(|cause| cause.contains(words)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_too_deep_or_nothing_for_the_program_kafka() {
    let mut world = World::of("poisoned", Pair::KafkaElasticsearch, Own::default(), 1).await;
    let transport = world.transport(Pair::KafkaElasticsearch);
    let (input, output) = (format!("in-{}", world.name), format!("out-{}", world.name));
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = TopicSpec { name: input.clone(), partitions: 1, retention };
    transport.ensure_topics(&[spec]).await.expect("a topic");
    let mut appender = transport.appender().await.expect("an appender");
    for (place, (key, fields)) in given().into_iter().enumerate() {
        let mut batch = Batch::new();
        let value = format!(r#"{{"place":{place},"key":"{key}",{fields}}}"#);
        batch.push(&input.as_str().into(), 1_000, Some(key.as_bytes()), Some(value.as_bytes()));
        appender.append(&batch).await.expect("appended");
    }
    world.define_streams(&format!(
        "streams:
  lenient:
    from: {{ topic: {input} }}
    start: first
    on_error: dead_letter
    max_event: 8MiB
    steps: [{{ transform: .number = to_int!(.text) }}]
    to: [{{ topic: {{ name: {output} }} }}]
"
    ));
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    world.start();
    let out = async || came(transport.as_ref(), &output).await;
    let set_aside = async |address: &str| client::letters(address).await.len() == 6 && out().await.len() == 1;
    world.until("what nobody can take is set aside, with what follows", set_aside).await;
    let plain: &[u64] = &[0, 7];
    world.until("others go on", async |_: &str| out().await == expected([("plain", plain)])).await;
    let all = client::letters(&world.address().expect("it runs")).await;
    for words in ["`max_event` is 8388608", "more than 64 values inside of one another", "seven"] {
        assert!(because(&all, words).is_some(), "{words}");
    }

    // A larger one may come now; the others fail once more.
    world.stop_process(0).await;
    world.edit_pipeline("max_event: 8MiB", "max_event: 16MiB");
    world.start();
    world.until_all_listen().await;
    let (code, said, error) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!(code, 0, "{said}{error}");
    let tried = async |address: &str| {
        let all = client::letters(address).await;
        let again = |words: &str| because(&all, words).is_some_and(|letter| letter["attempts"].as_u64() >= Some(2));
        all.len() == 4 && again("more than 64 values") && again("seven")
    };
    world.until("the large one and its follower are done, and the others were tried", tried).await;
    let large: &[u64] = &[1, 4];
    assert_eq!(out().await, expected([("plain", plain), ("large", large)]));

    // They are given up, and what waited behind them comes.
    let all = client::letters(&world.address().expect("it runs")).await;
    let [deep, word] = ["more than 64 values", "seven"].map(|words| {
        let letter = because(&all, words).expect("its letter");
        letter["id"].as_str().expect("an id").to_owned()
    });
    for arguments in [&["dlq", "discard", &pipeline, &deep, &word][..], &["dlq", "replay", &pipeline, "--all"]] {
        let (code, said, error) = world.run(arguments).await;
        assert_eq!(code, 0, "{said}{error}");
    }
    world.until("no letter is left", async |address: &str| client::letters(address).await.is_empty()).await;
    world.stop_process(0).await;
    let last = expected([("plain", plain), ("large", large), ("deep", &[5]), ("word", &[6])]);
    assert_eq!(out().await, last);
}
