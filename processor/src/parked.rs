//! Keys that wait behind a dead letter. Where an event was set aside, later events of its key are set aside after it, so that none of
//! them overtakes it; asked to, the stage does them again in their order, and then the key flows as before.
//!
//! What waits is what the topic of letters says. The stage follows it, so that it also knows of what another process set aside before
//! the partition was this one's, and of what somebody asked to have done again. Who asks for one letter asks for all of its key; what is
//! set aside behind a letter that was asked for counts as asked for too. A letter that fails once more is written anew, behind all that
//! was asked for: its key waits again.
//!
//! A letter says which topic its event is of. Where that one was deleted and made again, an event at the same offset of the new one is
//! another event: it has not been set aside, though it waits behind those of its key that were (`turn`).

mod turn;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::warn;
use tributary_event::{ErrorClass, PlanHash};
use tributary_transport::dead_letter::{Parked as Outline, WayBack};
use tributary_transport::{Batch, DeadLetter, DeadLetters, Polled, TopicId, TopicPartition, TransportError};

use self::turn::{Topics, Turn, UNTOLD};

/// Events that are read at a time to be done again.
const AT_A_TIME: usize = 200;

/// What a stage has set aside.
pub struct Parked {
    letters: DeadLetters,
    stage: String,
    state: Mutex<State>,
    /// Whether nothing waits behind anything: each event is set aside for itself.
    is_alone: bool,
    /// The plan that the stage does, which letters say.
    plan: Option<PlanHash>,
    /// One reads the topic of letters at a time.
    following: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Up to where the topic of letters was read.
    from: u64,
    /// Which topics names have meant.
    topics: Topics,
    /// By partition and key: what waits, in its turn. Events without a key have an empty one here, and do not wait for each other.
    waiting: HashMap<TopicPartition, HashMap<Bytes, BTreeMap<Turn, Held>>>,
    /// Where each letter is in that, by its id.
    places: HashMap<Bytes, (TopicPartition, Bytes, Turn)>,
    /// Letters that this process took out. Who asked for one at that moment may have written it once more.
    taken_out: HashSet<Bytes>,
    /// Those that were, and have to be taken out again.
    ghosts: Vec<Bytes>,
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
        let (state, following) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { letters, stage: stage.into(), state, is_alone: false, plan: None, following }
    }

    /// The same where no event waits for another one.
    pub fn each_alone(self, is_alone: bool) -> Self {
        Self { is_alone, ..self }
    }

    /// The same of a stage whose plan has this hash.
    pub fn of_plan(self, plan: Option<PlanHash>) -> Self {
        Self { plan, ..self }
    }

    /// The hash of the plan that the stage does, if it was told.
    pub fn plan(&self) -> Option<PlanHash> {
        self.plan
    }

    /// What an event waits by; empty: for itself alone.
    fn key(&self, key: Option<&Bytes>) -> Bytes {
        key.filter(|_| !self.is_alone).cloned().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the topic of letters.
    ///
    /// # Errors
    /// The transport did not answer. What was read is kept.
    pub async fn follow(&self) -> Result<(), TransportError> {
        let _alone = self.following.lock().await;
        loop {
            let from = self.state().from;
            let (entries, next) = self.letters.follow::<Outline>(from).await?;
            let mut state = self.state();
            for entry in entries {
                match entry.letter.filter(|letter| letter.stage == self.stage && letter.way_back != WayBack::Topic) {
                    Some(letter) if letter.way_back == WayBack::Asked && state.taken_out.contains(&entry.id) => {
                        state.ghosts.push(entry.id);
                    }
                    Some(letter) => {
                        // It failed anew, here or where its partition is now.
                        if letter.way_back == WayBack::Stage {
                            state.taken_out.remove(&entry.id);
                        }
                        let place = TopicPartition { topic: letter.topic.into(), partition: letter.partition };
                        let is_asked_for = letter.way_back == WayBack::Asked;
                        let held = Held { id: entry.id, lies_at: Some(entry.offset), is_asked_for };
                        let key = self.key(letter.key.map(Bytes::from).as_ref());
                        let turn = (state.topics.number(&place.topic, letter.topic_id), letter.offset);
                        state.hold(place, key, turn, held);
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

    /// Events of a topic are read from now on, and it is this one, if that was told.
    pub fn reads(&self, topic: &Arc<str>, id: Option<TopicId>) {
        let Some(id) = id else { return };
        let mut state = self.state();
        if let Some((before, now)) = state.topics.is(topic, id) {
            state.renumber(topic, before, now);
        }
    }

    /// Whether an event has to wait because an earlier one of its key does: that one's letter.
    pub fn before(&self, record: &Polled) -> Option<String> {
        let key = Some(self.key(record.key.as_ref())).filter(|key| !key.is_empty())?;
        let state = self.state();
        let (number, _) = state.topics.current(&record.place.topic);
        let mut before = state.waiting.get(&record.place)?.get(&key)?.range(..(number, record.offset));
        before.next_back().map(|(_, held)| String::from_utf8_lossy(&held.id).into_owned())
    }

    /// Whether an event has a letter already: it was set aside before it came once more.
    pub fn holds(&self, record: &Polled) -> bool {
        let key = self.key(record.key.as_ref());
        let state = self.state();
        let waiting = state.waiting.get(&record.place).and_then(|keys| keys.get(&key));
        let (number, _) = state.topics.current(&record.place.topic);
        let is_there = |number: u32| waiting.is_some_and(|waiting| waiting.contains_key(&(number, record.offset)));
        is_there(number) || is_there(UNTOLD)
    }

    /// Whether a letter is still there.
    pub fn is_held(&self, again: &Again) -> bool {
        self.state().places.contains_key(again.letter.id.as_bytes())
    }

    /// Adds the letter of an event that failed, or waits behind another one, to a batch, and says its id. It counts at once: if the batch
    /// comes to nothing, say so by [`Self::forget`].
    pub fn set_aside(&self, batch: &mut Batch, record: &Polled, cause: String, attempts: u32) -> Bytes {
        // An event without a key waits for itself alone, and nothing behind it.
        let key = self.key(record.key.as_ref());
        let mut state = self.state();
        let waiting = state.waiting.get(&record.place).and_then(|keys| keys.get(&key));
        let is_asked_for = !key.is_empty() && waiting.is_some_and(is_asked_for);
        let (number, topic) = state.topics.current(&record.place.topic);
        let letter = self.letter(record, topic, cause, attempts);
        let way_back = if is_asked_for { WayBack::Asked } else { WayBack::Stage };
        self.letters.append_to(batch, &DeadLetter { way_back, ..letter.clone() });
        metrics::counter!("tributary_dead_letters_total", "stage" => self.stage.clone()).increment(1);
        let id: Bytes = letter.id.into_bytes().into();
        let held = Held { id: id.clone(), lies_at: None, is_asked_for };
        state.taken_out.remove(&id);
        state.hold(record.place.clone(), key, (number, record.offset), held);
        id
    }

    /// Letters were not written after all.
    pub fn forget(&self, ids: &[Bytes]) {
        let mut state = self.state();
        ids.iter().for_each(|id| state.release(id));
    }

    /// Adds the letter of an event that was done again and failed again to a batch. When it is durable, say so by [`Self::waits_again`].
    pub fn failed_again(&self, batch: &mut Batch, again: &Again, cause: String) {
        let attempts = again.letter.attempts.saturating_add(1);
        let letter = self.letter(&again.record, again.letter.topic_id, cause, attempts);
        let letter = DeadLetter { first_failed_us: again.letter.first_failed_us, ..letter };
        self.letters.append_to(batch, &letter);
    }

    /// An event failed again: its key waits until somebody asks once more.
    pub fn waits_again(&self, again: &Again) {
        let mut state = self.state();
        let id = again.letter.id.as_bytes();
        let Some((place, key, turn)) = state.places.get(id).cloned() else { return };
        let Some(waiting) = state.waiting.get_mut(&place).and_then(|keys| keys.get_mut(&key)) else { return };
        match key.is_empty() {
            true => waiting.get_mut(&turn).into_iter().for_each(|held| held.is_asked_for = false),
            false => waiting.values_mut().for_each(|held| held.is_asked_for = false),
        }
    }

    /// Adds to a batch that an event that was done again waits no more. When that is durable, say so by [`Self::done`].
    pub fn take_out(&self, batch: &mut Batch, again: &Again) {
        self.letters.take_out(batch, again.letter.id.as_bytes());
    }

    /// What was taken out is so for good; what waits behind it is next.
    pub fn done(&self, again: &Again) {
        let mut state = self.state();
        let id = Bytes::copy_from_slice(again.letter.id.as_bytes());
        state.release(&id);
        state.taken_out.insert(id);
        let key = self.key(again.record.key.as_ref());
        if key.is_empty() {
            return;
        }
        let waiting = state.waiting.get_mut(&again.record.place).and_then(|keys| keys.get_mut(&key));
        if let Some(next) = waiting.and_then(|waiting| waiting.values_mut().next()) {
            next.is_asked_for = true;
        }
    }

    /// Adds to a batch that letters are taken out again that somebody wrote once more while they were.
    pub fn take_out_ghosts(&self, batch: &mut Batch) {
        for id in std::mem::take(&mut self.state().ghosts) {
            self.letters.take_out(batch, &id);
        }
    }

    fn letter(&self, record: &Polled, of: Option<TopicId>, cause: String, attempts: u32) -> DeadLetter {
        let topic = record.place.topic.to_string();
        let letter = DeadLetter::of_record(self.stage.clone(), topic, record, ErrorClass::Definite, cause).of_topic(of);
        // Several stages may give up on the same event.
        let id = format!("{}/{}", self.stage.replace(' ', "-"), letter.id);
        DeadLetter { id, attempts, way_back: WayBack::Stage, plan: self.plan, ..letter }
    }

    /// The next event of each key that somebody asked to have done again, of these partitions: the first that waits; some of them at a
    /// time. An event that is in no letter and in no topic any more is told of, and waits.
    ///
    /// # Errors
    /// The transport did not answer.
    pub async fn asked_for(
        &self,
        mine: impl Fn(&TopicPartition) -> bool,
        is_under_way: impl Fn(&str) -> bool,
    ) -> Result<Vec<Again>, TransportError> {
        let first: Vec<(u64, Bytes)> = {
            let state = self.state();
            let keys = state.waiting.iter().filter(|(place, _)| mine(place)).flat_map(|(_, keys)| keys.iter());
            let asked = keys.flat_map(|(key, waiting)| match key.is_empty() {
                true => waiting.values().filter(|held| held.is_asked_for).collect::<Vec<_>>(),
                false => waiting.values().take(usize::from(is_asked_for(waiting))).collect(),
            });
            let known = asked.filter_map(|held| Some((held.lies_at?, held.id.clone())));
            known.filter(|(_, id)| !is_under_way(&String::from_utf8_lossy(id))).take(AT_A_TIME).collect()
        };
        let mut again = Vec::new();
        for (lies_at, id) in first {
            // It was replaced by a later one, which is read soon.
            let letter = self.letters.at(lies_at).await?.filter(|letter| letter.id.as_bytes() == id);
            let Some(letter) = letter else { continue };
            let original = match self.letters.original(&letter).await {
                Ok(original) => original,
                Err(error) if error.class == ErrorClass::Definite => {
                    warn!(error = error.message, "`tributary dlq discard` gives such a letter up");
                    self.unask(&id);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let place = TopicPartition { topic: letter.topic.as_str().into(), partition: letter.partition };
            let (offset, timestamp_ms) = (letter.offset, letter.first_failed_us / 1_000);
            let (key, value, headers) = (original.key, original.value, original.headers);
            again.push(Again { letter, record: Polled { place, offset, key, value, headers, timestamp_ms } });
        }
        Ok(again)
    }

    /// A letter cannot be done again.
    fn unask(&self, id: &Bytes) {
        let mut state = self.state();
        let Some((place, key, _)) = state.places.get(id).cloned() else { return };
        let waiting = state.waiting.get_mut(&place).and_then(|keys| keys.get_mut(&key));
        let of_key = waiting.into_iter().flat_map(BTreeMap::values_mut);
        of_key.filter(|held| !key.is_empty() || held.id == *id).for_each(|held| held.is_asked_for = false);
    }

    /// How many events wait.
    pub fn count(&self) -> usize {
        self.state().places.len()
    }
}

/// Whether a key is asked for. What was asked for before the first failed once more was answered by that.
fn is_asked_for(waiting: &BTreeMap<Turn, Held>) -> bool {
    let since = waiting.values().next().and_then(|first| first.lies_at);
    waiting.values().any(|held| held.is_asked_for && (held.lies_at.is_none() || held.lies_at >= since))
}

impl State {
    /// The topic of this name and number has another number.
    fn renumber(&mut self, topic: &Arc<str>, before: u32, now: u32) {
        for (place, keys) in self.waiting.iter_mut().filter(|(place, _)| place.topic == *topic) {
            for (key, waiting) in keys {
                let mut rest = waiting.split_off(&(before, 0));
                let mut behind = rest.split_off(&(before + 1, 0));
                waiting.append(&mut behind);
                for ((_, offset), held) in rest {
                    self.places.insert(held.id.clone(), (place.clone(), key.clone(), (now, offset)));
                    waiting.insert((now, offset), held);
                }
            }
        }
    }

    fn hold(&mut self, place: TopicPartition, key: Bytes, turn: Turn, held: Held) {
        self.places.insert(held.id.clone(), (place.clone(), key.clone(), turn));
        let waiting = self.waiting.entry(place).or_default().entry(key).or_default();
        // What this process wrote itself comes once more by the topic, and may have been asked for meanwhile.
        let asked = waiting.get(&turn).is_some_and(|before| before.lies_at.is_none() && before.is_asked_for);
        waiting.insert(turn, Held { is_asked_for: held.is_asked_for || asked, ..held });
    }

    fn release(&mut self, id: &[u8]) {
        let Some((place, key, turn)) = self.places.remove(id) else { return };
        let Some(keys) = self.waiting.get_mut(&place) else { return };
        let Some(waiting) = keys.get_mut(&key) else { return };
        waiting.remove(&turn);
        if waiting.is_empty() {
            keys.remove(&key);
        }
    }
}
