//! Several processes over one log: each has a board of its own over the embedded log, as several have over Kafka.

use serde_json::json;
use tributary_event::Health;
use tributary_transport::{Embedded, EmbeddedSettings, Retention, TopicSpec, Transport};

use super::*;

struct World {
    log: Arc<dyn Transport>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(folder.path(), EmbeddedSettings::default()).expect("a log");
        Self { log: Arc::new(log), _folder: folder }
    }

    fn process(&self, instance: &str, plan: &str, is_home: bool) -> (Arc<Board>, Listings) {
        let board = Arc::new(Board::new(("p", instance), self.log.clone(), true));
        let listings = Listings::new("movies", board.clone(), Health::default().part("index movies"));
        let plan = serde_json::from_value(json!({ "its query": plan })).expect("a fingerprint");
        listings.plan(plan, Duration::ZERO, is_home);
        (board, listings)
    }
}

const NEW: Prepared = Prepared::Created;

fn requests(count: usize) -> Batch {
    let (mut batch, topic) = (Batch::new(), Arc::from("builds"));
    (0..count).for_each(|i| batch.push(&topic, 0, Some(i.to_string().as_bytes()), None));
    batch
}

#[tokio::test]
async fn of_several_processes_one_lists_and_who_was_fenced_follows() {
    let world = World::new();
    let spec = TopicSpec { name: "builds".into(), partitions: 1, retention: Retention::Compact };
    world.log.ensure_topics(&[spec]).await.expect("topics");
    let ((_, a), (board, b)) = (world.process("a", "q", false), world.process("b", "q", false));
    a.open_with(NEW, 0).await.expect("an answer");
    b.open_with(Prepared::Existing, 0).await.expect("an answer");
    let listing = a.take().await.expect("an answer").expect("its listing");
    assert_eq!(b.take().await.expect("an answer"), None);
    let next = Listing { after: Some("3".into()), listed: 3, ..listing };
    let after = a.advance(&mut requests(3), &next).await.expect("an answer").expect("its page");
    // Somebody asks the other process for every document: from now on that one lists.
    b.begin_anew(None).await.expect("an answer");
    let page = Listing { after: Some("6".into()), listed: 6, ..after };
    assert_eq!(a.advance(&mut requests(3), &page).await.expect("an answer"), None);
    let begun = b.take().await.expect("an answer").expect("its listing");
    assert_eq!((begun.listed, begun.number), (0, 2));
    let done = Listing { complete: true, listed: 3, ..begun };
    b.advance(&mut requests(3), &done).await.expect("an answer").expect("its page");
    board.look().await.expect("an answer");
    a.board.look().await.expect("an answer");
    assert_eq!(a.state(), b.state());
    let ends = world.log.watermarks("builds").await.expect("an answer");
    assert_eq!(ends.iter().map(|end| end.high).sum::<u64>(), 6, "a page of one that does not list was appended");
}

#[tokio::test]
async fn many_begin_at_once_and_each_is_durable() {
    let world = World::new();
    let all: Vec<Arc<Listings>> = (0..5).map(|i| Arc::new(world.process(&i.to_string(), "q", false).1)).collect();
    all[0].open_with(NEW, 0).await.expect("an answer");
    let begun = all.iter().map(|listings| {
        let listings = listings.clone();
        tokio::spawn(async move { listings.begin_anew(Some("a reason".into())).await })
    });
    for begun in begun.collect::<Vec<_>>() {
        begun.await.expect("no panic").expect("begun");
    }
    let (board, _) = world.process("reader", "q", false);
    board.look().await.expect("an answer");
    let number = board.note("movies").expect("a state").listing.number;
    assert!((6..=10).contains(&number), "{number}");
}

#[tokio::test]
async fn who_lists_leaves_it_to_others_when_it_stops() {
    let world = World::new();
    let ((_, a), (board, b)) = (world.process("a", "q", false), world.process("b", "q", false));
    a.open_with(NEW, 0).await.expect("an answer");
    board.look().await.expect("an answer");
    assert_eq!(b.take().await.expect("an answer"), None);
    a.release().await.expect("an answer");
    board.look().await.expect("an answer");
    assert!(b.take().await.expect("an answer").is_some());
}

