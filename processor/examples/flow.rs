//! The measured process of `x bench streams`: one stream over change events of an embedded log, until none is left.
//!
//! `flow dropped|mapped <events> unwatched|left|watched`
//!
//! `dropped`: a filter lets no event pass. `mapped`: a filter lets each pass, a program makes another event of it, and a topic has it exactly
//! once. `left`: somebody watched the stream's steps and has left; `watched`: somebody watches. Prints one line of figures: seconds and CPU
//! seconds of the stream alone, and peak memory.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{OnError, Origin, Start, Step, StepPlan, StreamInput, StreamPlan, TopicSink};
use tributary_event::{Health, Op};
use tributary_expression::{Program, Shape};
use tributary_processor::{Lag, Parked, Stream, Taps};
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Purpose, Retention, TopicSpec, Transport, dead_letter,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TABLE: &str = "db.public.movie";
/// Events of a transaction.
const TOGETHER: u64 = 1_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, events, watcher] = words.as_slice() else {
        return Err("flow dropped|mapped <events> unwatched|left|watched".into());
    };
    let (events, is_mapped): (u64, bool) = (events.parse()?, kind == "mapped");
    let folder = tempfile::tempdir()?;
    let log = Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default())?);
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: retention.clone() };
    log.ensure_topics(&[spec(TABLE), spec("out"), dead_letter::spec("letters")]).await?;
    fill(&log, events).await?;
    let (health, lag, taps) = (Health::default(), Lag::default(), Arc::<Taps>::default());
    let mut watching = match watcher.as_str() {
        "unwatched" => None,
        _ => Some(taps.watch()),
    };
    if watcher == "left" {
        watching = None;
    }
    let seeing = tokio::spawn(async move {
        let mut seen = 0_u64;
        if let Some(watching) = &mut watching {
            while watching.next().await.is_some() {
                seen += 1;
            }
        }
        seen
    });
    let stream = Stream {
        pipeline: "bench".into(),
        plan: Arc::new(plan(is_mapped)?),
        transport: log.clone(),
        enrichers: HashMap::new(),
        changes: None,
        taps,
        parked: Arc::new(Parked::new(DeadLetters::new(log.clone(), "letters"), "stream flow")),
        reading: health.part("reader"),
        working: health.part("stream"),
        lag: lag.clone(),
    };
    let shutdown = CancellationToken::new();
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let running = tokio::spawn(stream.run(shutdown.clone()));
    // Of those that are dropped the last one passes.
    let expected = if is_mapped { events } else { 1 };
    while log.watermarks("out").await?.first().map_or(0, |ends| ends.high) < expected {
        if running.is_finished() {
            return Err(format!("the stream ended: {:?}", running.await?).into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    shutdown.cancel();
    running.await??;
    seeing.abort();
    let made = log.watermarks("out").await?.first().map_or(0, |ends| ends.high);
    if made != expected {
        return Err(format!("{made} events came, not {expected}").into());
    }
    writeln!(std::io::stdout(), "seconds={seconds:.3} cpu_seconds={cpu:.3} rss_mb={:.1}", peak_memory())?;
    Ok(())
}

/// Events of about 700 bytes, as a connector makes them.
async fn fill(log: &Arc<Embedded>, events: u64) -> Result<(), Failure> {
    let mut producer = log.producer("fill", Purpose::Source).await?;
    let (topic, text) = (Arc::from(TABLE), "in a world where nobody sleeps ".repeat(4));
    let mut next = 0;
    while next < events {
        let mut batch = Batch::new();
        for n in next..(next + TOGETHER).min(events) {
            let minutes = if n + 1 == events { 1 } else { 117 };
            let row = |votes: u64| {
                format!(
                    r#"{{"id":{n},"title":"Movie number {n}","released":19723,"runtime_min":{minutes},"imdb_rating":"8.5","imdb_votes":{votes},"budget_usd":11000000,"plot":"{text}"}}"#
                )
            };
            let value = format!(
                r#"{{"before":{},"after":{},"source":{{"connector":"postgresql","name":"db","ts_ms":1700000000000,"db":"studio","schema":"public","table":"movie","txId":{n},"lsn":{n}}},"op":"u","ts_ms":1700000000007,"sequence":{n}}}"#,
                row(n),
                row(n + 1)
            );
            batch.push(&topic, 1_700_000_000_007, Some(format!(r#"{{"id":{n}}}"#).as_bytes()), Some(value.as_bytes()));
        }
        producer.append(&batch).await?;
        next += TOGETHER;
    }
    Ok(())
}

fn plan(is_mapped: bool) -> Result<StreamPlan, Failure> {
    let program = |text: &str| {
        let compiled = Program::compile(text, &Shape::any());
        compiled.map(|(program, _)| program).map_err(|problems| format!("{text}: {problems:?}"))
    };
    let filter = program(if is_mapped { ".after.imdb_votes != 0" } else { ".after.runtime_min == 1" })?;
    let mut steps = vec![Step { name: "filter-1".into(), plan: StepPlan::Filter(filter), on_error: None }];
    if is_mapped {
        let map = program(r#". = { "id": .after.id, "title": .after.title, "votes": .after.imdb_votes }"#)?;
        steps.push(Step { name: "transform-2".into(), plan: StepPlan::Transform(map), on_error: None });
    }
    let out = TopicSink { name: "out".into(), key: None, compact: false, cloud_events: false, when: None };
    Ok(StreamPlan {
        name: "flow".into(),
        from: vec![StreamInput {
            topic: TABLE.into(),
            origin: Origin::Table { source: "db".into(), table: "public.movie".into() },
        }],
        ops: vec![Op::Update],
        start: Start::First,
        steps,
        on_error: OnError::Stop,
        max_event: 8 << 20,
        deliveries: Vec::new(),
        keeps_events: false,
        topics: vec![out],
    })
}

/// What all threads of this process have worked so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// In megabytes.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
