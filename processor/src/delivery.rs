//! Deliveries: the events of a stream's own topic into one sink outside of the transport. Each sink has a group of readers of its own, so
//! one that is away, slow or refuses holds up neither the stream nor other sinks.
//!
//! There are two kinds of sinks (see [`crate::sink`]): those that are told (`told`), where the group's offset follows what arrived, and
//! those with a ledger (`ledger`), which keep the offset themselves.

mod event;
mod lanes;
mod ledger;
mod letters;
mod told;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{DeliveryOrder, DeliveryPlan, SinkPlan, own_topic};
use tributary_event::Reporter;
use tributary_event::clock::now_us;
use tributary_event::traces::{self, Begun, Context, SpanKind, TRACEPARENT};
use tributary_transport::{Consumer, ConsumerSettings, Loss, Polled, TopicPartition, Transport};

use crate::answered::until_answered;
use crate::intake::{self, IntakeSettings, Lag, StageError};
use crate::parked::Parked;
use crate::sink::{DeliverySink, LedgerSink, OutEvent};

/// Records of one reading at most.
const READ: usize = 2_000;
/// Events behind such as have not arrived, from which on partitions are held to their share: after a crash they are delivered once more.
const AHEAD: usize = 100_000;
/// How often letters are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What takes the events.
#[derive(Clone)]
pub enum Sink {
    /// It is told of them.
    Told(Arc<dyn DeliverySink>),
    /// It keeps the offset beside them.
    Ledger(Arc<dyn LedgerSink>),
}

/// A sink of a stream of a pipeline that runs.
pub struct Delivery {
    /// The pipeline's name.
    pub pipeline: String,
    /// The stream's name.
    pub stream: String,
    /// What it does.
    pub plan: Arc<DeliveryPlan>,
    /// What takes the events.
    pub sink: Sink,
    /// Where they come from.
    pub transport: Arc<dyn Transport>,
    /// What it has set aside.
    pub parked: Arc<Parked>,
    /// How its reader is.
    pub reading: Reporter,
    /// How the sink is.
    pub working: Reporter,
    /// How many events it has not done.
    pub lag: Lag,
}

impl Delivery {
    /// The stage of its dead letters, and its name in messages.
    pub fn stage(stream: &str, sink: &str) -> String {
        format!("sink {stream}/{sink}")
    }

    /// The group that reads for it.
    pub fn group(&self) -> String {
        format!("{}.{}.{}.sink", self.pipeline, self.stream, self.plan.name)
    }

    /// Runs until shutdown or a fatal error.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        let stage = Self::stage(&self.stream, &self.plan.name);
        let settings = ConsumerSettings {
            group: self.group(),
            topics: vec![own_topic(&self.pipeline, &self.stream)],
            max_records: READ,
            // What a new sink gets begins with what the stream's topic still has.
            from_start: true,
        };
        let join = || self.transport.consumer(settings.clone());
        let joined = until_answered(&self.reading, "join the group of a sink", &shutdown, join).await;
        let consumer: Option<Box<dyn Consumer>> = joined.map_err(|e| StageError::new(&stage, e.message))?;
        let Some(consumer) = consumer else { return Ok(()) };
        let settings = IntakeSettings { lag: self.lag.clone(), ..IntakeSettings::new(&*stage) };
        let reading = self.reading.clone();
        self.working.up();
        match self.sink.clone() {
            Sink::Told(sink) => {
                let settings = IntakeSettings { max_ahead: AHEAD, ..settings };
                let work = Arc::new(told::Work::new(self, sink));
                let running = intake::run(consumer, work.clone(), settings, reading, shutdown.clone());
                tokio::select! {
                    ended = running => ended,
                    ended = work.run() => ended,
                }
            }
            Sink::Ledger(sink) => {
                let (max_records, max_bytes) = ledger::room(sink.as_ref());
                let settings = IntakeSettings { max_records, max_bytes, ..settings };
                let work = Arc::new(ledger::Work::new(self, sink, shutdown.clone()));
                let running = intake::run(consumer, work.clone(), settings, reading, shutdown);
                tokio::select! {
                    ended = running => ended,
                    ended = work.run() => ended,
                }
            }
        }
    }

    /// The event of a record; none: it is none, or is not for the sink. `Err`: that cannot be said, and why.
    fn event(&self, record: &Polled) -> Result<Option<OutEvent>, String> {
        let event = event::of(record, self.plan.when.as_ref(), self.made())?;
        // What became of one workflow of a key says nothing of the next one where both are under way together.
        let is_alone = self.plan.order == DeliveryOrder::None && matches!(self.plan.sink, SinkPlan::Conductor(_));
        Ok(event.map(|event| OutEvent { key: event.key.filter(|_| !is_alone), ..event }))
    }

    /// What the sink gets of an event.
    fn made(&self) -> event::Made<'_> {
        match &self.plan.sink {
            SinkPlan::Sql(sql) => event::Made::Row(&sql.row),
            SinkPlan::Index(index) => event::Made::Row(&index.row),
            SinkPlan::Conductor(conductor) => conductor.input.as_ref().map_or(event::Made::Event, event::Made::Input),
            SinkPlan::Webhook(_) | SinkPlan::Files(_) => event::Made::Event,
        }
    }

    /// Tells of events that are gone.
    fn lacks(&self, losses: &[Loss]) {
        for Loss { place, from, to, .. } in losses {
            let (stream, sink, partition) = (&self.stream, &self.plan.name, place.partition);
            metrics::counter!("tributary_stream_lost_records_total", "stream" => stream.clone())
                .increment(to.saturating_sub(*from).max(1));
            tracing::warn!(
                stream,
                sink,
                partition,
                from,
                to,
                "events were removed from a stream's topic before a sink read them; it lacks them (raise the retention of the transport)"
            );
        }
    }

    /// What became of a record, if it is traced: so long after it was tried first. `span`: that of its delivery, if others were told of it.
    fn traced(
        &self,
        (record, span): (&Polled, Option<Context>),
        took: Duration,
        outcome: &str,
        tries: u32,
        error: Option<&str>,
    ) {
        if !traces::is_on() {
            return;
        }
        let Some(parent) = traces::continued(record.headers.view().get(TRACEPARENT)) else { return };
        let begun_us = now_us().saturating_sub(i64::try_from(took.as_micros()).unwrap_or(i64::MAX));
        let TopicPartition { topic, partition } = &record.place;
        let mut attributes = vec![
            ("tributary.stream", self.stream.clone()),
            ("tributary.sink", self.plan.name.clone()),
            ("tributary.record", format!("{topic}/{partition}/{}", record.offset)),
            ("tributary.outcome", outcome.to_owned()),
            ("tributary.tries", tries.to_string()),
        ];
        attributes.extend(self.parked.plan().map(|plan| ("tributary.plan", plan.to_string())));
        let name = format!("sink {}/{}", self.stream, self.plan.name);
        let begun = Begun::of(span.unwrap_or_else(|| parent.child()), parent);
        begun.since(begun_us).end(name, SpanKind::Client, attributes, error.map(str::to_owned));
    }

    /// Counts what became of events.
    fn count(&self, outcome: &'static str, events: usize) {
        if events > 0 {
            metrics::counter!(
                "tributary_sink_events_total",
                "stream" => self.stream.clone(),
                "sink" => self.plan.name.clone(),
                "outcome" => outcome
            )
            .increment(events as u64);
        }
    }
}
