//! What a process knows of the dead letters of its pipeline: which there are, and when each is to be tried again, without their
//! content. It follows their topic, so that it also knows of those that others write, replay and withdraw.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tributary_event::ErrorClass;
use tributary_transport::TransportError;
use tributary_transport::dead_letter::{DeadLetters, Outline, Replays};
use xxhash_rust::xxh3::xxh3_64;

/// Between a failure, or the last try by the pipeline itself, and the next one.
const PAUSES_US: [i64; 4] = [60_000_000, 300_000_000, 1_800_000_000, 3_600_000_000];

/// The letters of a pipeline.
#[derive(Debug, Default)]
pub struct Book(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By hashes of their names.
    letters: HashMap<u64, Known>,
    /// Stages, by their places here, and how many letters each has.
    stages: Vec<(String, u64)>,
    /// Up to where the topic was read.
    from: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// Where it lies; none before it was read.
    offset: Option<u64>,
    stage: usize,
    replays: Replays,
    /// When it is to be tried again; none: not by itself.
    due_us: Option<i64>,
}

/// A letter that is to be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    pub name: u64,
    pub offset: u64,
}

impl State {
    fn stage(&mut self, name: &str) -> usize {
        let known = self.stages.iter().position(|(stage, _)| stage == name);
        known.unwrap_or_else(|| {
            self.stages.push((name.to_owned(), 0));
            self.stages.len() - 1
        })
    }

    fn remove(&mut self, name: u64) -> bool {
        let Some(known) = self.letters.remove(&name) else { return false };
        self.stages[known.stage].1 -= 1;
        true
    }
}

impl Book {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new in the topic of letters.
    ///
    /// # Errors
    /// The transport did not answer. What was read is kept.
    pub async fn follow(&self, letters: &DeadLetters) -> Result<(), TransportError> {
        loop {
            let from = self.state().from;
            let (entries, next) = letters.follow(from).await?;
            for entry in entries {
                let name = xxh3_64(&entry.id);
                match entry.letter {
                    Some(letter) => self.note(name, letter, Some(entry.offset)),
                    None => drop(self.state().remove(name)),
                }
            }
            self.state().from = next;
            if next == from {
                return Ok(());
            }
        }
    }

    /// A letter is being written.
    pub fn written(&self, name: &str, letter: Outline, offset: Option<u64>) {
        self.note(xxh3_64(name.as_bytes()), letter, offset);
    }

    fn note(&self, name: u64, letter: Outline, offset: Option<u64>) {
        let mut state = self.state();
        state.remove(name);
        let stage = state.stage(&letter.stage);
        let last = letter.last_failed_us.max(letter.replays.last_us);
        let pause = PAUSES_US[(letter.replays.count as usize).min(PAUSES_US.len() - 1)];
        let due_us = (letter.class == ErrorClass::Transient).then(|| last.saturating_add(pause));
        state.letters.insert(name, Known { offset, stage, replays: letter.replays, due_us });
        state.stages[stage].1 += 1;
    }

    /// A letter is being taken out: whether there was one.
    pub fn taken_out(&self, name: &str) -> bool {
        self.state().remove(xxh3_64(name.as_bytes()))
    }

    /// How often the pipeline tried this one again by itself.
    pub fn replays(&self, name: &str) -> Replays {
        self.state().letters.get(&xxh3_64(name.as_bytes())).map_or_else(Replays::default, |known| known.replays)
    }

    /// The letters of a stage.
    pub fn count(&self, stage: &str) -> u64 {
        self.state().stages.iter().find(|(name, _)| name == stage).map_or(0, |(_, letters)| *letters)
    }

    /// Up to `most` that are to be tried again now.
    pub(super) fn due(&self, now_us: i64, most: usize) -> Vec<Due> {
        let state = self.state();
        let is_due = |known: &Known| known.due_us.is_some_and(|at| at <= now_us);
        let due = state.letters.iter().filter(|(_, known)| is_due(known));
        due.filter_map(|(name, known)| Some(Due { name: *name, offset: known.offset? })).take(most).collect()
    }

    /// A letter cannot be tried again by itself.
    pub(super) fn give_up(&self, name: u64) {
        if let Some(known) = self.state().letters.get_mut(&name) {
            known.due_us = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(stage: &str, class: ErrorClass, failed_us: i64, count: u32, last_us: i64) -> Outline {
        Outline { stage: stage.into(), class, last_failed_us: failed_us, replays: Replays { count, last_us } }
    }

    #[test]
    fn what_may_pass_is_due_with_growing_pauses() {
        let book = Book::default();
        let due = |now| book.due(now, 10).len();
        book.written("movies/1", letter("build movies", ErrorClass::Definite, 0, 0, 0), Some(1));
        book.written("movies/2", letter("build movies", ErrorClass::Transient, 0, 0, 0), None);
        assert_eq!(due(i64::MAX), 0, "one never, and the other not before it was read");
        for (count, minutes) in [(0, 1), (1, 5), (2, 30), (3, 60), (9, 60)] {
            book.written("movies/2", letter("build movies", ErrorClass::Transient, 5, count, 7), Some(2));
            assert_eq!((due(minutes * 60_000_000 + 6), due(minutes * 60_000_000 + 7)), (0, 1));
            assert_eq!(book.replays("movies/2").count, count);
        }
        book.give_up(xxh3_64(b"movies/2"));
        assert_eq!(due(i64::MAX), 0);
    }

    #[test]
    fn letters_are_counted_by_stage() {
        let book = Book::default();
        book.written("movies/1", letter("build movies", ErrorClass::Definite, 0, 0, 0), Some(1));
        book.written("movies/2", letter("delete movies", ErrorClass::Definite, 0, 0, 0), Some(2));
        book.written("movies/1", letter("delete movies", ErrorClass::Definite, 0, 0, 0), Some(3));
        assert_eq!((book.count("build movies"), book.count("delete movies"), book.count("other")), (0, 2, 0));
        assert!(book.taken_out("movies/1"));
        assert!(!book.taken_out("movies/1"));
        assert_eq!(book.count("delete movies"), 1);
    }
}
