//! Streams: change events in, through the steps of a plan, into topics; each event once.
//!
//! Every partition of the stream's tables has a producer of its own. What a run of records has become is appended together with the
//! offset up to which it was read, the partition's mark: both are durable, or none. Whoever takes the partition over opens the producer
//! anew, which ends what its former owner still does, and goes on from the mark. The group's offsets follow, and may be behind: what lies
//! before the mark is not done twice.
//!
//! A step that fails stands still: nothing is skipped, `/health` says which event it is and what to do, and other partitions, streams and
//! indexes go on.

mod partition;
mod steps;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::plan::{Start, StreamPlan};
use tributary_event::Reporter;
use tributary_transport::{Assignment, Consumer, ConsumerSettings, Loss, Polled, TopicPartition, Transport};

use self::partition::Partition;
use self::steps::Steps;
use crate::answered::until_answered;
use crate::intake::{self, Handler, IntakeSettings, Lag, StageError};
use crate::tickets::Ticket;

/// Records of one delivery at most.
const DELIVERY: usize = 2_000;

/// A stream of a pipeline that runs.
pub struct Stream {
    /// The pipeline's name.
    pub pipeline: String,
    /// What it does.
    pub plan: Arc<StreamPlan>,
    /// Where events come from and go to.
    pub transport: Arc<dyn Transport>,
    /// How its reader is.
    pub reading: Reporter,
    /// How its steps and its sinks are.
    pub working: Reporter,
    /// How many events it has not done.
    pub lag: Lag,
}

impl Stream {
    /// The group that reads it.
    pub fn group(&self) -> String {
        format!("{}.{}.stream", self.pipeline, self.plan.name)
    }

    /// Runs until shutdown or a fatal error.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        let stage = format!("stream {}", self.plan.name);
        let failed = |message: String| StageError::new(&stage, message);
        let settings = ConsumerSettings {
            group: self.group(),
            topics: self.plan.from.iter().map(|table| table.topic.clone()).collect(),
            max_records: DELIVERY,
            from_start: self.plan.start == Start::First,
        };
        let join = || self.transport.consumer(settings.clone());
        let joined = until_answered(&self.reading, "join the group of a stream", &shutdown, join).await;
        let Some(consumer): Option<Box<dyn Consumer>> = joined.map_err(|e| failed(e.message))? else { return Ok(()) };
        let settings = IntakeSettings { lag: self.lag.clone(), ..IntakeSettings::new(&*stage) };
        let reading = self.reading.clone();
        self.working.up();
        let handler = Work {
            steps: Arc::new(Steps::new(&self.plan)),
            stream: self,
            partitions: Mutex::default(),
            shutdown: shutdown.clone(),
        };
        intake::run(consumer, Arc::new(handler), settings, reading, shutdown).await
    }
}

/// The work on the partitions that are this process's.
struct Work {
    stream: Stream,
    steps: Arc<Steps>,
    partitions: Mutex<HashMap<TopicPartition, Partition>>,
    shutdown: CancellationToken,
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        let mut by_place: HashMap<TopicPartition, Vec<(Polled, Ticket)>> = HashMap::new();
        for record in records {
            by_place.entry(record.0.place.clone()).or_default().push(record);
        }
        let mut partitions = self.partitions.lock().await;
        let mut working = JoinSet::new();
        for (place, records) in by_place {
            // Of one that was revoked meanwhile, the records are another process's.
            let Some(mut partition) = partitions.remove(&place) else { continue };
            let (steps, health) = (self.steps.clone(), self.stream.working.clone());
            working.spawn(async move {
                partition.work(&steps, records, &health).await;
                (place, partition)
            });
        }
        while let Some(worked) = working.join_next().await {
            let panicked =
                |e| StageError::new(format!("stream {}", self.stream.plan.name), format!("a task panicked: {e}"));
            let (place, partition) = worked.map_err(panicked)?;
            partitions.insert(place, partition);
        }
        self.tell(&partitions);
        Ok(())
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        for Assignment { place, .. } in assignments {
            let open = || Partition::open(&self.stream, place);
            let what = "take a partition of a stream over";
            let opened = until_answered(&self.stream.working, what, &self.shutdown, open).await;
            let failed = |e: tributary_transport::TransportError| {
                StageError::new(format!("stream {}", self.stream.plan.name), e.message)
            };
            let Some(partition) = opened.map_err(failed)? else { return Ok(()) };
            self.partitions.lock().await.insert(place.clone(), partition);
        }
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        let mut partitions = self.partitions.lock().await;
        partitions.retain(|place, _| !places.contains(place));
        self.tell(&partitions);
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        let mut partitions = self.partitions.lock().await;
        for Loss { place, from, to } in losses {
            let (stream, topic, partition) = (&self.stream.plan.name, &*place.topic, place.partition);
            metrics::counter!("tributary_stream_lost_records_total", "stream" => stream.clone())
                .increment(to.saturating_sub(*from).max(1));
            warn!(
                stream,
                topic,
                partition,
                from,
                to,
                "records were removed from a topic before the stream read them; its sinks lack what they would have become (raise the \
                 retention of the transport)"
            );
            if let Some(partition) = partitions.get_mut(place) {
                partition.goes_on_from(*to);
            }
        }
        Ok(())
    }
}

impl Work {
    /// Says whether all partitions go on.
    fn tell(&self, partitions: &HashMap<TopicPartition, Partition>) {
        match partitions.values().find_map(Partition::standstill) {
            Some(why) => {
                if self.stream.working.down(why) {
                    warn!(stream = self.stream.plan.name, error = why, "a stream stands still; nothing is skipped");
                }
            }
            None => {
                self.stream.working.up();
            }
        }
    }
}
