//! Appending to Kafka as fast as a source or a stream needs: one transaction a batch, spoken to the brokers by ourselves
//! (`wire`). What that does not speak, and who has little to append, goes through librdkafka (`library`).
//!
//! A transaction is: its partitions are told to the coordinator, the records go to the leaders, the coordinator ends it. No
//! request with records is ever repeated: whatever goes wrong, the transaction is aborted and the producer asks for the next
//! epoch, in which its records are counted anew. What went wrong is then one of three things:
//!
//! * *abortable*: nothing is visible, the error is `Transient` (or what its cause says);
//! * *in doubt*: a commit that got no answer is repeated until it has one;
//! * *fatal*: another producer of the same id took over, or the coordinator gave up a transaction that took too long. This one
//!   is dead. (It also dies if a coordinator dies that had just given it an epoch and could not say so: the next one takes it
//!   for an older process.)
//!
//! A request without an answer may be carried out later, as long as its epoch is in use. So the epoch is not used again; and
//! leaders that may yet get records of it are told by the end of an empty transaction in the next one.
//!
//! Two identities take turns. A coordinator is busy with a transaction for some milliseconds after its commit was answered,
//! and refuses the same producer's next one meanwhile. One begins only after the other's commit was answered, so that batches
//! stay in order; taking over means to fence both, the first one first. Who has the first is the owner: one who finds the
//! second taken before it was ever used asks the coordinator of the first whether that is still its own, and takes the second
//! back if so. (An access list of transactional ids must allow both, `<name>` and `<name>.2`.)

mod shares;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::Instant;
use tributary_event::{ErrorClass, Trouble};

use self::shares::{Share, by_size};
use super::client::KafkaSettings;
use super::reader::Reader;
use super::transaction::{self, Ended, INIT, Kept, PAUSE, REPEATS, TURN, Together, is_passing};
use super::wire::{Ask, Cluster, Coordinator, Fault, ProducerId};
use crate::contract::{Batch, Producer, Purpose, TransportError};
use crate::metric;
use crate::numbers::{End, Numbers};

/// How long the beginning or the abort of a transaction is tried.
const TRY: Duration = Duration::from_secs(10);
pub(super) struct KafkaProducer {
    /// The producer's name, and for Kafka the first identity's.
    name: String,
    settings: Arc<KafkaSettings>,
    cluster: Cluster,
    /// The identity whose turn it is comes first.
    turn: Identity,
    other: Identity,
    state: State,
    /// The second identity has not committed anything yet.
    second_is_new: bool,
    /// Where the next batch's records without a key go.
    keyless: u32,
    together: Together,
    /// How long a transaction may last.
    transaction: Duration,
    reader: Arc<Reader>,
    /// The numbers of its records, if it gives them any.
    numbers: Option<Numbers>,
    /// Where they go on behind the batch that is under way.
    ends: Vec<End>,
}

enum State {
    Ready,
    /// A transaction is open that must be aborted before the next one.
    Open,
    /// Nothing can be done any more, and why.
    Dead(String),
}

struct Identity {
    coordinator: Coordinator,
    second: bool,
    producer: ProducerId,
    /// The number of the next record of each partition, in this epoch.
    sequences: BTreeMap<(Arc<str>, u32), i32>,
    /// The partitions of the last transaction.
    partitions: Vec<(Arc<str>, u32)>,
    /// A request of this epoch got no answer.
    lost: bool,
    /// A commit was asked for, so the brokers may have it.
    committing: bool,
}

impl Identity {
    /// Takes the identity, which ends an unfinished transaction of it and fences its owner.
    async fn take(cluster: &mut Cluster, id: &str, second: bool, transaction: Duration) -> Result<Self, Fault> {
        let mut coordinator = Coordinator::of(if second { format!("{id}.2") } else { id.to_owned() });
        let ask = Ask::Identity { known: ProducerId::NONE, transaction };
        let producer = cluster.ask(&mut coordinator, ask, Instant::now() + INIT).await?;
        Ok(Self {
            coordinator,
            second,
            producer,
            sequences: BTreeMap::new(),
            partitions: Vec::new(),
            lost: false,
            committing: false,
        })
    }
}

