//! Whether the changes that an index reads are all there, once each and in order, by the running numbers that they have.
//!
//! Numbers that are missing are records that are gone: whatever documents they concern, the index is listed anew, as after a loss
//! that the transport told of by itself, which is no finding here. Records that came twice, or late, do no harm, for a build reads the
//! graph as it is now; but something does not keep what a topic promises, and that is told too.
//!
//! Where a partition became this process's, what stands before its first record is read beside the work, so that a loss while nobody
//! read is seen as well. And where a partition was read to its end, its last number is compared with the one that its source keeps beside
//! its checkpoint: no record may ever come behind an end that was lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_event::{Reporter, Trouble};
use tributary_processor::{Backoff, StageError, until_answered};
use tributary_transport::numbers::Sequence;
use tributary_transport::order::{Finding, Order};
use tributary_transport::{Assignment, Polled, TopicPartition, Transport, TransportError};

use crate::resolve::lost::Concerned;

/// Offsets that are looked at before the first record of a partition.
const BEFORE: u64 = 64;
/// How often the ends of partitions are looked at.
const ENDS: Duration = Duration::from_secs(15);
/// Ends that are looked at each time, at most.
const MANY: usize = 500;

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
    orders: BTreeMap<TopicPartition, Order>,
    /// Up to where they were read before they became ours.
    joined: BTreeMap<TopicPartition, u64>,
    /// The ends that were found whole, by the offset behind them. They need no other look before something is read behind them.
    whole: BTreeMap<TopicPartition, u64>,
    /// The ends that lacked something at the last look, and the number that was given last.
    lacking: BTreeMap<TopicPartition, (u64, Sequence)>,
    /// Where to look before an offset.
    before: VecDeque<(TopicPartition, u64)>,
    trouble: Trouble,
    /// The last of those whose ends were looked at.
    looked: Option<TopicPartition>,
    /// Looks that the transport does not answer.
    reading: Trouble,
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
            state.joined.insert(place.clone(), committed.unwrap_or(0));
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
            state.joined.remove(place);
            state.whole.remove(place);
            state.lacking.remove(place);
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

    /// A record that was read before, as soon as the transport gives it; none if it is gone.
    pub async fn record(
        &self,
        place: &TopicPartition,
        offset: u64,
        health: &Reporter,
    ) -> Result<Option<Polled>, StageError> {
        // Who stops the stage drops this.
        let never = CancellationToken::new();
        let read = || self.transport.read(place, offset, 1);
        let read = until_answered(health, "read an event once more", &never, read).await;
        let read = read.map_err(|error| StageError::new("resolve", error.message))?.unwrap_or_default();
        Ok(read.into_iter().find(|record| record.offset == offset))
    }

    /// Looks at what stands before partitions that became ours, and at the ends of all, until shutdown.
    pub async fn look_around(&self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut ends = tokio::time::Instant::now() + ENDS;
        loop {
            let next = self.lock().before.pop_front();
            let (what, looked) = match next {
                Some((place, offset)) => {
                    let looked = tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return Ok(()),
                        looked = self.look_before(&place, offset) => looked,
                    };
                    if matches!(looked, Err(Trying::Again(_))) {
                        self.look_again(place, offset);
                    }
                    ("what stands before a partition's first record", looked)
                }
                None => tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.news.notified() => continue,
                    () = tokio::time::sleep_until(ends) => {
                        ends = tokio::time::Instant::now() + ENDS;
                        let looked = tokio::select! {
                            biased;
                            () = shutdown.cancelled() => return Ok(()),
                            looked = self.look_at_ends() => looked,
                        };
                        ("whether partitions lack their ends", looked)
                    }
                },
            };
            match looked {
                Ok(()) => {
                    backoff.reset();
                    continue;
                }
                Err(Trying::Fails(error)) => return Err(error),
                // Until it was answered nothing is known, and everything else goes on.
                Err(Trying::Again(error)) => {
                    if self.lock().reading.note(&error.message).is_some() {
                        warn!(index = self.index, error = error.message, "it is not known {what}; asking again");
                    }
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }

    /// A partition is to be looked before once more, if it is still ours.
    fn look_again(&self, place: TopicPartition, offset: u64) {
        let mut state = self.lock();
        if state.orders.contains_key(&place) {
            state.before.push_back((place, offset));
        }
    }

    async fn look_before(&self, place: &TopicPartition, offset: u64) -> Result<(), Trying> {
        let earlier = self.transport.read(place, offset.saturating_sub(BEFORE), BEFORE as usize).await?;
        let earlier: Vec<Polled> = earlier.into_iter().filter(|record| record.offset < offset).collect();
        let missing: Vec<_> = {
            let mut state = self.lock();
            state.reading.over();
            let Some(order) = state.orders.get_mut(place) else { return Ok(()) };
            let findings = order.before(&earlier);
            findings.into_iter().filter_map(|finding| self.tell(&mut state, place, offset, finding)).collect()
        };
        self.make_up(missing).await
    }

    /// Compares partitions that were read to their ends with the numbers that their sources gave last. What they lack is lost if they
    /// lack it at two looks: a broker may say for a moment that it has the one and not yet the other.
    async fn look_at_ends(&self) -> Result<(), Trying> {
        let read: Vec<(TopicPartition, u64)> = {
            let mut state = self.lock();
            let to = |(place, order): (&TopicPartition, &Order)| {
                let to = order.next().max(state.joined.get(place).copied().unwrap_or(0));
                (state.whole.get(place) != Some(&to)).then(|| (place.clone(), to))
            };
            let mut read: Vec<_> = state.orders.iter().filter_map(to).collect();
            // Where there are too many, others have their turn each time.
            let turn = read.partition_point(|(place, _)| state.looked.as_ref().is_some_and(|last| place <= last));
            read.rotate_left(turn);
            read.truncate(MANY);
            state.looked = read.last().map(|(place, _)| place.clone());
            read
        };
        if read.is_empty() {
            return Ok(());
        }
        // First the numbers: what has got them is in its partition by now.
        let given = self.transport.numbers().await?;
        let given: BTreeMap<&str, _> = given.iter().map(|(topic, numbered)| (topic.as_str(), numbered)).collect();
        let known: BTreeSet<_> = read.iter().map(|(place, _)| place.topic.clone()).collect();
        let mut failed = None;
        for topic in known {
            let of_topic: Vec<_> = read.iter().filter(|(place, _)| place.topic == topic).collect();
            let last = |partition| given.get(&*topic).and_then(|numbered| numbered.last(partition));
            // One that is away keeps nobody from looking at the others.
            match self.look_at_topic(&of_topic, last).await {
                Err(Trying::Again(error)) => failed = Some(error),
                looked => looked?,
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        self.lock().reading.over();
        Ok(())
    }

    async fn look_at_topic(
        &self,
        places: &[&(TopicPartition, u64)],
        last: impl Fn(u32) -> Option<Sequence>,
    ) -> Result<(), Trying> {
        let Some((TopicPartition { topic, .. }, _)) = places.first() else { return Ok(()) };
        let ends = self.transport.watermarks(topic).await?;
        for (place, to) in places {
            let Some(end) = ends.get(place.partition as usize) else { continue };
            // Behind the last record there may be marks of transactions.
            if end.high > *to && !self.transport.read(place, *to, 1).await?.is_empty() {
                continue;
            }
            let lost = self.look_at_end(place, *to, last(place.partition));
            self.make_up(lost.into_iter().collect()).await?;
        }
        Ok(())
    }

    /// Looks at the end of a partition, at which nothing stands behind an offset. Where it is lost: why the index is listed anew.
    fn look_at_end(&self, place: &TopicPartition, to: u64, last: Option<Sequence>) -> Option<(TopicPartition, String)> {
        let mut state = self.lock();
        let joined = state.joined.get(place).copied().unwrap_or(0);
        let order = state.orders.get_mut(place).filter(|order| order.next().max(joined) == to)?;
        let lacks = last.filter(|last| order.lacks(*last).is_some());
        let Some(last) = lacks else {
            state.lacking.remove(place);
            state.whole.insert(place.clone(), to);
            return None;
        };
        if state.lacking.insert(place.clone(), (to, last)).is_none_or(|(before, _)| before != to) {
            return None;
        }
        let finding = state.orders.get_mut(place)?.lost(last)?;
        self.tell(&mut state, place, to, finding)
    }

    async fn make_up(&self, missing: Vec<(TopicPartition, String)>) -> Result<(), Trying> {
        for (place, why) in missing {
            self.concerned.list_anew(&place, &why).await.map_err(Trying::Fails)?;
        }
        Ok(())
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

/// Why a look did not end.
enum Trying {
    /// The transport did not answer.
    Again(TransportError),
    Fails(StageError),
}

impl From<TransportError> for Trying {
    /// Also an error that does not pass: what the index reads goes on as long as it can be read.
    fn from(error: TransportError) -> Self {
        Self::Again(error)
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
