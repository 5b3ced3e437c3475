//! Steps that remember, while the stream is killed and begun anew at any moment: what is in the topic is what the input says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value as Json;
use tributary_dsl::plan::{CollapsePlan, DedupePlan, OnError, Start, StepPlan, StreamPlan};
use tributary_transport::{DeadLetters, Polled};

use crate::bench::{Bench, Running, TABLE, plan, program, until};

const HOUR: i64 = 3_600_000;

fn dedupe(within: Duration, limit: u64) -> StepPlan {
    StepPlan::Dedupe(Box::new(DedupePlan { by: program(".after.by"), within, limit }))
}

fn collapse(by: &str, period: Duration, patience: Duration) -> StepPlan {
    let (by, keys, limit) = (program(by), 1_000, 1 << 20);
    StepPlan::Collapse(Box::new(CollapsePlan { by, period, patience, keys, limit }))
}

/// Nothing goes on because of the clock.
const NEVER: Duration = Duration::from_secs(100_000);

fn numbers() -> StepPlan {
    StepPlan::Transform(program(". = { \"n\": .after.n }"))
}

fn first(steps: Vec<StepPlan>) -> StreamPlan {
    plan(Start::First, steps, OnError::Stop)
}

/// What is in a record of the table: its number, what it goes by, and when it was.
fn read(record: &Polled) -> (u64, Json, i64) {
    let event: Json = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
    let (row, source) = (&event["after"], &event["source"]);
    (row["n"].as_u64().unwrap(), row["by"].clone(), source["ts_ms"].as_i64().unwrap())
}

async fn out(bench: &Bench) -> Vec<u64> {
    let number = |text: &String| serde_json::from_str::<Json>(text).unwrap()["n"].as_u64().unwrap();
    bench.out().await.iter().map(number).collect()
}

/// Lets a stream run for a while, and kills it.
async fn run_and_kill(bench: &Bench, running: Running, random: &mut fastrand::Rng) {
    let goal = bench.out().await.len() + random.usize(1..20);
    for _ in 0..random.usize(0..400) {
        if bench.out().await.len() >= goal {
            break;
        }
        tokio::task::yield_now().await;
    }
    running.kill().await;
}

