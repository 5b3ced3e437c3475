//! Deliveries to a sink that is told, on the embedded log: what it gets of an event, and when it hears of a handover.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{
    ConductorFlavor, ConductorPlan, DeliveryOrder, DeliveryPlan, KnownFields, OnError, Origin, Place, Redelivery,
    Secret, SinkPlan, Start, StreamInput, StreamPlan, own_topic,
};
use tributary_event::{Health, Op};
use tributary_expression::{Program, Shape};
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use tributary_processor::{Delivery, Lag, OutsideError, Parked, Sink, Stream};
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Purpose, Retention, TopicSpec, Transport, dead_letter,
};

const TABLE: &str = "db.public.movie";

/// A sink that remembers what it is told: handovers too.
#[derive(Default)]
struct Memory(Mutex<Vec<String>>);

#[async_trait]
impl DeliverySink for Memory {
    fn handed_over(&self) {
        self.0.lock().unwrap().push("handed over".into());
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let text =
            |event: &OutEvent| String::from_utf8_lossy(event.content.as_deref().unwrap_or_default()).into_owned();
        self.0.lock().unwrap().extend(events.iter().map(text));
        Ok(vec![Verdict::Delivered; events.len()])
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

fn plan() -> DeliveryPlan {
    let input = Program::compile("{ \"movie\": .after.title }", &Shape::any()).unwrap().0;
    let plan = ConductorPlan {
        url: Secret::new("http://nowhere"),
        workflow: "greenlight".into(),
        version: None,
        input: Some(input),
        input_fields: KnownFields::default(),
        flavor: ConductorFlavor::Oss,
        headers: BTreeMap::new(),
        settle: Duration::ZERO,
        timeout: Duration::from_secs(1),
        concurrency: 4,
        private: true,
        dry_run: false,
    };
    DeliveryPlan {
        when: None,
        name: "conductor".into(),
        sink: SinkPlan::Conductor(plan),
        on_error: OnError::Stop,
        redelivery: Redelivery { within: None, max_pause: Duration::from_secs(1) },
        order: DeliveryOrder::Key,
        place: Place::default(),
    }
}

fn stream(log: &Arc<Embedded>, health: &Health) -> Stream {
    let plan = StreamPlan {
        name: "titles".into(),
        from: vec![StreamInput {
            topic: TABLE.into(),
            origin: Origin::Table { source: "db".into(), table: "public.movie".into() },
        }],
        ops: vec![Op::Create],
        start: Start::First,
        steps: Vec::new(),
        on_error: OnError::Stop,
        max_event: 8 << 20,
        deliveries: vec![plan()],
        keeps_events: true,
        topics: Vec::new(),
    };
    Stream {
        pipeline: "test".into(),
        plan: Arc::new(plan),
        transport: log.clone(),
        enrichers: HashMap::new(),
        changes: None,
        taps: Arc::default(),
        parked: Arc::new(Parked::new(DeadLetters::new(log.clone(), "letters"), "stream titles")),
        reading: health.part("reader"),
        working: health.part("stream"),
        lag: Lag::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_hears_of_a_handover_before_its_first_event_and_gets_its_input() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default()).unwrap());
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: retention.clone() };
    let own = own_topic("test", "titles");
    log.ensure_topics(&[spec(TABLE), spec(&own), dead_letter::spec("letters")]).await.unwrap();
    let mut producer = log.producer("test", Purpose::Source).await.unwrap();
    let shutdown = CancellationToken::new();
    let health = Health::default();
    let running = tokio::spawn(stream(&log, &health).run(shutdown.clone()));

    let memory = Arc::new(Memory::default());
    let told = || memory.0.lock().unwrap().clone();
    for title in ["Alien", "Brazil"] {
        let mut batch = Batch::new();
        let value = format!(r#"{{"op":"c","before":null,"after":{{"title":"{title}"}}}}"#);
        batch.push(&Arc::from(TABLE), 1, Some(b"1"), Some(value.as_bytes()));
        producer.append(&batch).await.unwrap();
        memory.0.lock().unwrap().clear();
        let delivery = Delivery {
            pipeline: "test".into(),
            stream: "titles".into(),
            plan: Arc::new(plan()),
            sink: Sink::Told(memory.clone()),
            transport: log.clone(),
            parked: Arc::new(Parked::new(DeadLetters::new(log.clone(), "letters"), "sink titles/conductor")),
            reading: health.part("reader of sink"),
            working: health.part("sink"),
            lag: Lag::default(),
        };
        let stop = CancellationToken::new();
        let delivering = tokio::spawn(delivery.run(stop.clone()));
        let input = format!(r#"{{"movie":"{title}"}}"#);
        until("the event came", || told().contains(&input)).await;
        assert_eq!(told(), ["handed over", &input]);
        stop.cancel();
        delivering.await.unwrap().unwrap();
    }
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
