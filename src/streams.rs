//! The streams of a running pipeline, their services and their sinks. They need no graph: they begin as soon as the transport has their
//! topics.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::Definition;
use tributary_dsl::plan::{DeliveryPlan, IndexSinkPlan, SinkPlan, StepPlan, StreamPlan, own_topic};
use tributary_event::{Health, Reporter};
use tributary_indexer::request::names;
use tributary_indexer::rows::{RowIndex, RowSink};
use tributary_indexer::store::{DocumentStore, open};
use tributary_processor::{Delivery, Enricher, Lag, OutsideError, Parked, Sink, Stream, Table, Taps, Tasks, supervise};
use tributary_services::{Asking, Service};
use tributary_sinks::{Conductor, Files, Sql, Webhook};
use tributary_transport::{DeadLetters, Retention, TopicSpec, Transport, dead_letter};

use crate::backends::retention;
use crate::exit::Failure;

/// The topics that streams write: those of users, their own, and that of what is set aside.
pub fn topics(definition: &Definition) -> Vec<TopicSpec> {
    let retention = retention(definition);
    let partitions = definition.transport().partitions();
    let spec = |name: String, retention: &Retention| TopicSpec { name, partitions, retention: retention.clone() };
    let mut topics = vec![dead_letter::spec(&names::dead_letters(definition.pipeline()))];
    for stream in definition.streams() {
        topics.extend(stream.topics.iter().map(|sink| {
            let kept = if sink.compact { &Retention::Compact } else { &retention };
            spec(sink.name.clone(), kept)
        }));
        if stream.keeps_events {
            topics.push(spec(own_topic(definition.pipeline(), &stream.name), &retention));
        }
    }
    topics
}

/// The streams of a pipeline, with what they ask and where they lead. Nothing of it runs yet.
#[derive(Default)]
pub struct Streams {
    streams: Vec<Stream>,
    deliveries: Vec<Delivery>,
    /// What steps look into, with what reads them and how they are.
    tables: Vec<(Arc<Table>, Arc<dyn Transport>, Reporter)>,
    /// The indexes that streams fill, by name.
    pub indexes: HashMap<String, Arc<dyn DocumentStore>>,
}

/// What every part of a pipeline's streams is made with.
struct Parts<'a> {
    definition: &'a Definition,
    transport: Arc<dyn Transport>,
    health: &'a Health,
    taps: Arc<Taps>,
    letters: DeadLetters,
    services: HashMap<String, Arc<Service>>,
    tables: HashMap<String, Arc<Table>>,
}

impl Streams {
    /// Opens them. Nothing is connected to.
    ///
    /// # Errors
    /// A service or a sink cannot be used as it is described.
    pub fn open(
        definition: &Definition,
        transport: Arc<dyn Transport>,
        health: &Health,
        taps: Arc<Taps>,
    ) -> Result<Self, Failure> {
        let services = definition.services().iter().map(|plan| {
            let service = Service::new(plan, health.part(format!("service {}", plan.name)))?;
            Ok((plan.name.clone(), service))
        });
        let services: Result<HashMap<String, Arc<Service>>, OutsideError> = services.collect();
        let letters = DeadLetters::new(transport.clone(), names::dead_letters(definition.pipeline()));
        let mut opened = Self::default();
        let mut tables = HashMap::new();
        for plan in definition.tables() {
            let table = Table::new(plan.clone());
            let part = health.part(format!("table {}", plan.name));
            opened.tables.push((table.clone(), transport.clone(), part));
            tables.insert(plan.name.clone(), table);
        }
        let services = services.map_err(unusable)?;
        let parts = Parts { definition, transport, health, taps, letters, services, tables };
        for plan in definition.streams() {
            opened.streams.push(parts.stream(plan)?);
            for delivery in &plan.deliveries {
                let sink = match &delivery.sink {
                    SinkPlan::Webhook(webhook) => Sink::Told(Arc::new(Webhook::new(webhook).map_err(unusable)?)),
                    SinkPlan::Conductor(conductor) => {
                        Sink::Told(Arc::new(Conductor::new(conductor, &delivery.name).map_err(unusable)?))
                    }
                    SinkPlan::Sql(sql) => {
                        // Pipelines may share a database.
                        let stream = format!("{}.{}", definition.pipeline(), plan.name);
                        Sink::Ledger(Arc::new(Sql::new(sql, &stream, &delivery.name).map_err(unusable)?))
                    }
                    SinkPlan::Files(files) => Sink::Ledger(Arc::new(Files::new(files, &plan.name, &delivery.name))),
                    SinkPlan::Index(index) => {
                        let store = open(&index.store, &index.name, definition.data());
                        let store = store.map_err(|e| Failure::of(e.class, e.message))?;
                        opened.indexes.insert(index.name.clone(), store.clone());
                        let key = index.row.key.clone();
                        Sink::Told(Arc::new(RowSink { index: Arc::new(RowIndex::new(store, index)), key }))
                    }
                };
                opened.deliveries.push(parts.delivery(plan, delivery, sink));
            }
        }
        Ok(opened)
    }

