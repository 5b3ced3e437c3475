//! A receiver of webhooks, and a service that streams ask, in every mood: what comes of it is in the end what the changes say, and what they
//! are in a mood for is no fact about an event.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value as Json;
use tributary_transport::Transport;

use crate::client;
use crate::world::hook::{Hook, LEFT_ALONE, Pricing};
use crate::world::topics::records;
use crate::world::{Own, Pair, World};

/// Movies that are given titles; the world has some more.
const TITLED: i64 = 20;

/// By id, the titles that movies were given, in their order.
type Titles = BTreeMap<i64, Vec<String>>;

async fn set(world: &World, titles: &mut Titles, id: i64, title: String) {
    let sql = format!("UPDATE movie SET title = '{title}' WHERE id = {id}");
    assert_eq!(world.sql.execute(&sql, &[]).await.expect("updated"), 1, "{sql}");
    titles.entry(id).or_default().push(title);
}

async fn letters_of(address: &str, stage: &str) -> Vec<Json> {
    client::letters(address).await.into_iter().filter(|letter| letter["stage"] == stage).collect()
}

/// Why a part is down, if it is.
async fn why(address: &str, part: &str) -> Option<String> {
    let health = client::get(address, "/health").await?;
    let part = &health["parts"][part];
    (part["state"] == "down").then(|| part["why"].as_str().unwrap_or_default().to_owned())
}

fn id(body: &Json) -> i64 {
    body["after"]["id"].as_i64().expect("an id")
}

fn title(body: &Json) -> String {
    body["after"]["title"].as_str().expect("a title").to_owned()
}

const TOLD: &str = r#"
streams:
  told:
    from: public.movie
    ops: [u]
    start: first
    to:
      - webhook:
          url: "HOOK/hook"
          secret: "${SIGNATURE:-s}"
          private: on
          format: plain
          timeout: 1500ms
          on_error: dead_letter
          retry: { max_pause: 1s }
"#;

/// What has arrived: by id the titles, each once, in the order in which they came first.
fn arrived(hook: &Hook) -> Titles {
    hook.by(id).into_iter().map(|(id, bodies)| (id, bodies.iter().map(title).collect())).collect()
}

/// The titles without those of each movie from its first bad one on, and how many these are.
fn without_bad(titles: &Titles) -> (Titles, usize) {
    let mut set_aside = 0;
    let good = titles.iter().map(|(id, all)| {
        let good = all.iter().position(|title| title.starts_with("Bad")).unwrap_or(all.len());
        set_aside += all.len() - good;
        (*id, all[..good].to_vec())
    });
    (good.collect(), set_aside)
}

