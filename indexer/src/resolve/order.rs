//! Whether the changes that an index reads are all there, once each and in order, by the running numbers that they have.
//!
//! Numbers that are missing are records that are gone: whatever documents they concern, the index is listed anew, as after a loss
//! that the transport told of by itself, which is no finding here. Records that came twice, or late, do no harm, for a build reads the
//! graph as it is now; but something does not keep what a topic promises, and that is told too.
//!
//! Where a partition became this process's, what stands before its first record is read beside the work, so that a loss while nobody
//! read is seen as well.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use tributary_event::{Reporter, Trouble};
use tributary_processor::StageError;
use tributary_transport::numbers::Sequence;
use tributary_transport::order::{Finding, Order};
use tributary_transport::{Assignment, Polled, TopicPartition, Transport};

use crate::resolve::lost::Concerned;

/// Offsets that are looked at before the first record of a partition.
const BEFORE: u64 = 64;

/// Watches the order of what an index reads.
pub(crate) struct Watcher {
    index: String,
    transport: Arc<dyn Transport>,
    concerned: Arc<Concerned>,
    health: Reporter,
    /// The topics whose records have numbers.
    topics: Vec<String>,
    state: Mutex<State>,
    /// There is a partition to look before.
    news: Notify,
}

#[derive(Default)]
struct State {
    orders: HashMap<TopicPartition, Order>,
    /// Where to look before an offset.
    before: VecDeque<(TopicPartition, u64)>,
    trouble: Trouble,
    /// Records that were found wrong, ever.
    found: u64,
}

impl Watcher {
    /// Watches these topics for an index, which is listed anew where they lack something.
    pub fn new(
        index: &str,
        topics: Vec<String>,
        transport: Arc<dyn Transport>,
        concerned: Arc<Concerned>,
        health: Reporter,
    ) -> Self {
        health.up();
        // Nothing found is a fact, too: a rate needs a beginning.
        for topic in &topics {
            [MISSING, DOUBLED, REORDERED].iter().for_each(|name| count(name, index, topic, 0));
        }
        let (state, news) = Default::default();
        Self { index: index.to_owned(), transport, concerned, health, topics, state, news }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Partitions became ours.
    pub fn assigned(&self, assignments: &[Assignment]) {
        let mut state = self.lock();
        for Assignment { place, committed } in assignments.iter().filter(|a| self.watches(&a.place)) {
            state.orders.insert(place.clone(), Order::default());
            if let Some(offset) = committed.filter(|offset| *offset > 0) {
                state.before.push_back((place.clone(), offset));
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Partitions are another's, or records of them are known to be lost: what was read of them says nothing about what comes.
    pub fn forget<'p>(&self, places: impl Iterator<Item = &'p TopicPartition>) {
        let mut state = self.lock();
        for place in places {
            state.orders.remove(place);
            state.before.retain(|(waiting, _)| waiting != place);
        }
    }

    fn watches(&self, place: &TopicPartition) -> bool {
        self.topics.iter().any(|topic| **topic == *place.topic)
    }

    /// Takes records as they were read. If some are missing before them, returns when it is durable that the index is listed anew.
    pub async fn take(&self, records: impl Iterator<Item = &Polled>) -> Result<(), StageError> {
        let mut missing = Vec::new();
        {
            let mut state = self.lock();
            let mut known: Option<(&TopicPartition, bool)> = None;
            for record in records {
                let watched = match known {
                    Some((place, watched)) if *place == record.place => watched,
                    _ => self.watches(&record.place),
                };
                known = Some((&record.place, watched));
                if !watched {
                    continue;
                }
                let order = match state.orders.get_mut(&record.place) {
                    Some(order) => order,
                    None => state.orders.entry(record.place.clone()).or_default(),
                };
                if let Some(finding) = order.take(record) {
                    missing.extend(self.tell(&mut state, &record.place, record.offset, finding));
                }
            }
        }
        for (place, why) in missing {
            self.concerned.list_anew(&place, &why).await?;
        }
        Ok(())
    }

    /// Looks at what stands before partitions that became ours, until shutdown.
    pub async fn look_before(&self, shutdown: CancellationToken) -> Result<(), StageError> {
        loop {
            let next = self.lock().before.pop_front();
            let Some((place, offset)) = next else {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.news.notified() => continue,
                }
            };
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                read = self.transport.read(&place, offset.saturating_sub(BEFORE), BEFORE as usize) => read,
            };
            let earlier = match read {
                Ok(earlier) => earlier,
                Err(error) => {
                    debug!(topic = %place.topic, partition = place.partition, %error, "what stands before is not known");
                    continue;
                }
            };
            let earlier: Vec<Polled> = earlier.into_iter().filter(|record| record.offset < offset).collect();
            let missing: Vec<_> = {
                let mut state = self.lock();
                let Some(order) = state.orders.get_mut(&place) else { continue };
                let findings = order.before(&earlier);
                findings.into_iter().filter_map(|finding| self.tell(&mut state, &place, offset, finding)).collect()
            };
            for (place, why) in missing {
                self.concerned.list_anew(&place, &why).await?;
            }
        }
    }

    /// Counts a finding and tells it. Where records are missing: why the index is listed anew.
    fn tell(
        &self,
        state: &mut State,
        place: &TopicPartition,
        offset: u64,
        finding: Finding,
    ) -> Option<(TopicPartition, String)> {
        let name = match finding {
            Finding::Missing { .. } => MISSING,
            Finding::Doubled { .. } => DOUBLED,
            Finding::Reordered { .. } => REORDERED,
        };
        count(name, &self.index, &place.topic, finding.records());
        state.found += finding.records();
        let why = say(place, offset, finding);
        let found = state.found;
        self.health.note(Some(format!("{why} ({found} records of this kind of trouble since this process started)")));
        if state.trouble.note(&why).is_some() {
            warn!(index = self.index, topic = %place.topic, partition = place.partition, offset, found, "{why}");
        }
        matches!(finding, Finding::Missing { .. }).then(|| (place.clone(), why))
    }
}

const MISSING: &str = "tributary_records_missing_total";
const DOUBLED: &str = "tributary_records_doubled_total";
const REORDERED: &str = "tributary_records_reordered_total";

fn count(name: &'static str, index: &str, topic: &str, records: u64) {
    metrics::counter!(name, "index" => index.to_owned(), "topic" => topic.to_owned()).increment(records);
}

/// A finding in words: where, what, and what may have caused it.
pub(crate) fn say(place: &TopicPartition, offset: u64, finding: Finding) -> String {
    let TopicPartition { topic, partition } = place;
    let at = format!("topic {topic}, partition {partition}, offset {offset}");
    match finding {
        Finding::Missing { from, to } => format!(
            "records are missing from a topic at {at}: numbers {from} to {to} of its source; a broker lost the end of the partition (an \
             unclean election, a disk), or somebody removed or replaced records"
        ),
        Finding::Doubled { number } => format!(
            "a record came twice at {at}: number {number} of its source; a topic or a checkpoint was restored from a copy, or somebody \
             appended to the topic"
        ),
        Finding::Reordered { number, behind } => format!(
            "a record came late at {at}: number {number} of its source behind {behind}; somebody copied the topic, or appended to it"
        ),
    }
}

/// Whether a record has a number.
pub(crate) fn is_numbered(record: &Polled) -> bool {
    Sequence::of(record.headers.view()).is_some()
}
