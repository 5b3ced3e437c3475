//! What is set aside as a dead letter, and how it comes back.

use tributary_transport::embedded::{Embedded, EmbeddedSettings};
use tributary_transport::{Batch, Purpose, Transport};

use crate::client::{self, letters};
use crate::world::{MOVIES, Own, Pair, World};

async fn title(address: &str, index: &str, id: u32) -> String {
    let document = client::get(address, &format!("/indexes/{index}/documents/{id}")).await.unwrap_or_default();
    document["document"]["title"].as_str().unwrap_or_default().to_owned()
}

/// A document that may not be seen concerns nobody else; once it may be, it is built without anybody's help.
async fn one_is_forbidden(pair: Pair) {
    let mut world = World::new("forbidden", pair, Own::default()).await;
    world.write_pipeline(pair, "    retry: { attempts: 2, initial: 20ms, max: 100ms }\n");
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().forbid_ids(vec!["50".into()]);
    world.execute("UPDATE movie SET title = 'May not be seen' WHERE id BETWEEN 45 AND 55").await;
    let set_aside = async |address: &str| {
        let letters = letters(address).await;
        letters.len() == 1
            && letters[0]["cause"]
                .as_str()
                .is_some_and(|c| c.contains("FORBIDDEN") && c.contains("check graph.headers"))
    };
    world.until("the document is a dead letter", set_aside).await;
    let index = world.index();
    for id in [45, 49, 51, 55] {
        world.until("others are built", async |address| title(address, &index, id).await == "May not be seen").await;
    }
    // It is tried again a minute later, in vain.
    let tried = async |address: &str| letters(address).await.first().is_some_and(|l| l["replays"]["count"] == 1);
    world.until("it was tried again", tried).await;
    assert_eq!(letters(&world.address().expect("it runs")).await.len(), 1);
    world.faults().forbid_ids(Vec::new());
    // Any change of it withdraws its letter; that it is tried again by itself until then is seen above and below.
    world.execute("UPDATE movie SET title = 'May be seen' WHERE id = 50").await;
    world.until("no letter is left", async |address| letters(address).await.is_empty()).await;
    world.faults().forbid_ids(vec!["51".into()]);
    world.execute("UPDATE movie SET title = 'For a while' WHERE id = 51").await;
    world.until("another one is a dead letter", set_aside).await;
    world.faults().forbid_ids(Vec::new());
    world.until("it was built by itself", async |address| letters(address).await.is_empty()).await;
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_forbidden_embedded() {
    one_is_forbidden(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_forbidden_kafka_elasticsearch() {
    one_is_forbidden(Pair::KafkaElasticsearch).await;
}

/// What nobody can read among the requests for builds, or among the changes of a table, stops nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_can_read() {
    let mut world = World::new("unread", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.kill();
    {
        let log = Embedded::open(world.data().join("log"), EmbeddedSettings::default()).expect("the log");
        let mut producer = log.producer("a stranger", Purpose::Stage).await.expect("a producer");
        let topic = format!("{}.{}.builds", world.name, world.index()).into();
        let mut batch = Batch::new();
        batch.push(&topic, 1, Some(b"50"), Some(b"\xff nonsense"));
        batch.push(&topic, 1, Some(b"51"), None);
        batch.push(&world.topic("public.movie").into(), 1, Some(b"{\"id\":52}"), Some(b"{ no change of a row"));
        producer.append(&batch).await.expect("appended");
    }
    world.start();
    let told = async |address: &str| {
        let letters = letters(address).await;
        let requests = letters.iter().filter(|l| l["cause"].as_str().is_some_and(|c| c.contains("no build request")));
        let changes = letters.iter().filter(|l| l["stage"] == "resolve");
        (letters.len(), requests.count(), changes.count()) == (3, 2, 1)
    };
    world.until("each is a dead letter", told).await;
    world.execute("UPDATE movie SET title = 'Goes on' WHERE id BETWEEN 45 AND 55").await;
    world.assert_converged().await;
}