impl KafkaProducer {
    /// Opens the producer, which ends unfinished transactions of the same id and fences their owner.
    pub async fn open(
        settings: &Arc<KafkaSettings>,
        reader: &Arc<Reader>,
        name: &str,
        (purpose, transaction): (Purpose, Duration),
    ) -> Result<Self, Fault> {
        let mut cluster = Cluster::new(settings)?;
        let turn = Identity::take(&mut cluster, name, false, transaction).await?;
        let other = Identity::take(&mut cluster, name, true, transaction).await?;
        Ok(Self {
            name: name.to_owned(),
            settings: settings.clone(),
            cluster,
            turn,
            other,
            state: State::Ready,
            second_is_new: true,
            keyless: 0,
            together: Together::default(),
            transaction,
            reader: reader.clone(),
            numbers: (purpose == Purpose::Source).then(|| Numbers::new(name)),
            ends: Vec::new(),
        })
    }

    /// Takes the second identity back, after another process that lost the first one to us took it, and gives the turn to the
    /// first.
    async fn take_second_back(&mut self) -> Result<(), TransportError> {
        // Until it is done the second is still lost, which the next append finds out.
        self.state = State::Open;
        // There is nothing to abort; but whom the first belongs to is looked at before that.
        let ask = Ask::End { producer: self.other.producer, commit: false };
        match self.cluster.ask(&mut self.other.coordinator, ask, Instant::now() + TRY).await {
            Ok(_) | Err(Fault { code: Some(Code::InvalidTransactionalState), .. }) => {}
            Err(fault) => return Err(self.refused("taking a producer back", fault)),
        }
        let taken = Identity::take(&mut self.cluster, &self.name, true, self.transaction).await;
        self.turn = taken.map_err(|fault| self.failed("taking a producer back", fault))?;
        std::mem::swap(&mut self.turn, &mut self.other);
        self.state = State::Ready;
        Ok(())
    }

    /// Whether the second identity was fenced before its first commit.
    fn second_was_taken(&self) -> bool {
        matches!(self.state, State::Dead(_)) && self.turn.second && self.second_is_new && !self.turn.committing
    }

    fn failed(&self, what: &str, fault: Fault) -> TransportError {
        self.settings.answered(what, fault.class, fault.code, &fault.text)
    }

    /// Nothing can be done any more.
    fn die(&mut self, text: String) -> TransportError {
        self.state = State::Dead(text.clone());
        TransportError::new(ErrorClass::Fatal, text)
    }

    fn fenced(&mut self) -> TransportError {
        self.die(transaction::fenced(&self.name, self.transaction))
    }

    /// What a coordinator did not do; the producer is dead if it is not its own any more.
    fn refused(&mut self, what: &str, fault: Fault) -> TransportError {
        if fault.is_fenced() { self.fenced() } else { self.failed(what, fault) }
    }

    /// One transaction with the whole batch.
    async fn transact(&mut self, batch: &Batch) -> Result<(), Ended> {
        if matches!(self.state, State::Open) || self.turn.lost {
            self.abort().await.map_err(Ended::Failed)?;
        }
        // Slow brokers must leave time to end the transaction.
        let limit = self.transaction * 3 / 4;
        let written = tokio::time::timeout(limit, self.write(batch)).await.unwrap_or_else(|_| {
            self.turn.lost = true;
            Err(late(limit, self.cluster.take_awaited()))
        });
        match written {
            Ok(()) => self.commit().await.map_err(Ended::Failed),
            Err(fault) => {
                self.cluster.doubt_leaders();
                if matches!(self.state, State::Open) {
                    tracing::debug!(producer = self.name, cause = fault.text, "aborting a transaction");
                    self.abort().await.map_err(Ended::Failed)?;
                }
                Err(Ended::Aborted(fault))
            }
        }
    }