#[tokio::test]
async fn a_plan_that_was_replaced_ends_and_is_a_standby_while_the_newer_answers() {
    let world = World::new();
    let ((_, old), (_, new)) = (world.process("a", "old", false), world.process("b", "new", false));
    old.open_with(NEW, 0).await.expect("an answer");
    assert_eq!((old.turn().await.expect("an answer"), old.replaced()), (Turn::Taken, None));
    assert_eq!(new.turn().await.expect("an answer"), Turn::Taken);
    new.open_with(Prepared::Existing, 3).await.expect("an answer");
    assert!(new.due(&new.state().expect("a state")) > LEASE, "the former plan's processes may still be at work");
    old.board.look().await.expect("an answer");
    assert!(old.replaced().expect("a reason").contains("its query changed"));
    assert_eq!(old.take().await.expect("an answer"), None);
    // Started again beside a process that answers.
    let (_, again) = world.process("a", "old", false);
    let (answers, new) = (tokio_util::sync::CancellationToken::new(), Arc::new(new));
    let keeping = super::super::keep(new.board.clone(), vec![new.clone()], answers.clone());
    let keeping = tokio::spawn(keeping);
    assert!(matches!(again.turn().await.expect("an answer"), Turn::Waits(_)));
    assert_eq!(again.replaced(), None, "it has not worked on the index");
    answers.cancel();
    keeping.await.expect("no panic").expect("no failure");
    // And when that one is gone.
    assert_eq!(again.turn().await.expect("an answer"), Turn::Taken);
    again.open_with(Prepared::Existing, 3).await.expect("an answer");
    new.board.look().await.expect("an answer");
    assert!(new.replaced().is_some());
}

#[tokio::test]
async fn documents_in_a_folder_have_one_process() {
    let world = World::new();
    let ((_, a), (_, b)) = (world.process("a", "q", true), world.process("b", "q", true));
    a.open_with(NEW, 0).await.expect("an answer");
    let a = Arc::new(a);
    let stop = tokio_util::sync::CancellationToken::new();
    let keeping = tokio::spawn(super::super::keep(a.board.clone(), vec![a.clone()], stop.clone()));
    let Turn::Refused(why) = b.turn().await.expect("an answer") else { panic!("it may work") };
    assert!(why.contains("give the index an Elasticsearch or OpenSearch store"), "{why}");
    stop.cancel();
    keeping.await.expect("no panic").expect("no failure");
}

#[tokio::test]
async fn what_is_open_before_there_is_a_plan_is_listed_when_there_is_one() {
    let world = World::new();
    let board = Arc::new(Board::new(("p", "a"), world.log.clone(), false));
    let listings = Listings::new("movies", board, Health::default().part("index movies"));
    listings.begin_anew(Some("a doubt".into())).await.expect("begun");
    let plan = serde_json::from_value(json!({ "its query": "q" })).expect("a fingerprint");
    listings.plan(plan, Duration::ZERO, false);
    listings.open_with(Prepared::Existing, 3).await.expect("an answer");
    assert!(listings.take().await.expect("an answer").is_some());
}

#[tokio::test]
async fn an_index_that_a_process_lacks_hears_its_doubts_and_is_listed_anew_when_it_is_back() {
    let world = World::new();
    let (_, a) = world.process("a", "q", false);
    a.open_with(NEW, 0).await.expect("an answer");
    let (board, _) = world.process("b", "q", false);
    let absent = super::super::Absent::new(board.clone(), ["shows".to_owned()]);
    absent.leave().await.expect("noted");
    absent.begin_anew("a doubt").await.expect("begun");
    // Whoever has it still hears of the doubt.
    a.board.look().await.expect("an answer");
    let listing = a.state().expect("a state");
    assert_eq!((listing.number, listing.why.as_deref(), listing.left), (2, Some("a doubt"), true));
    let done = Listing { complete: true, listed: 3, ..a.take().await.expect("an answer").expect("its listing") };
    a.advance(&mut Batch::new(), &done).await.expect("an answer").expect("its page");
    let (_, back) = world.process("c", "q", false);
    back.open_with(Prepared::Existing, 3).await.expect("an answer");
    let listing = back.state().expect("a state");
    assert!(listing.why.expect("a reason").contains("out of the pipeline") && !listing.left && !listing.complete);
}

#[tokio::test]
async fn a_listing_begins_when_the_graph_shows_what_was_before_it() {
    let world = World::new();
    let board = Arc::new(Board::new(("p", "a"), world.log.clone(), true));
    let listings = Listings::new("movies", board, Health::default().part("index movies"));
    listings.begin_anew(Some("a doubt before there is a plan".into())).await.expect("begun");
    let lag = Duration::from_secs(60);
    let plan: Fingerprint = serde_json::from_value(json!({ "its query": "q" })).expect("a fingerprint");
    listings.plan(plan, lag, false);
    let least = lag - Duration::from_secs(10);
    assert!(listings.due(&listings.state().expect("a state")) > least);
    listings.open_with(NEW, 0).await.expect("an answer");
    assert!(listings.due(&listings.state().expect("a state")) > least);
    listings.begin_anew(None).await.expect("begun");
    assert!(listings.due(&listings.state().expect("a state")) > least);
}
