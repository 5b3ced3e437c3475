//! Tables that steps look into: a topic, whole, in the memory of each process. It is read from its beginning when a pipeline starts, and
//! followed from there; a stream that looks into it waits until it is whole. All events that are looked for together see one state of it.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value as Json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::plan::LookupTable;
use tributary_event::Reporter;
use tributary_expression::{Flow, json};
use tributary_transport::{Polled, TopicPartition, Transport, TransportError};

use crate::outside::{Answer, Enricher, OutsideError};
use crate::retry::Backoff;

/// Records that are read at a time.
const PAGE: usize = 2_000;
/// How often it is looked for new records.
const LOOK: Duration = Duration::from_millis(100);
/// The longest that a program may take for one record.
const DEADLINE: Duration = Duration::from_millis(50);

/// A table that steps look into.
pub struct Table {
    plan: LookupTable,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    rows: HashMap<Bytes, Bytes>,
    /// Bytes of all keys and values.
    size: u64,
    is_whole: bool,
    /// Why it cannot be looked into.
    trouble: Option<String>,
}

impl Table {
    /// A table, of which nothing is known yet.
    pub fn new(plan: LookupTable) -> Arc<Self> {
        Arc::new(Self { plan, state: RwLock::default() })
    }

    /// Reads the topic and follows it, until shutdown.
    pub async fn follow(self: Arc<Self>, transport: Arc<dyn Transport>, health: Reporter, shutdown: CancellationToken) {
        health.down("it is being read");
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut offsets: Vec<u64> = Vec::new();
        while !shutdown.is_cancelled() {
            let read = self.read(transport.as_ref(), &mut offsets).await;
            if shutdown.is_cancelled() {
                return;
            }
            let pause = match read {
                Ok(()) => {
                    backoff.reset();
                    self.tell(&health);
                    LOOK
                }
                Err(error) => {
                    if health.down(error.message.clone()) {
                        warn!(table = self.plan.name, error = error.message, "a table cannot be read; trying again");
                    }
                    backoff.pause()
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// Reads what is new, to the ends of all partitions.
    async fn read(&self, transport: &dyn Transport, offsets: &mut Vec<u64>) -> Result<(), TransportError> {
        if self.write().trouble.is_some() {
            return Ok(());
        }
        let ends = transport.watermarks(&self.plan.topic).await?;
        if ends.is_empty() {
            let message = format!("there is no topic {} for the table {}", self.plan.topic, self.plan.name);
            return Err(TransportError::new(tributary_event::ErrorClass::Transient, message));
        }
        let is_anew = ends.iter().zip(offsets.iter()).any(|(ends, offset)| ends.high < *offset);
        if is_anew {
            info!(table = self.plan.name, topic = self.plan.topic, "the topic was made anew; the table is read again");
            offsets.clear();
            *self.write() = State::default();
        }
        offsets.resize(ends.len(), 0);
        for (partition, (ends, offset)) in ends.iter().zip(offsets.iter_mut()).enumerate() {
            let place = TopicPartition { topic: self.plan.topic.as_str().into(), partition: partition as u32 };
            *offset = (*offset).max(ends.low);
            while *offset < ends.high && self.write().trouble.is_none() {
                let records = transport.read(&place, *offset, PAGE).await?;
                // What is left has no records in it: marks of transactions.
                let Some(last) = records.last() else { break };
                *offset = last.offset + 1;
                self.apply(&records);
            }
        }
        let mut state = self.write();
        if !state.is_whole && state.trouble.is_none() {
            info!(table = self.plan.name, rows = state.rows.len(), bytes = state.size, "a table is whole");
        }
        state.is_whole = true;
        Ok(())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn apply(&self, records: &[Polled]) {
        let changes: Vec<(Option<Bytes>, Option<Bytes>)> =
            records.iter().map(|record| (self.key_of(record), record.value.clone())).collect();
        let mut state = self.write();
        for (key, value) in changes {
            let Some(key) = key else { continue };
            let (before, length) = (state.rows.remove(&key), key.len());
            state.size -= before.map_or(0, |before| (before.len() + length) as u64);
            if let Some(value) = value {
                state.size += (value.len() + length) as u64;
                state.rows.insert(key, value);
            }
        }
        let (name, limit) = (&self.plan.name, self.plan.limit);
        if state.size > limit {
            // It is not read any further.
            let rows = std::mem::take(&mut state.rows).len();
            state.trouble = Some(format!(
                "the table {name} has more than its `limit` of {limit} bytes, with {rows} rows: raise it"
            ));
            state.size = 0;
        }
    }

    /// What a record is known by. One that cannot be read is no row, which is told.
    fn key_of(&self, record: &Polled) -> Option<Bytes> {
        let (Some(program), Some(value)) = (&self.plan.key, &record.value) else {
            return record.key.as_deref().map(normal);
        };
        let place = || format!("{}/{}/{}", record.place.topic, record.place.partition, record.offset);
        let read = json::read(value).map_err(|e| e.to_string());
        let key = read.and_then(|value| {
            let mut flow = Flow::new(value);
            program.run(&mut flow, DEADLINE).map_err(|failure| failure.to_string())
        });
        match key {
            Ok(key) => json::key(&key).map(|key| normal(&key)),
            Err(error) => {
                warn!(table = self.plan.name, record = place(), error, "a record is no row of its table");
                None
            }
        }
    }

    fn tell(&self, health: &Reporter) {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let gauge =
            |name: &'static str, value: f64| metrics::gauge!(name, "table" => self.plan.name.clone()).set(value);
        gauge("tributary_table_rows", state.rows.len() as f64);
        gauge("tributary_table_bytes", state.size as f64);
        match &state.trouble {
            Some(trouble) => {
                if health.down(trouble.clone()) {
                    warn!(table = self.plan.name, error = trouble, "a table is too large");
                }
            }
            None => drop(health.up()),
        }
    }
}

/// A key however it is written: text as it is, anything else as JSON.
fn normal(key: &[u8]) -> Bytes {
    match serde_json::from_slice::<Json>(key) {
        Ok(Json::String(text)) => text.into_bytes().into(),
        Ok(json) => json.to_string().into_bytes().into(),
        Err(_) => Bytes::copy_from_slice(key),
    }
}

#[async_trait]
impl Enricher for Table {
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError> {
        let state = self.state.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(trouble) = &state.trouble {
            return Err(OutsideError::fatal(trouble.clone()));
        }
        if !state.is_whole {
            return Err(OutsideError::transient(format!("the table {} is not read to its end yet", self.plan.name)));
        }
        let answer = |key: &Bytes| match state.rows.get(&normal(key)) {
            Some(row) => Answer::Found(row.clone()),
            None => Answer::Missing,
        };
        Ok(keys.iter().map(answer).collect())
    }
}
