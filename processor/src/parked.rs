//! Keys that wait behind a dead letter. Where an event was set aside, later events of its key are set aside after it, so that none of
//! them overtakes it; asked to, the stage does them again in their order, and then the key flows as before.
//!
//! What waits is what the topic of letters says. The stage follows it, so that it also knows of what another process set aside before
//! the partition was this one's, and of what somebody asked to have done again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tributary_event::ErrorClass;
use tributary_transport::dead_letter::{Parked as Outline, WayBack};
use tributary_transport::{Batch, DeadLetter, DeadLetters, Polled, TopicPartition, TransportError};

/// What a stage has set aside.
pub struct Parked {
    letters: DeadLetters,
    stage: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Up to where the topic of letters was read.
    from: u64,
    /// By partition and key: what waits, by its offset.
    waiting: HashMap<TopicPartition, HashMap<Bytes, BTreeMap<u64, Held>>>,
    /// Where each letter is in that, by its id.
    places: HashMap<Bytes, (TopicPartition, Bytes, u64)>,
}

/// One event that waits.
#[derive(Debug, Clone)]
struct Held {
    id: Bytes,
    /// Where its letter lies; none: it was written by this process and not read yet.
    lies_at: Option<u64>,
    is_asked_for: bool,
}

/// An event that is to be done again.
#[derive(Debug, Clone)]
pub struct Again {
    /// Its letter.
    pub letter: DeadLetter,
    /// The event, as it was read first.
    pub record: Polled,
}

