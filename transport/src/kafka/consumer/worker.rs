//! The thread of a consumer: polls, hands on, pauses while nobody takes; follows another consumer; finds out what was lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use super::super::client::{KafkaSettings, class};
use super::super::headers;
use super::super::mailbox::Item;
use super::super::reader::Reader;
use super::list;
use super::membership::{Context, Following, Membership, Place};
use crate::contract::TopicId;
use crate::contract::{Loss, LossCause, Polled, TopicPartition, TransportError};
use crate::headers::Headers;

/// How long one poll waits. The client spins through the last millisecond, so this bounds the work of an idle consumer.
const POLL: Duration = Duration::from_millis(500);
/// How long the caller may be away before fetching pauses.
const AWAY: Duration = Duration::from_secs(1);
/// Bytes of one delivery.
const DELIVERY_BYTES: usize = 512 * 1024;
/// Records share pieces of memory of this size, so that one that is kept long keeps little.
const PIECE: usize = 64 * 1024;
/// How long a partition may stand still, of which it is not known whether its reading failed.
const DOUBT: Duration = Duration::from_secs(1);
/// How often it is looked at which topics the names mean.
const CHECK: Duration = Duration::from_secs(1);
/// How long a topic may be gone that is read.
const ABSENT: Duration = Duration::from_secs(30);
/// How often a consumer that follows another one commits what it has committed. Brokers forget the offsets of a group without
/// members a while after their last commit.
const KEEP: Duration = Duration::from_secs(3600);

/// The thread that polls.
pub(super) struct Worker {
    pub kafka: KafkaSettings,
    pub client: Arc<BaseConsumer<Context>>,
    pub membership: Arc<Membership>,
    pub reader: Arc<Reader>,
    pub max_records: usize,
    pub piece: BytesMut,
    pub paused: bool,
    /// Partitions that are not fetched, for the caller takes none of their records and has not taken those that came.
    pub stopped: HashSet<TopicPartition>,
    /// Where partitions were when the reading of one of them failed, and when to look whether they moved since.
    pub doubt: Option<(Instant, HashMap<TopicPartition, Place>)>,
    /// When it was last looked at which topics the names mean.
    pub checked: Instant,
    /// Since when one of the topics is not there, and when that was last looked at.
    pub absent: Option<[Instant; 2]>,
    /// Tells which partitions to have.
    pub follows: Option<Arc<Following>>,
    /// The partitions that it has so, with their numbers.
    pub followed: BTreeMap<u32, u64>,
    /// When offsets were last committed only to be kept.
    pub kept: Instant,
}

impl Worker {
    pub fn run(mut self) {
        let mut held: Vec<Polled> = Vec::new();
        while !self.membership.mailbox.is_closed() {
            if let Err(error) = self.turn(&mut held) {
                self.membership.mailbox.tell(Item::Failed(error));
                return;
            }
        }
    }

    fn turn(&mut self, held: &mut Vec<Polled>) -> Result<(), TransportError> {
        self.follow()?;
        self.look_for_topics()?;
        self.check(held);
        self.look_again(held);
        self.stop();
        if held.is_empty() || self.paused {
            self.fill(held)?;
        }
        if held.is_empty() {
            return Ok(());
        }
        let limit = if self.paused { Duration::ZERO } else { AWAY };
        match self.membership.mailbox.put(std::mem::take(held), limit) {
            None if self.paused => self.set_paused(false),
            None => {}
            Some(back) => {
                *held = back;
                // Again each time, since partitions may have come meanwhile.
                self.set_paused(true);
            }
        }
        Ok(())
    }

    /// Stops to fetch what the caller does not take, and begins again where it does.
    fn stop(&mut self) {
        let wanted = self.membership.mailbox.stuffed();
        if wanted == self.stopped {
            return;
        }
        let offset = |place| (place, Offset::Invalid);
        let (stop, go) =
            (list(wanted.difference(&self.stopped).map(offset)), list(self.stopped.difference(&wanted).map(offset)));
        let mut done = Ok(());
        if stop.count() > 0 {
            done = done.and(self.client.pause(&stop));
        }
        if go.count() > 0 && !self.paused {
            done = done.and(self.client.resume(&go));
        }
        if let Err(error) = done {
            tracing::debug!(%error, "partitions could not be paused or resumed");
        }
        self.stopped = wanted;
    }