    /// Runs them until shutdown or a fatal error.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let mut tasks: Tasks<Failure> = JoinSet::new();
        for (table, transport, health) in self.tables {
            let shutdown = shutdown.clone();
            tasks.spawn(async move {
                table.follow(transport, health, shutdown).await;
                Ok(())
            });
        }
        for stream in self.streams {
            let shutdown = shutdown.clone();
            tasks.spawn(async move { stream.run(shutdown).await.map_err(|e| Failure::Stopped(e.to_string())) });
        }
        for delivery in self.deliveries {
            let shutdown = shutdown.clone();
            tasks.spawn(async move { delivery.run(shutdown).await.map_err(|e| Failure::Stopped(e.to_string())) });
        }
        supervise(&mut tasks, &shutdown, Failure::Stopped).await
    }
}

fn unusable(error: OutsideError) -> Failure {
    Failure::of(error.class, error.message)
}

impl Parts<'_> {
    fn stream(&self, plan: &StreamPlan) -> Result<Stream, Failure> {
        let mut enrichers: HashMap<String, Arc<dyn Enricher>> = HashMap::new();
        for step in &plan.steps {
            let enricher: Option<Arc<dyn Enricher>> = match &step.plan {
                StepPlan::Enrich(enrich) => match self.services.get(&enrich.service) {
                    Some(service) => Some(Asking::new(service.clone(), enrich).map_err(unusable)?),
                    None => None,
                },
                StepPlan::Lookup(lookup) => {
                    self.tables.get(&lookup.table).map(|table| table.clone() as Arc<dyn Enricher>)
                }
                _ => None,
            };
            enrichers.extend(enricher.map(|enricher| (step.name.clone(), enricher)));
        }
        Ok(Stream {
            pipeline: self.definition.pipeline().to_owned(),
            plan: Arc::new(plan.clone()),
            transport: self.transport.clone(),
            enrichers,
            taps: self.taps.clone(),
            parked: Arc::new(Parked::new(self.letters.clone(), Stream::stage(&plan.name))),
            reading: self.health.part(format!("reader of stream {}", plan.name)),
            working: self.health.part(format!("stream {}", plan.name)),
            lag: Lag::default(),
        })
    }

    fn delivery(&self, stream: &StreamPlan, plan: &DeliveryPlan, sink: Sink) -> Delivery {
        let stage = Delivery::stage(&stream.name, &plan.name);
        Delivery {
            pipeline: self.definition.pipeline().to_owned(),
            stream: stream.name.clone(),
            plan: Arc::new(plan.clone()),
            sink,
            transport: self.transport.clone(),
            parked: Arc::new(Parked::new(self.letters.clone(), &*stage)),
            reading: self.health.part(format!("reader of {stage}")),
            working: self.health.part(stage),
            lag: Lag::default(),
        }
    }
}

/// The indexes that streams fill.
pub fn row_indexes(streams: &[StreamPlan]) -> impl Iterator<Item = &IndexSinkPlan> {
    streams.iter().flat_map(|stream| &stream.deliveries).filter_map(|delivery| match &delivery.sink {
        SinkPlan::Index(index) => Some(index),
        _ => None,
    })
}