impl Parked {
    /// What the stage of this name has set aside among these letters.
    pub fn new(letters: DeadLetters, stage: impl Into<String>) -> Self {
        Self { letters, stage: stage.into(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the topic of letters.
    ///
    /// # Errors
    /// The transport did not answer. What was read is kept.
    pub async fn follow(&self) -> Result<(), TransportError> {
        loop {
            let from = self.state().from;
            let (entries, next) = self.letters.follow::<Outline>(from).await?;
            let mut state = self.state();
            for entry in entries {
                match entry.letter.filter(|letter| letter.stage == self.stage && letter.way_back != WayBack::Topic) {
                    Some(letter) => {
                        let place = TopicPartition { topic: letter.topic.into(), partition: letter.partition };
                        let is_asked_for = letter.way_back == WayBack::Asked;
                        let held = Held { id: entry.id, lies_at: Some(entry.offset), is_asked_for };
                        state.hold(place, letter.key.unwrap_or_default().into(), letter.offset, held);
                    }
                    None => state.release(&entry.id),
                }
            }
            state.from = next;
            if next == from {
                return Ok(());
            }
        }
    }

    /// Whether an event has to wait because another one of its key does: that one's letter.
    pub fn before(&self, record: &Polled) -> Option<String> {
        let key = record.key.as_ref().filter(|key| !key.is_empty())?;
        let state = self.state();
        let mut before = state.waiting.get(&record.place)?.get(key)?.range(..record.offset);
        before.next_back().map(|(_, held)| String::from_utf8_lossy(&held.id).into_owned())
    }

    /// Adds the letter of an event that failed, or waits behind another one, to a batch, and says its id. It counts at once: if the batch
    /// comes to nothing, say so by [`Self::forget`].
    pub fn set_aside(&self, batch: &mut Batch, record: &Polled, cause: String, attempts: u32) -> Bytes {
        let letter = self.letter(record, cause, attempts);
        metrics::counter!("tributary_dead_letters_total", "stage" => self.stage.clone()).increment(1);
        self.letters.append_to(batch, &letter);
        let id: Bytes = letter.id.into_bytes().into();
        let held = Held { id: id.clone(), lies_at: None, is_asked_for: false };
        // An event without a key waits for itself alone, and nothing behind it.
        let key = record.key.clone().unwrap_or_default();
        self.state().hold(record.place.clone(), key, record.offset, held);
        id
    }

    /// Letters were not written after all.
    pub fn forget(&self, ids: &[Bytes]) {
        let mut state = self.state();
        ids.iter().for_each(|id| state.release(id));
    }

    /// The same of one that was done again and failed again: its letter is written anew.
    pub fn failed_again(&self, batch: &mut Batch, again: &Again, cause: String) {
        let letter = self.letter(&again.record, cause, again.letter.attempts.saturating_add(1));
        let letter = DeadLetter { first_failed_us: again.letter.first_failed_us, ..letter };
        self.letters.append_to(batch, &letter);
        let key = again.record.key.clone().unwrap_or_default();
        let mut state = self.state();
        // Somebody has to ask once more.
        if let Some(waiting) = state.waiting.get_mut(&again.record.place).and_then(|keys| keys.get_mut(&key)) {
            waiting.values_mut().for_each(|held| held.is_asked_for = false);
        }
    }

    /// Adds to a batch that an event that was done again waits no more. It counts when [`Self::done`] says so.
    pub fn take_out(&self, batch: &mut Batch, again: &Again) {
        self.letters.take_out(batch, again.letter.id.as_bytes());
    }

    /// What was taken out is so for good; what waits behind it is next.
    pub fn done(&self, again: &Again) {
        let mut state = self.state();
        state.release(again.letter.id.as_bytes());
        let Some(key) = again.record.key.as_ref().filter(|key| !key.is_empty()) else { return };
        let waiting = state.waiting.get_mut(&again.record.place).and_then(|keys| keys.get_mut(key));
        if let Some(next) = waiting.and_then(|waiting| waiting.values_mut().next()) {
            next.is_asked_for = true;
        }
    }

    fn letter(&self, record: &Polled, cause: String, attempts: u32) -> DeadLetter {
        let topic = record.place.topic.to_string();
        let letter = DeadLetter::of_record(self.stage.clone(), topic, record, ErrorClass::Definite, cause);
        // Several stages may give up on the same event.
        let id = format!("{}/{}", self.stage.replace(' ', "-"), letter.subject);
        DeadLetter { id, attempts, way_back: WayBack::Stage, ..letter }
    }

    /// The next event of each key that somebody asked to have done again, of these partitions: the first that waits.
    ///
    /// # Errors
    /// The transport did not answer, or the event is not there any more.
    pub async fn asked_for(&self, mine: impl Fn(&TopicPartition) -> bool) -> Result<Vec<Again>, TransportError> {
        let first: Vec<(u64, Bytes)> = {
            let state = self.state();
            let keys = state.waiting.iter().filter(|(place, _)| mine(place)).flat_map(|(_, keys)| keys.iter());
            let asked = keys.flat_map(|(key, waiting)| {
                // Without a key each is alone.
                let alone = key.is_empty();
                // What was asked for before the first failed once more was answered by that.
                let since = waiting.values().next().and_then(|first| first.lies_at);
                let is_asked = waiting.values().any(|held| held.is_asked_for && held.lies_at >= since);
                let wanted: Vec<&Held> = match alone {
                    true => waiting.values().filter(|held| held.is_asked_for).collect(),
                    false => waiting.values().take(usize::from(is_asked)).collect(),
                };
                wanted.into_iter().filter_map(|held| Some((held.lies_at?, held.id.clone()))).collect::<Vec<_>>()
            });
            asked.collect()
        };
        let mut again = Vec::new();
        for (lies_at, id) in first {
            // It was replaced by a later one, which is read soon.
            let Some(letter) = self.letters.at(lies_at).await?.filter(|letter| letter.id.as_bytes() == id) else {
                continue;
            };
            let original = self.letters.original(&letter).await?;
            let place = TopicPartition { topic: letter.topic.as_str().into(), partition: letter.partition };
            let (offset, timestamp_ms) = (letter.offset, letter.first_failed_us / 1_000);
            let (key, value, headers) = (original.key, original.value, original.headers);
            again.push(Again { letter, record: Polled { place, offset, key, value, headers, timestamp_ms } });
        }
        Ok(again)
    }

    /// How many events wait.
    pub fn count(&self) -> usize {
        self.state().places.len()
    }
}

impl State {
    fn hold(&mut self, place: TopicPartition, key: Bytes, offset: u64, held: Held) {
        self.places.insert(held.id.clone(), (place.clone(), key.clone(), offset));
        let waiting = self.waiting.entry(place).or_default().entry(key).or_default();
        waiting.insert(offset, held);
    }

    fn release(&mut self, id: &[u8]) {
        let Some((place, key, offset)) = self.places.remove(id) else { return };
        let Some(keys) = self.waiting.get_mut(&place) else { return };
        let Some(waiting) = keys.get_mut(&key) else { return };
        waiting.remove(&offset);
        if waiting.is_empty() {
            keys.remove(&key);
        }
    }
}