    fn set_paused(&mut self, paused: bool) {
        let done = self.client.assignment().and_then(|assignment| match paused {
            true => self.client.pause(&assignment),
            false => {
                let elements = assignment.elements();
                let goes_on = |topic: &str, partition: i32| {
                    !self.stopped.iter().any(|place| *place.topic == *topic && place.partition as i32 == partition)
                };
                let mut list = TopicPartitionList::new();
                elements.iter().filter(|at| goes_on(at.topic(), at.partition())).for_each(|at| {
                    list.add_partition(at.topic(), at.partition());
                });
                self.client.resume(&list)
            }
        });
        if let Err(error) = done {
            tracing::debug!(%error, paused, "partitions could not be paused or resumed");
        }
        self.paused = paused;
    }

    /// Polls once with patience, then takes what is there.
    fn fill(&mut self, held: &mut Vec<Polled>) -> Result<(), TransportError> {
        let mut bytes = 0;
        let mut patience = POLL;
        while held.len() < self.max_records && bytes < DELIVERY_BYTES {
            // Which topic partitions are of that came just now is looked at before their records.
            if self.membership.reading().unchecked {
                break;
            }
            let client = self.client.clone();
            match client.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len() + message.key_len();
                    held.push(self.record(&message));
                }
                Some(Err(error)) if is_elsewhere(&error) => {
                    tracing::debug!(%error, "a partition does not have the record that is wanted next");
                    self.look(held, None);
                }
                Some(Err(error)) => self.judge(error)?,
            }
            patience = Duration::ZERO;
        }
        // A rebalance within a poll may have taken a partition whose records are held here.
        let reading = self.membership.reading();
        held.retain(|record| reading.has(&record.place));
        Ok(())
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> Polled {
        let offset = message.offset() as u64;
        let mut reading = self.membership.reading();
        let place = TopicPartition { topic: reading.name(message.topic()), partition: message.partition() as u32 };
        reading.read(&place, offset);
        drop(reading);
        let headers = headers::of(message, &place);
        let need = message.key_len() + message.payload_len() + headers.map_or(0, |(_, room)| room);
        if self.piece.capacity() < need {
            self.piece = BytesMut::with_capacity(PIECE.max(need));
        }
        let piece = &mut self.piece;
        let mut copy = |bytes: &[u8]| {
            piece.extend_from_slice(bytes);
            piece.split().freeze()
        };
        let (key, value) = (message.key().map(&mut copy), message.payload().map(&mut copy));
        let headers = headers.map(|(headers, _)| {
            headers::write(headers, piece);
            Headers::written(piece.split().freeze())
        });
        Polled {
            place,
            offset,
            key,
            value,
            headers: headers.unwrap_or_default(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        }
    }

    /// Errors that pass by themselves are noted; others end the consumer.
    fn judge(&mut self, error: KafkaError) -> Result<(), TransportError> {
        let code = error.rdkafka_error_code();
        let fatal =
            matches!(error, KafkaError::MessageConsumptionFatal(_)) || code.map(class) == Some(ErrorClass::Fatal);
        if matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
            && !self.missing()
        {
            tracing::debug!(%error, "a topic is not known to a broker yet");
        } else if self.absent.is_some()
            || matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
        {
            // Perhaps it is about to be made again.
            self.absent.get_or_insert([Instant::now(); 2]);
            tracing::debug!(%error, "a topic is gone");
        } else if fatal {
            return Err(self.kafka.failed("reading", error));
        } else {
            tracing::debug!(%error, "reading waits for the brokers");
        }
        Ok(())
    }

    /// Whether the cluster itself says that a topic does not exist.
    fn missing(&self) -> bool {
        let Ok(metadata) = self.client.fetch_metadata(None, Duration::from_secs(5)) else { return false };
        let known: Vec<&str> = metadata.topics().iter().filter(|t| t.error().is_none()).map(|t| t.name()).collect();
        let subscribed = self.client.subscription().ok();
        let subscribed: Vec<String> =
            subscribed.iter().flat_map(|list| list.elements()).map(|element| element.topic().to_owned()).collect();
        let followed = self.follows.iter().map(|follows| follows.place(0).topic.to_string());
        subscribed.into_iter().chain(followed).any(|topic| !known.contains(&topic.as_str()))
    }

    /// Looks whether a topic that was not there is there again: what is read of it begins anew. One that stays away ends the consumer.
    fn look_for_topics(&mut self) -> Result<(), TransportError> {
        let Some([since, looked]) = &mut self.absent else { return Ok(()) };
        if looked.elapsed() < CHECK {
            return Ok(());
        }
        let absent = since.elapsed();
        *looked = Instant::now();
        if !self.missing() {
            self.absent = None;
            self.membership.reading().unchecked = true;
            self.doubt = Some((Instant::now() + DOUBT, self.membership.reading().places().into_iter().collect()));
            return Ok(());
        }
        let error = KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition);
        let error = self.kafka.failed("reading", error);
        if absent > ABSENT {
            return Err(error);
        }
        self.membership.mailbox.tell(Item::Failed(TransportError { class: ErrorClass::Transient, ..error }));
        Ok(())
    }

    /// Looks whether the topics are still those that are read. One that was deleted and made again is read from its first record on.
    fn check(&mut self, held: &mut Vec<Polled>) {
        let is_new = self.membership.reading().unchecked;
        if is_new || self.checked.elapsed() >= CHECK {
            self.check_now(held, if is_new { Duration::ZERO } else { CHECK / 2 });
        }
    }

    fn check_now(&mut self, held: &mut Vec<Polled>, age: Duration) {
        self.checked = Instant::now();
        let mut reading = self.membership.reading();
        reading.unchecked = false;
        let places = reading.places();
        drop(reading);
        let topics: Vec<Arc<str>> =
            places.iter().map(|(place, _)| place.topic.clone()).collect::<BTreeSet<_>>().into_iter().collect();
        let known = match self.reader.identities.of(&topics, age) {
            Ok(known) => known,
            // Until then nothing is read of it that it has not read before; or what is, is read once more.
            Err(error) => return tracing::debug!(%error, "it is not known now which topics are read"),
        };
        if topics.iter().any(|topic| !known.contains_key(topic)) {
            self.absent.get_or_insert([Instant::now(); 2]);
        }
        let mut anew: Vec<(TopicPartition, Place, TopicId)> = Vec::new();
        for (place, at) in places {
            match (at.topic, known.get(&place.topic).copied().flatten()) {
                (Some(read), Some(there)) if read != there => anew.push((place, at, there)),
                (None, Some(there)) => self.membership.reading().is_of(&place, there),
                _ => {}
            }
        }
        if !anew.is_empty() {
            self.begin_with_new_topics(held, anew);
        }
    }

    fn begin_with_new_topics(&mut self, held: &mut Vec<Polled>, anew: Vec<(TopicPartition, Place, TopicId)>) {
        let places: Vec<TopicPartition> = anew.iter().map(|(place, ..)| place.clone()).collect();
        let ends = match self.reader.ends_of(&places) {
            Ok(ends) => ends,
            Err(error) => return tracing::debug!(%error, "the ends of a topic that was made anew are not known yet"),
        };
        let (mut losses, mut begin) = (Vec::new(), Vec::new());
        let mut reading = self.membership.reading();
        for (place, at, topic) in anew {
            let Some(low) = ends.get(&place).map(|ends| ends.low) else { continue };
            // What was read of the new topic as if it followed is read once more.
            let read = held.iter().find(|record| record.place == place).map(|record| record.offset);
            let from = read.or(at.next).or(at.committed).unwrap_or(0);
            let number = reading.begin_anew(&place, Some(topic), low);
            begin.push((place.clone(), Offset::Offset(low as i64)));
            losses.push((Loss { place, from, to: low, cause: LossCause::MadeAnew }, number));
        }
        drop(reading);
        if !losses.is_empty() {
            held.retain(|record| losses.iter().all(|(loss, _)| loss.place != record.place));
            self.membership.mailbox.tell(Item::Lost(losses));
            self.begin(&begin);
        }
    }

    /// Takes up and gives up what the leading consumer gained and gave up.
    fn follow(&mut self) -> Result<(), TransportError> {
        let Some(follows) = self.follows.clone() else { return Ok(()) };
        let wanted = follows.wanted();
        let gone: Vec<u32> =
            self.followed.iter().filter(|(at, number)| wanted.get(at) != Some(number)).map(|(at, _)| *at).collect();
        if !gone.is_empty() {
            let places: Vec<TopicPartition> = gone.iter().map(|partition| follows.place(*partition)).collect();
            self.membership.lose(&places);
            let list = list(places.iter().map(|place| (place, Offset::Invalid)));
            self.client
                .incremental_unassign(&list)
                .map_err(|error| self.kafka.failed("giving partitions up", error))?;
            self.followed.retain(|partition, _| !gone.contains(partition));
        }
        let gained: BTreeMap<u32, u64> = wanted.into_iter().filter(|(at, _)| !self.followed.contains_key(at)).collect();
        if gained.is_empty() {
            self.keep();
            return Ok(());
        }
        let places: Vec<TopicPartition> = gained.keys().map(|partition| follows.place(*partition)).collect();
        let context = self.client.context();
        let news = match context.committed(&self.client, &places) {
            Ok(news) => news,
            Err(error) if error.class == ErrorClass::Transient => {
                tracing::debug!(%error, "partitions wait for committed offsets");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let starts = context.starts(&news);
        self.client.incremental_assign(&starts).map_err(|error| self.kafka.failed("taking partitions over", error))?;
        self.followed.extend(gained);
        context.gain(news);
        Ok(())
    }

    /// Commits again what is committed, now and then.
    fn keep(&mut self) {
        if self.kept.elapsed() < KEEP {
            return;
        }
        self.kept = Instant::now();
        let reading = self.membership.reading();
        let places = reading.places();
        let list = reading.of_topics(places.iter().filter_map(|(place, at)| Some((place, at.committed?))));
        drop(reading);
        if list.count() > 0
            && let Err(error) = self.client.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "committed offsets could not be kept");
        }
    }

    /// Looks again at the partitions that have not moved since a doubt arose.
    fn look_again(&mut self, held: &mut Vec<Polled>) {
        if let Some((_, places)) = self.doubt.take_if(|(due, _)| Instant::now() >= *due) {
            self.look(held, Some(places));
        }
    }

    /// Finds the partitions that do not have the record that is wanted next, and reads on where there is one. librdkafka does not say
    /// which partition it is, and gives up reading it. So everything is looked at, and what stands still a while later, is begun again.
    fn look(&mut self, held: &mut Vec<Polled>, still: Option<HashMap<TopicPartition, Place>>) {
        // A topic that was made anew is told as such.
        self.check_now(held, Duration::ZERO);
        let is_still = |place: &TopicPartition, at: &Place| {
            let before = still.as_ref().and_then(|still| still.get(place));
            before.is_some_and(|before| (before.number, before.next) == (at.number, at.next))
        };
        let reading = self.membership.reading().places();
        let places: Vec<TopicPartition> = reading.iter().map(|(place, _)| place.clone()).collect();
        let ends = match self.reader.ends_of(&places) {
            Ok(ends) => ends,
            Err(error) => {
                tracing::debug!(%error, "what is left of partitions is not known yet");
                self.doubt = Some((Instant::now() + DOUBT, reading.into_iter().collect()));
                return;
            }
        };
        let (mut losses, mut begin, mut others) = (Vec::new(), Vec::new(), HashMap::new());
        for (place, at) in reading {
            let Some(ends) = ends.get(&place) else { continue };
            match at.next {
                Some(next) if next < ends.low || next > ends.high => {
                    let cause = if ends.low < next { LossCause::MadeAnew } else { LossCause::Removed };
                    losses.push((Loss { place: place.clone(), from: next, to: ends.low, cause }, None));
                    begin.push((place, Offset::Offset(ends.low as i64)));
                }
                Some(next) if next < ends.high && is_still(&place, &at) => {
                    begin.push((place, Offset::Offset(next as i64)));
                }
                None if ends.low < ends.high && is_still(&place, &at) => begin.push((place, Offset::Beginning)),
                _ => {
                    others.insert(place, at);
                }
            }
        }
        if still.is_none() {
            self.doubt = Some((Instant::now() + DOUBT, others));
        }
        if !losses.is_empty() {
            let mut reading = self.membership.reading();
            losses.iter().for_each(|(loss, _)| reading.move_to(&loss.place, loss.to));
            drop(reading);
            held.retain(|record| losses.iter().all(|(loss, _)| loss.place != record.place));
            self.membership.mailbox.tell(Item::Lost(losses));
        }
        if !begin.is_empty() {
            self.begin(&begin);
        }
    }

    /// Reads partitions from these offsets on.
    fn begin(&mut self, begin: &[(TopicPartition, Offset)]) {
        // Who is assigned anew is fetched.
        self.stopped.retain(|stopped| begin.iter().all(|(place, _)| place != stopped));
        if let Err(error) = self.begin_again(&list(begin.iter().map(|(place, offset)| (place, *offset)))) {
            tracing::debug!(%error, "partitions could not be begun again");
            self.doubt = Some((Instant::now() + DOUBT, self.membership.reading().places().into_iter().collect()));
        }
    }

    fn begin_again(&self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        match self.client.rebalance_protocol() {
            RebalanceProtocol::Eager => {
                let places = self.membership.reading().places();
                let at = |at: &Place| at.next.map_or(Offset::End, |next| Offset::Offset(next as i64));
                self.client.assign(&super::list(places.iter().map(|(place, next)| (place, at(next)))))
            }
            _ => {
                self.client.incremental_unassign(list)?;
                self.client.incremental_assign(list)
            }
        }
    }
}

/// Whether a partition does not have the record that was asked for.
fn is_elsewhere(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::NoOffset | Code::LogTruncation)
    )
}
