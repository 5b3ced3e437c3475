//! What both kinds of producers agree on: how long a transaction may last, how much goes together, and which failures pass.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tributary_event::ErrorClass;

use super::client::KafkaSettings;
use super::reader::Reader;
use super::wire::Fault;
use crate::contract::{Batch, Purpose, RecordRef, TransportError};
use crate::headers::HeadersRef;
use crate::numbers::{Numbers, topics};

/// How long opening a producer may take: an unfinished transaction of its predecessor is ended first.
pub(super) const INIT: Duration = Duration::from_secs(60);
/// How often an append is repeated at once because a broker was lost or a leader moved.
pub(super) const REPEATS: u32 = 3;
/// How long another's unfinished transaction is waited for that hides checkpoints.
const READABLE: Duration = Duration::from_secs(15);
/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Bytes that are gathered before other tasks get a turn.
pub(super) const TURN: usize = 128 << 10;
/// Records of one partition that go together, in bytes before compression. With it incompressible records stay under the
/// brokers' default limit, 1,048,588 bytes.
pub(super) const TOGETHER: usize = 1_000_000;
/// As [`TOGETHER`], for a topic that takes less.
const TOGETHER_AT_LEAST: usize = 8_000;

/// How a transaction ended, if not well.
pub(super) enum Ended {
    /// Nothing of it is visible, and the next may begin.
    Aborted(Fault),
    Failed(TransportError),
}

/// Where the numbers of a topic go on, as a record of the checkpoints' topic.
pub(super) struct Kept {
    pub of: Arc<str>,
    pub name: String,
    pub content: Vec<u8>,
}

impl Kept {
    /// Those of a batch, without content.
    pub fn names(numbers: Option<&Numbers>, batch: &Batch) -> Vec<Self> {
        let Some(numbers) = numbers else { return Vec::new() };
        let name = |of: Arc<str>| Self { name: numbers.name(&of), of, content: Vec::new() };
        topics(batch).into_iter().map(name).collect()
    }
}

/// Reads where numbers go on, if that was not read yet. The producer is open, so its predecessor has nothing under way.
pub(super) async fn read_numbers(numbers: &mut Option<Numbers>, reader: &Arc<Reader>) -> Result<(), TransportError> {
    let Some(numbers) = numbers.as_mut().filter(|numbers| !numbers.are_read()) else { return Ok(()) };
    let start = tokio::time::Instant::now();
    loop {
        let (reader, prefix) = (reader.clone(), numbers.prefix());
        let read = tokio::task::spawn_blocking(move || {
            reader.checkpoints_are_readable()?;
            reader.kept(&prefix)
        });
        let read = read.await.unwrap_or_else(|error| {
            Err(TransportError::caused(ErrorClass::Fatal, "a call of Kafka was interrupted", error))
        });
        match read {
            Ok(kept) => {
                numbers.read(kept.iter().map(|(name, content)| (name.as_str(), content.as_ref())));
                return Ok(());
            }
            Err(error) if error.class == ErrorClass::Transient && start.elapsed() < READABLE => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The batch's records, and behind them its checkpoint and where its numbers go on, which are of `topic`.
pub(super) fn records<'a>(
    batch: &'a Batch,
    topic: &'a Arc<str>,
    kept: &'a [Kept],
) -> impl Iterator<Item = RecordRef<'a>> {
    let entry = |name: &'a str, content: &'a [u8]| RecordRef {
        topic,
        key: Some(name.as_bytes()),
        value: Some(content),
        headers: HeadersRef::NONE,
        timestamp_ms: now_ms(),
    };
    let checkpoint = batch.checkpoint.as_ref().map(|checkpoint| entry(&checkpoint.name, &checkpoint.content));
    batch.records().chain(checkpoint).chain(kept.iter().map(move |kept| entry(&kept.name, &kept.content)))
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// How much goes together of topics that take less than [`TOGETHER`].
#[derive(Default)]
pub(super) struct Together(BTreeMap<String, usize>);

impl Together {
    /// What goes together of this topic, if it takes less than usual.
    pub fn less(&self, topic: &str) -> Option<usize> {
        self.0.get(topic).copied()
    }

    /// Whether less goes together from now on, of the topic that refused a batch.
    pub fn shrink(&mut self, fault: &Fault) -> bool {
        let too_large = matches!(fault.code, Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge));
        let Some(topic) = fault.topic.as_ref().filter(|_| too_large) else { return false };
        let together = self.0.entry(topic.clone()).or_insert(TOGETHER);
        let can = *together > TOGETHER_AT_LEAST;
        // Where even that is too much a record is too large by itself, and others need not suffer.
        *together = if can { *together / 5 } else { TOGETHER };
        can
    }
}

/// A broker went away or a leader moved, as happens when brokers are restarted one by one.
pub(super) fn is_passing(fault: &Fault) -> bool {
    match fault.code {
        None => fault.class == ErrorClass::Transient,
        Some(code) => matches!(
            code,
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::FencedLeaderEpoch
                | Code::KafkaStorageError
                | Code::UnknownTopicOrPartition
                | Code::InvalidProducerIdMapping
                // What librdkafka says of records that brokers did not answer for, and of those behind records that were refused:
                // it asks for another epoch only then.
                | Code::MessageTimedOut
                | Code::OutOfOrderSequenceNumber
        ),
    }
}

/// How long a transaction may last: what `transaction.timeout.ms` says, or as long as the purpose wants.
pub(super) fn limit(settings: &KafkaSettings, purpose: Purpose) -> Result<Duration, TransportError> {
    let Some(text) = settings.properties.get("transaction.timeout.ms") else { return Ok(purpose.limit()) };
    let limit = text.parse::<i32>().ok().filter(|limit| *limit > 0);
    limit.map(|limit| Duration::from_millis(limit as u64)).ok_or_else(|| {
        let text =
            format!("transaction.timeout.ms is {text:?}; say milliseconds, 1 or more (in the transport's properties)");
        TransportError::new(ErrorClass::Fatal, text)
    })
}

/// What a producer says that is not the owner of its name any more.
pub(super) fn fenced(name: &str, limit: Duration) -> String {
    format!(
        "another process took over as {name}, or brokers were away for longer than a transaction may last ({limit:?}, \
         transaction.timeout.ms in the transport's properties); this one must stop, and goes on at its last checkpoint when it \
         is started again"
    )
}

/// What it says when a commit cannot be told from none.
pub(super) fn in_doubt(name: &str, cause: &str) -> String {
    format!("it is unknown whether the last append of {name} is durable ({cause}); restart to find out")
}