    /// Begins a transaction and writes the records; they are kept by the brokers when it returns `Ok`.
    async fn write(&mut self, batch: &Batch) -> Result<(), Fault> {
        let topic: Arc<str> = self.settings.checkpoint_topic.as_str().into();
        let mut kept = Kept::names(self.numbers.as_ref(), batch);
        let (mut shares, places) = self.share_out(transaction::records(batch, &topic, &kept), &topic).await?;
        self.ends = shares.iter().filter_map(Share::end).collect();
        for kept in &mut kept {
            kept.content =
                self.numbers.as_ref().map(|numbers| numbers.content(&kept.of, &self.ends)).unwrap_or_default();
        }
        let mut scratch = Vec::new();
        let partitions: Vec<_> = shares.iter().map(|share| (share.topic.clone(), share.partition)).collect();
        self.turn.partitions.clone_from(&partitions);
        let (producer, id) = (self.turn.producer, self.turn.coordinator.id.clone());
        let ask = Ask::Add { producer, partitions: &partitions };
        self.state = State::Open;
        self.cluster.ask_ahead(&mut self.turn.coordinator, ask).await?;
        let mut asked = true;
        let mut turn = 0;
        for (record, place) in transaction::records(batch, &topic, &kept).zip(places) {
            let share = &mut shares[place];
            let record = match &mut share.run {
                Some(run) => run.number(&record, &mut scratch),
                None => record,
            };
            let size = record.size();
            if share.gathered.size() > 0 && share.gathered.size() + size > share.together {
                if std::mem::take(&mut asked) {
                    self.cluster.answered(&mut self.turn.coordinator, ask, Instant::now() + TRY).await?;
                }
                let full = share.gathered.finish(producer, self.settings.compression)?;
                let full = [(share.topic.clone(), share.partition, full)];
                self.cluster.produce(share.leader, &id, &full).await?;
            }
            share.gathered.push(&record);
            turn += size;
            if turn > TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        let mut rest: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for share in &mut shares {
            let last = share.gathered.finish(producer, self.settings.compression)?;
            rest.entry(share.leader).or_default().push((share.topic.clone(), share.partition, last));
        }
        if asked {
            self.cluster.answered(&mut self.turn.coordinator, ask, Instant::now() + TRY).await?;
        }
        for (leader, batches) in rest {
            for request in by_size(&batches) {
                self.cluster.produce(leader, &id, request).await?;
            }
        }
        self.cluster.all_produced().await?;
        for share in shares {
            self.turn.sequences.insert((share.topic, share.partition), share.gathered.next_sequence());
        }
        Ok(())
    }

    /// Ends the transaction well. It is unknown whether a request without an answer was carried out, so it is repeated for as
    /// long as it takes: the answer will be that it is committed, or that the coordinator gave the transaction up.
    async fn commit(&mut self) -> Result<(), TransportError> {
        let ask = Ask::End { producer: self.turn.producer, commit: true };
        self.turn.committing = true;
        let mut trouble = Trouble::default();
        loop {
            match self.cluster.ask(&mut self.turn.coordinator, ask, Instant::now() + TRY).await {
                Ok(_) => {
                    self.turn.lost |= self.cluster.take_lost();
                    self.state = State::Ready;
                    return Ok(());
                }
                Err(fault) if fault.is_fenced() => return Err(self.fenced()),
                Err(fault) if fault.is_not_now() => {
                    if let Some(lasts) = trouble.note(&fault.text) {
                        let (producer, cause) = (&self.name, fault.text);
                        tracing::warn!(producer, cause, ?lasts, "a commit is not done yet and is repeated");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                Err(fault) => {
                    let text = transaction::in_doubt(&self.name, &fault.text);
                    return Err(self.die(text));
                }
            }
        }
    }

    /// Ends the transaction, if one is open, without effect, and goes on in the next epoch.
    async fn abort(&mut self) -> Result<(), TransportError> {
        self.cluster.drain().await;
        self.turn.lost |= self.cluster.take_lost();
        self.end_without_effect().await?;
        self.next_epoch().await?;
        if self.turn.lost && !self.turn.partitions.is_empty() {
            // Records of the last epoch may still be on their way. A leader refuses them once it has seen the next epoch, which
            // the end of a transaction shows it.
            let partitions = std::mem::take(&mut self.turn.partitions);
            let ask = Ask::Add { producer: self.turn.producer, partitions: &partitions };
            let added = self.cluster.ask(&mut self.turn.coordinator, ask, Instant::now() + TRY).await;
            self.turn.partitions = partitions;
            match added {
                Ok(_) => self.end_without_effect().await?,
                // A topic that was deleted meanwhile gets no records any more.
                Err(Fault { code: Some(Code::UnknownTopicOrPartition), .. }) => self.end_without_effect().await?,
                Err(fault) => return Err(self.refused("aborting an append", fault)),
            }
        }
        // Only what was lost on this way: it is about the epoch that is used next.
        self.turn.lost = self.cluster.take_lost();
        self.turn.partitions.clear();
        self.state = State::Ready;
        Ok(())
    }

    /// Also where nothing was begun: of another process that took over only this request knows, and leaves it alone.
    async fn end_without_effect(&mut self) -> Result<(), TransportError> {
        let ask = Ask::End { producer: self.turn.producer, commit: false };
        match self.cluster.ask(&mut self.turn.coordinator, ask, Instant::now() + TRY).await {
            // Otherwise the coordinator never heard of its partitions, or forgot the producer, which had been idle for days.
            Ok(_) | Err(Fault { code: Some(Code::InvalidTransactionalState | Code::InvalidProducerIdMapping), .. }) => {
                Ok(())
            }
            Err(fault) => Err(self.refused("aborting an append", fault)),
        }
    }

    /// What was on its way in this epoch is refused by the coordinator from then on.
    async fn next_epoch(&mut self) -> Result<(), TransportError> {
        self.state = State::Open;
        let ask = Ask::Identity { known: self.turn.producer, transaction: self.transaction };
        match self.cluster.ask(&mut self.turn.coordinator, ask, Instant::now() + TRY).await {
            Ok(producer) => {
                self.turn.producer = producer;
                self.turn.sequences.clear();
                Ok(())
            }
            Err(fault) => Err(self.refused("aborting an append", fault)),
        }
    }
}

/// A batch was not taken in time, for what was waited for last if that was answered.
fn late(limit: Duration, awaited: Option<Fault>) -> Fault {
    let class = ErrorClass::Transient;
    match awaited {
        Some(fault) if fault.code == Some(Code::UnknownTopicOrPartition) => {
            let text = format!("{}, for {limit:?}", fault.text);
            Fault { class, text, ..fault }
        }
        _ => {
            let text = format!(
                "the brokers did not take it within {limit:?}; if their network is slow, raise transaction.timeout.ms (and \
                 the brokers' transaction.max.timeout.ms)"
            );
            Fault { code: None, class, text, topic: None }
        }
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    fn max_record(&self) -> usize {
        self.settings.max_record
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if let State::Dead(cause) = &self.state {
            return Err(TransportError::new(ErrorClass::Fatal, cause.clone()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        if batch.records().next().is_some() {
            transaction::read_numbers(&mut self.numbers, &self.reader).await?;
        }
        let (mut repeats, mut taken_back) = (0, false);
        loop {
            match self.transact(batch).await {
                Ok(()) => break,
                Err(Ended::Aborted(fault)) if self.together.shrink(&fault) => {
                    tracing::debug!(producer = self.name, cause = fault.text, "less goes together");
                }
                Err(Ended::Aborted(fault)) if is_passing(&fault) && repeats < REPEATS => {
                    repeats += 1;
                    tracing::debug!(producer = self.name, cause = fault.text, "an append is repeated");
                    tokio::time::sleep(PAUSE * repeats).await;
                }
                Err(Ended::Aborted(fault)) => return Err(self.failed("an append", fault)),
                Err(Ended::Failed(_)) if self.second_was_taken() && !taken_back => {
                    tracing::debug!(producer = self.name, "taking the second identity back");
                    taken_back = true;
                    self.take_second_back().await?;
                }
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.durable(&self.ends);
        }
        self.second_is_new &= !self.turn.second;
        std::mem::swap(&mut self.turn, &mut self.other);
        metric::appended(batch);
        Ok(())
    }
}