/// Numbers of the events of each partition that an event of another row of the same `by` did not come shortly before, by the rule alone.
async fn new_ones(bench: &Bench, partitions: u32, within_ms: i64) -> Vec<Vec<u64>> {
    let mut all = Vec::new();
    for partition in 0..partitions {
        let (mut now, mut seen, mut new) = (i64::MIN, HashMap::<String, i64>::new(), Vec::new());
        for record in bench.records(TABLE, partition).await {
            let (number, by, time) = read(&record);
            now = now.max(time);
            let before = if by.is_null() { None } else { seen.insert(by.to_string(), now) };
            if before.is_none_or(|before| now - before >= within_ms) {
                new.push(number);
            }
        }
        all.push(new);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_is_seen_by_whoever_goes_on() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::with(2).await;
        let step = || vec![dedupe(Duration::from_secs(60), 1 << 20), numbers()];
        let (mut number, mut time) = (0, 0);
        for _ in 0..12 {
            let running = bench.start_plan(first(step()));
            for _ in 0..random.usize(1..4) {
                let mut changes = Vec::new();
                for _ in 0..random.usize(1..40) {
                    (number, time) = (number + 1, time + random.i64(-3_000..9_000));
                    let by = if random.u8(0..9) == 0 { "null".to_owned() } else { random.u8(0..12).to_string() };
                    changes.push((random.u8(0..20), time, format!(r#""n":{number},"by":{by}"#)));
                }
                bench.commit(&changes).await;
            }
            run_and_kill(&bench, running, &mut random).await;
        }
        let expected = new_ones(&bench, 2, 60_000).await;
        let running = bench.start_plan(first(step()));
        let count = expected.iter().map(Vec::len).sum::<usize>();
        until("all came", async || bench.out().await.len() >= count).await;
        running.stop().await;
        let came = out(&bench).await;
        assert!(count < number as usize * 3 / 4, "{count} of {number}: many are dropped");
        let of = |part: &Vec<u64>| came.iter().copied().filter(|n| part.contains(n)).collect::<Vec<_>>();
        assert_eq!(expected.iter().map(of).collect::<Vec<_>>(), expected, "seed {seed}");
        assert_eq!(came.len(), count, "seed {seed}: others came too");
    }
}

/// The first run of records fails in its middle, and behind it lie records of the same keys: they are tried before it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_again_was_not_seen_before() {
    let mut bench = Bench::new().await;
    let row = |n: u64, by: &str| (1, n as i64, format!(r#""n":{n},"by":{by}"#));
    bench.commit(&[row(1, "1"), row(2, "\"bad\""), row(3, "1"), row(4, "2"), row(5, "2")]).await;
    let picky = || StepPlan::Transform(program(".n = to_int!(.after.by)\n. = { \"n\": .after.n }"));
    let running = bench.start_plan(first(vec![dedupe(Duration::from_secs(60), 1 << 20), picky()]));
    assert!(running.stands_still().await.contains("transform-2"));
    // It is tried again at once, and stands still at the same event.
    bench.commit(&[row(6, "3")]).await;
    assert_eq!(out(&bench).await, [1]);
    running.kill().await;
    let running = bench.start_plan(first(vec![dedupe(Duration::from_secs(60), 1 << 20), numbers()]));
    until("all came", async || bench.out().await.len() >= 4).await;
    running.stop().await;
    assert_eq!(out(&bench).await, [1, 2, 4, 6]);
}

/// An event that was set aside had been let through; when it is done again it is not taken for one that came before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_is_no_repetition_of_its_own_event() {
    let mut bench = Bench::new().await;
    let letters = DeadLetters::new(bench.log.clone(), "letters");
    let row = |n: u64, by: &str| (1, n as i64, format!(r#""n":{n},"by":{by}"#));
    bench.commit(&[row(1, "\"bad\""), row(2, "\"bad\"")]).await;
    let steps = |last| vec![dedupe(Duration::from_secs(60), 1 << 20), last];
    let picky = StepPlan::Transform(program(".n = to_int!(.after.by)"));
    let running = bench.start_plan(plan(Start::First, steps(picky), OnError::DeadLetter));
    until("it is set aside", async || letters.list().await.unwrap().len() == 1).await;
    running.kill().await;
    let running = bench.start_plan(plan(Start::First, steps(numbers()), OnError::DeadLetter));
    letters.replay(None).await.unwrap();
    until("it came", async || bench.out().await.len() == 1).await;
    bench.commit(&[row(3, "\"bad\""), row(4, "4")]).await;
    until("the last came", async || bench.out().await.len() >= 2).await;
    running.stop().await;
    assert_eq!(out(&bench).await, [1, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_keys_stand_still_and_drop_nothing() {
    let mut bench = Bench::new().await;
    let rows: Vec<_> = (1..=20).map(|n| (1, n, format!(r#""n":{n},"by":{n}"#))).collect();
    bench.commit(&rows).await;
    let small = plan(Start::First, vec![dedupe(Duration::from_secs(60), 1_200), numbers()], OnError::DeadLetter);
    let running = bench.start_plan(small);
    let why = running.stands_still().await;
    assert!(why.contains("dedupe-1") && why.contains("`limit` of 1200 bytes"), "{why}");
    running.kill().await;
    let running = bench.start_plan(first(vec![dedupe(Duration::from_secs(60), 1 << 20), numbers()]));
    until("all came", async || bench.out().await.len() >= 20).await;
    running.stop().await;
    assert_eq!(out(&bench).await, (1..=20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_each_burst_goes_on_once_through_kills() {
    for seed in 0..4 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::with(2).await;
        let patience = Duration::from_millis(20);
        let steps = || vec![collapse(".after.by", Duration::from_secs(10), patience), numbers()];
        let (mut number, mut time) = (0, 0);
        for _ in 0..12 {
            let running = bench.start_plan(first(steps()));
            for _ in 0..random.usize(1..4) {
                let mut changes = Vec::new();
                for _ in 0..random.usize(1..40) {
                    (number, time) = (number + 1, time + random.i64(0..3_000));
                    let by = if random.u8(0..9) == 0 { "null".to_owned() } else { random.u8(0..6).to_string() };
                    changes.push((random.u8(0..20), time, format!(r#""n":{number},"by":{by}"#)));
                }
                bench.commit(&changes).await;
            }
            run_and_kill(&bench, running, &mut random).await;
        }
        let running = bench.start_plan(first(steps()));
        let mut input = Vec::new();
        for partition in 0..2 {
            let records = bench.records(TABLE, partition).await;
            input.push(records.iter().map(read).collect::<Vec<_>>());
        }
        let last: BTreeMap<(usize, String), u64> = input
            .iter()
            .enumerate()
            .flat_map(|(partition, events)| events.iter().map(move |(n, by, _)| ((partition, by.to_string()), *n)))
            .collect();
        until("the last of each key came", async || {
            let came = out(&bench).await;
            last.values().all(|n| came.contains(n))
        })
        .await;
        running.stop().await;
        let came = out(&bench).await;
        for events in &input {
            let place = |n: &u64| events.iter().position(|(number, ..)| number == n);
            let mine: Vec<usize> = came.iter().filter_map(place).collect();
            assert!(mine.is_sorted_by(|one, other| one < other), "seed {seed}: twice, or out of order: {mine:?}");
            for (at, (n, by, _)) in events.iter().enumerate() {
                let followed =
                    mine.iter().any(|next| *next == at || !by.is_null() && *next > at && events[*next].1 == *by);
                assert!(followed, "seed {seed}: {n} is lost");
            }
        }
        assert!(came.len() < number as usize, "some are left out");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_is_in_no_sink_and_before_no_mark() {
    let mut bench = Bench::new().await;
    let row = |key: u8, n: u64, hours: i64| (key, hours * HOUR + n as i64, format!(r#""n":{n},"by":{key}"#));
    let steps = || vec![collapse("%key", Duration::from_secs(3_600), NEVER), numbers()];
    bench.commit(&[row(1, 1, 0), row(2, 2, 0), row(1, 3, 0), row(1, 4, 0)]).await;
    let running = bench.start_plan(first(steps()));
    // Two hours later the first hour is over.
    bench.commit(&[row(3, 5, 2)]).await;
    until("the first hour came", async || bench.out().await.len() >= 2).await;
    running.kill().await;
    assert_eq!(out(&bench).await, [2, 4]);
    let running = bench.start_plan(first(steps()));
    bench.commit(&[row(3, 6, 2), row(4, 7, 4)]).await;
    until("so does what was held", async || bench.out().await.len() >= 3).await;
    running.stop().await;
    // What is held comes again at the next start, whichever way it ended.
    let running = bench.start_plan(first(vec![numbers()]));
    until("all came", async || bench.out().await.len() >= 4).await;
    running.stop().await;
    assert_eq!(out(&bench).await, [2, 4, 6, 7]);
}

/// Events before one that fails go on, and it is done again with all that lies behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_held_where_a_partition_stands_still() {
    let mut bench = Bench::new().await;
    let row = |key: u8, n: u64, title: &str| (key, n as i64, format!(r#""n":{n},"title":{title}"#));
    bench.commit(&[row(1, 1, "1"), row(1, 2, "2"), row(2, 3, "\"bad\""), row(1, 4, "4")]).await;
    let check = |word: &str| StepPlan::Filter(program(&format!("{word}(.after.title) > 0")));
    let held = || collapse("%key", Duration::from_secs(3_600), NEVER);
    // It fails before it is held.
    let running = bench.start_plan(first(vec![check("to_int!"), held(), numbers()]));
    assert!(running.stands_still().await.contains("filter-1"));
    assert_eq!(out(&bench).await, [2]);
    running.kill().await;
    // It fails behind that.
    let patience = Duration::from_millis(10);
    let short = || collapse("%key", Duration::from_secs(3_600), patience);
    let running = bench.start_plan(first(vec![short(), check("to_int!"), numbers()]));
    assert!(running.stands_still().await.contains("filter-2"));
    assert_eq!(out(&bench).await, [2]);
    running.kill().await;
    let running = bench.start_plan(first(vec![short(), numbers()]));
    until("all came", async || bench.out().await.len() >= 3).await;
    running.stop().await;
    assert_eq!(out(&bench).await, [2, 3, 4]);
}

/// Letters keep the order of their key also where events are held, and are written once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_waits_for_what_is_held() {
    let mut bench = Bench::new().await;
    let letters = DeadLetters::new(bench.log.clone(), "letters");
    let row = |key: u8, n: u64, title: &str| (key, n as i64, format!(r#""n":{n},"title":{title}"#));
    let patience = Duration::from_millis(10);
    let steps = |filter: &str| {
        vec![collapse(".after.title", Duration::from_secs(60), patience), StepPlan::Filter(program(filter)), numbers()]
    };
    bench.commit(&[row(1, 1, "1"), row(2, 2, "\"bad\""), row(2, 3, "3"), row(1, 4, "4"), row(2, 5, "3")]).await;
    let picky = plan(Start::First, steps("to_int!(.after.title) > 0"), OnError::DeadLetter);
    let running = bench.start_plan(picky);
    until("others came", async || bench.out().await.len() >= 2).await;
    until("two are set aside", async || letters.list().await.unwrap().len() >= 2).await;
    running.kill().await;
    assert_eq!(out(&bench).await, [1, 4]);
    let running = bench.start_plan(plan(Start::First, steps("true"), OnError::DeadLetter));
    let ids = [letters.list().await.unwrap()[0].id.clone()];
    letters.replay(Some(&ids)).await.unwrap();
    until("all came", async || bench.out().await.len() >= 4).await;
    until("no letter is left", async || letters.list().await.unwrap().is_empty()).await;
    running.stop().await;
    assert_eq!(out(&bench).await, [1, 4, 2, 5]);
}
