//! One stream with what it asks and where it leads: opened of a plan, run until it is told to stop.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::Definition;
use tributary_dsl::plan::{DeliveryOrder, DeliveryPlan, SinkPlan, StepPlan, StreamPlan};
use tributary_event::Health;
use tributary_indexer::rows::{RowIndex, RowSink};
use tributary_indexer::store::{DocumentStore, open};
use tributary_processor::{
    Changes, Delivery, Enricher, Lag, OutsideError, Parked, Sink, Stream, Table, Taps, Tasks, supervise,
};
use tributary_services::{Asking, Service};
use tributary_sinks::{Conductor, Files, Sql, Webhook};
use tributary_transport::{DeadLetters, Transport};

use super::falling::Falling;
use crate::cli::exit::Failure;

/// What every stream of a pipeline is made with.
pub(super) struct Parts<'a> {
    pub definition: &'a Definition,
    pub transport: &'a Arc<dyn Transport>,
    pub health: &'a Health,
    pub taps: &'a Arc<Taps>,
    pub letters: &'a DeadLetters,
    pub services: &'a HashMap<String, Arc<Service>>,
    pub tables: &'a HashMap<String, Arc<Table>>,
    /// What lets answers fall, if any are kept that may.
    pub falling: Option<&'a Arc<Falling>>,
}

/// A stream that may run.
pub(super) struct Unit {
    /// Its name.
    pub name: String,
    /// The indexes that it fills.
    pub indexes: Vec<(String, Arc<dyn DocumentStore>)>,
    stream: Stream,
    deliveries: Vec<Delivery>,
}

impl Unit {
    /// Opens a stream. Nothing is connected to.
    ///
    /// # Errors
    /// A service or a sink cannot be used as it is described.
    pub fn open(parts: &Parts, plan: &StreamPlan) -> Result<Self, Failure> {
        let mut unit =
            Self { name: plan.name.clone(), indexes: Vec::new(), stream: parts.stream(plan)?, deliveries: Vec::new() };
        for delivery in &plan.deliveries {
            let sink = match &delivery.sink {
                SinkPlan::Webhook(webhook) => Sink::Told(Arc::new(Webhook::new(webhook).map_err(unusable)?)),
                SinkPlan::Conductor(conductor) => {
                    Sink::Told(Arc::new(Conductor::new(conductor, &delivery.name).map_err(unusable)?))
                }
                SinkPlan::Sql(sql) => {
                    // Pipelines may share a database.
                    let stream = format!("{}.{}", parts.definition.pipeline(), plan.name);
                    Sink::Ledger(Arc::new(Sql::new(sql, &stream, &delivery.name).map_err(unusable)?))
                }
                SinkPlan::Files(files) => {
                    Sink::Ledger(Arc::new(Files::new(files, &plan.name, &delivery.name).map_err(unusable)?))
                }
                SinkPlan::Index(index) => {
                    let store = open(&index.store, &index.name, parts.definition.data());
                    let store = store.map_err(|e| Failure::of(e.class, e.message))?;
                    unit.indexes.push((index.name.clone(), store.clone()));
                    let key = index.row.key.clone();
                    Sink::Told(Arc::new(RowSink { index: Arc::new(RowIndex::new(store, index)), key }))
                }
            };
            unit.deliveries.push(parts.delivery(plan, delivery, sink));
        }
        Ok(unit)
    }

    /// The names of its parts in `/health`.
    pub fn health_parts(&self) -> Vec<String> {
        let stage = Stream::stage(&self.name);
        let of_deliveries = self.deliveries.iter().map(|delivery| Delivery::stage(&self.name, &delivery.plan.name));
        std::iter::once(stage).chain(of_deliveries).flat_map(|stage| [format!("reader of {stage}"), stage]).collect()
    }

    /// Runs it until shutdown or a fatal error; `kill` ends it without waiting for what is under way.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(self, shutdown: CancellationToken, kill: CancellationToken) -> Result<(), Failure> {
        let mut tasks: Tasks<Failure> = JoinSet::new();
        let (stream, stop) = (self.stream, shutdown.clone());
        tasks.spawn(async move { stream.run(stop).await.map_err(|e| Failure::Stopped(e.to_string())) });
        for delivery in self.deliveries {
            let stop = shutdown.clone();
            tasks.spawn(async move { delivery.run(stop).await.map_err(|e| Failure::Stopped(e.to_string())) });
        }
        tokio::select! {
            ended = supervise(&mut tasks, &shutdown, Failure::Stopped) => ended,
            () = kill.cancelled() => {
                tasks.shutdown().await;
                Ok(())
            }
        }
    }
}

pub(super) fn unusable(error: OutsideError) -> Failure {
    Failure::of(error.class, error.message)
}

impl Parts<'_> {
    fn stream(&self, plan: &StreamPlan) -> Result<Stream, Failure> {
        let mut enrichers: HashMap<String, Arc<dyn Enricher>> = HashMap::new();
        for step in &plan.steps {
            let enricher: Option<Arc<dyn Enricher>> = match &step.plan {
                StepPlan::Enrich(enrich) => match self.services.get(&enrich.service) {
                    Some(service) => {
                        let held = self.falling.map(|falling| falling.held.clone());
                        Some(Asking::new(service.clone(), enrich, held).map_err(unusable)?)
                    }
                    None => None,
                },
                StepPlan::Lookup(lookup) => {
                    self.tables.get(&lookup.table).map(|table| table.clone() as Arc<dyn Enricher>)
                }
                _ => None,
            };
            enrichers.extend(enricher.map(|enricher| (step.name.clone(), enricher)));
        }
        let hash = self.definition.plan_hash(plan);
        Ok(Stream {
            pipeline: self.definition.pipeline().to_owned(),
            plan: Arc::new(plan.clone()),
            transport: self.transport.clone(),
            enrichers,
            changes: self.falling.map(|falling| falling.clone() as Arc<dyn Changes>),
            taps: self.taps.clone(),
            parked: Arc::new(Parked::new(self.letters.clone(), Stream::stage(&plan.name)).of_plan(hash)),
            reading: self.health.reporter(format!("reader of stream {}", plan.name)),
            working: self.health.reporter(format!("stream {}", plan.name)),
            lag: Lag::default(),
        })
    }

    fn delivery(&self, stream: &StreamPlan, plan: &DeliveryPlan, sink: Sink) -> Delivery {
        let stage = Delivery::stage(&stream.name, &plan.name);
        let parked = Parked::new(self.letters.clone(), &*stage).each_alone(plan.order == DeliveryOrder::None);
        Delivery {
            pipeline: self.definition.pipeline().to_owned(),
            stream: stream.name.clone(),
            plan: Arc::new(plan.clone()),
            sink,
            transport: self.transport.clone(),
            parked: Arc::new(parked.of_plan(self.definition.plan_hash(stream))),
            reading: self.health.reporter(format!("reader of {stage}")),
            working: self.health.reporter(stage),
            lag: Lag::default(),
        }
    }
}