/// The receiver puts off, is slower than it may be, refuses some events for good, and then us: each event is there, and those of a movie in
/// their order.
async fn told(pair: Pair) {
    let mut world = World::of("moods", pair, Own::default(), 40).await;
    world.supervised = true;
    let hook = Hook::start().await;
    world.define_streams(&TOLD.replace("HOOK", &hook.url()));
    world.start();
    world.until_captured().await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let letters = async |address: &str| letters_of(address, "sink told/webhook").await;
    let mut titles = Titles::new();
    hook.set_moody(true);
    for i in 0..160 {
        set(&world, &mut titles, 1 + (i * 7) % TITLED, format!("Early {i}")).await;
    }
    world.until("all arrived", async |_: &str| arrived(&hook) == titles).await;

    // What it refuses for good, and what waits behind that.
    hook.refuse(Some("Bad"));
    for i in 0..60 {
        let word = if [4, 9, 24].contains(&i) { "Bad" } else { "Good" };
        set(&world, &mut titles, 1 + i % TITLED, format!("{word} {i}")).await;
    }
    let (good, set_aside) = without_bad(&titles);
    assert_eq!(set_aside, 6);
    let settled = async |address: &str| arrived(&hook) == good && letters(address).await.len() == set_aside;
    world.until("all but what it refuses arrived, and that is set aside", settled).await;
    let all = letters(&world.address().expect("it runs")).await;
    let causes: Vec<&str> = all.iter().filter_map(|letter| letter["cause"].as_str()).collect();
    assert_eq!(causes.iter().filter(|cause| cause.contains("400 Bad Request")).count(), 2, "{causes:?}");
    hook.set_moody(false);

    // It lets nobody in: that is said, nothing is taken for refused, whoever is killed meanwhile, and it goes on by itself.
    hook.set_locked(true);
    for i in 0..30 {
        set(&world, &mut titles, 11 + i % 10, format!("Locked {i}")).await;
    }
    let is_locked = async |address: &str| {
        let why = why(address, "sink told/webhook").await;
        why.is_some_and(|why| why.contains("401 Unauthorized") && why.contains("nothing was skipped"))
    };
    world.until("the sink says that it is not let in", is_locked).await;
    world.kill();
    world.start();
    world.until("the sink says so again", is_locked).await;
    assert_eq!(letters(&world.address().expect("it runs")).await.len(), set_aside);
    assert_eq!(arrived(&hook), good);
    hook.set_locked(false);
    let (good, _) = without_bad(&titles);
    let goes_on = async |address: &str| {
        arrived(&hook) == good
            && letters(address).await.len() == set_aside
            && why(address, "sink told/webhook").await.is_none()
    };
    world.until("it goes on by itself", goes_on).await;

    // The receiver is mended.
    hook.refuse(None);
    let (code, said, error) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!(code, 0, "{said}{error}");
    world.until("no letter is left", async |address: &str| letters(address).await.is_empty()).await;
    for id in 1..=TITLED {
        set(&world, &mut titles, id, "Last".to_owned()).await;
    }
    world.until("all arrived", async |_: &str| arrived(&hook) == titles).await;
    world.stop_process(0).await;
    assert_eq!(arrived(&hook), titles);

    // An event had one id at every try, and a receiver that asked to be left alone was.
    let tried = hook.tried();
    let mut ids: BTreeMap<(i64, String), BTreeSet<&str>> = BTreeMap::new();
    for one in &tried {
        ids.entry((id(&one.body), title(&one.body))).or_default().insert(&one.id);
    }
    assert_eq!(ids.len(), titles.values().map(Vec::len).sum::<usize>());
    assert!(ids.values().all(|ids| ids.len() == 1), "{ids:?}");
    let answers: BTreeSet<Option<u16>> = tried.iter().map(|one| one.answer.map(|status| status.as_u16())).collect();
    let all = [None, Some(200), Some(400), Some(401), Some(429), Some(500), Some(503)];
    assert_eq!(answers, BTreeSet::from(all));
    for (place, one) in tried.iter().enumerate().filter(|(_, one)| one.answer.is_some_and(|status| status == 429)) {
        let next = tried.iter().skip(place + 1).find(|next| next.id == one.id).expect("it was tried again");
        assert!(next.at - one.at >= Duration::from_secs(LEFT_ALONE), "{one:?} {next:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_embedded() {
    told(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_kafka() {
    told(Pair::KafkaElasticsearch).await;
}

const PRICED: &str = r#"
  NAME:
    from: public.movie
    ops: [u]
    start: first
    on_error: ON_ERROR
    steps:
      - enrich:
          service: pricing
          request: POST /prices
          body: '{ "ids": .keys }'
          each: .prices
          match: .sku
          key: .after.id
          into: .price
    to:
      - topic: { name: OUT }
"#;

/// What is in a topic: by id the titles, in their order, each with the right price.
async fn priced(transport: &dyn Transport, topic: &str) -> Titles {
    let mut titles = Titles::new();
    for record in records(transport, topic).await.iter().flatten() {
        let event: Json = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        assert_eq!(event["price"]["usd"].as_f64(), Some(id(&event) as f64 * 1.5), "{event}");
        titles.entry(id(&event)).or_default().push(title(&event));
    }
    titles
}

/// The service hangs, is slow, tells half of what it is asked for, and fails for half of the keys: each event comes out once with its price,
/// and none is set aside for what is wrong with the service as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service() {
    let mut world = World::of("moody-service", Pair::KafkaElasticsearch, Own::default(), 40).await;
    let hook = Hook::start().await;
    let topics = ["careful", "lenient"].map(|name| format!("{name}-{}", world.name));
    let [careful, lenient] = topics.each_ref().map(String::as_str);
    let stream = |name: &str, on_error: &str, out: &str| {
        PRICED.replace("NAME", name).replace("ON_ERROR", on_error).replace("OUT", out)
    };
    let services =
        format!("services:\n  pricing: {{ rest: \"{}\", timeout: 2s, breaker: {{ pause: 1s }} }}\n", hook.url());
    let (stops, sets_aside) = (stream("careful", "stop", careful), stream("lenient", "dead_letter", lenient));
    world.define_streams(&format!("{services}streams:{stops}{sets_aside}"));
    world.start();
    world.until_captured().await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let transport = world.transport(Pair::KafkaElasticsearch);
    let out = async |topic: &str| priced(transport.as_ref(), topic).await;
    let mut titles = Titles::new();
    let moods = [Pricing::Usual, Pricing::Hangs, Pricing::Slow, Pricing::Pages];
    for (round, mood) in moods.into_iter().enumerate() {
        hook.set_pricing(mood);
        for i in 0..60 {
            set(&world, &mut titles, 1 + (i * 7) % TITLED, format!("Round {round}, {i}")).await;
        }
        if mood == Pricing::Hangs {
            let wait = async |address: &str| {
                why(address, "stream careful").await.is_some_and(|why| why.contains("the service pricing"))
                    && why(address, "stream lenient").await.is_some_and(|why| why.contains("the service pricing"))
            };
            world.until("both streams wait for it", wait).await;
            hook.set_pricing(Pricing::Usual);
        }
        let came = async |_: &str| out(careful).await == titles && out(lenient).await == titles;
        world.until("all came", came).await;
    }
    let letters = async |address: &str| letters_of(address, "stream lenient").await.len();
    assert_eq!(letters(&world.address().expect("it runs")).await, 0);

    // Of what it fails for while it answers for others, that is a fact: one stream stands there, the other one may set it aside.
    hook.set_pricing(Pricing::FailsForOdd);
    for i in 0..60 {
        set(&world, &mut titles, 1 + (i * 7) % TITLED, format!("Half, {i}")).await;
    }
    let stands = async |address: &str| {
        why(address, "stream careful").await.is_some_and(|why| why.contains("the service pricing"))
    };
    world.until("a stream stands still", stands).await;
    hook.set_pricing(Pricing::Usual);
    world.until("it goes on by itself", async |_: &str| out(careful).await == titles).await;
    let count = |titles: &Titles| titles.values().map(Vec::len).sum::<usize>();
    let all = count(&titles);
    let is_over = async |address: &str| letters(address).await + count(&out(lenient).await) == all;
    world.until("each event came, or is set aside", is_over).await;
    let came = out(lenient).await;
    assert!(titles.iter().filter(|(id, _)| **id % 2 == 0).all(|(id, all)| came.get(id) == Some(all)), "{came:?}");
    if came != titles {
        let (code, said, error) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
        assert_eq!(code, 0, "{said}{error}");
    }
    let whole = async |address: &str| out(lenient).await == titles && letters(address).await == 0;
    world.until("all came, and no letter is left", whole).await;
    world.stop_process(0).await;
    assert_eq!((out(careful).await, out(lenient).await), (titles.clone(), titles));
}
