//! How far a graph has come in the databases' logs, as it says in the header `X-Tributary-Position`, and waiting until it has come
//! somewhere.
//!
//! The header is a promise: whoever asks the graph from now on is answered from this position or a later one. A graph that reads one
//! replica sends that one's `pg_last_wal_replay_lsn()`; one that reads several, the least of theirs.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::{ChangeEvent, Lsn};
use tributary_processor::Backoff;

/// Between two questions how far the graph has come.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A graph that has come no further for so long does not say how far it has come: its header belongs to another database, or is a
/// constant. What it shows is guessed then by `graph.lag`.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is waited for longer is said in `/health`.
const NOTEWORTHY: Duration = Duration::from_secs(2);

/// Somebody waits until the graph has come somewhere.
#[derive(Debug)]
pub(crate) struct Wait {
    said: String,
    begun: Instant,
    moved: Instant,
    patience: Duration,
    backoff: Backoff,
}

impl Wait {
    /// The graph, which may be behind by `lag`, said this last.
    pub fn begin(said: String, lag: Duration) -> Self {
        let now = Instant::now();
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Self { said, begun: now, moved: now, patience: PATIENCE.max(lag), backoff }
    }

    /// What the graph said last.
    pub fn said(&self) -> &str {
        &self.said
    }

    /// Why what it says is no position; none while it may be one.
    pub fn is_vain(&self) -> Option<String> {
        let Self { said, patience, .. } = self;
        (self.moved.elapsed() > *patience)
            .then(|| format!("X-Tributary-Position does not move: the graph has stood at {said} for {patience:?}"))
    }

    /// For how many seconds it has been waited, where that is worth a note.
    pub fn lasts(&self) -> Option<u64> {
        Some(self.begun.elapsed()).filter(|lasted| *lasted > NOTEWORTHY).map(|lasted| lasted.as_secs())
    }

    /// How long to wait before the graph is asked again.
    pub fn pause(&mut self) -> Duration {
        self.backoff.pause()
    }

    /// The graph was asked again; none: it did not answer, which says nothing about where it stands.
    pub fn hear(&mut self, said: Option<String>) {
        match said {
            Some(said) if said == self.said => {}
            Some(said) => (self.said, self.moved) = (said, Instant::now()),
            None => self.moved = Instant::now(),
        }
    }
}

/// The positions that a graph said, by source: `16/B374D848`, or `movies=16/B374D848, users=0/5F00A8` of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress<'a> {
    of: HashMap<&'a str, &'a str>,
    sole: Option<&'a str>,
}

impl<'a> Progress<'a> {
    /// Reads the header's value.
    pub fn parse(said: &'a str) -> Self {
        let mut progress = Self { of: HashMap::new(), sole: None };
        for part in said.split(',') {
            match part.split_once('=') {
                Some((source, position)) => drop(progress.of.insert(source.trim(), position.trim())),
                None => progress.sole = Some(part.trim()),
            }
        }
        progress
    }

    /// Whether the graph shows a change. `is_sole`: the pipeline has one source, which need not be named. None: the graph says nothing
    /// of the change's source that can be understood, or the change has no position.
    pub fn shows(&self, event: &ChangeEvent, is_sole: bool) -> Option<bool> {
        event.position.is_seen_at(self.said_of(&event.source.name, is_sole)?)
    }

    /// Whether the graph shows all of a source's log up to this place. None: it says nothing of the source that can be understood.
    pub fn reaches(&self, source: &str, end: Lsn, is_sole: bool) -> Option<bool> {
        let said = self.said_of(source, is_sole)?.trim().parse::<Lsn>().ok()?;
        Some(said >= end)
    }

    fn said_of(&self, source: &str, is_sole: bool) -> Option<&'a str> {
        self.of.get(source).copied().or(self.sole.filter(|_| is_sole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_event::debezium::Decoder;

    fn event(source: &str, lsn: u64) -> ChangeEvent {
        let source = serde_json::json!({
            "connector": "postgresql", "name": source, "db": "db", "schema": "public", "table": "movie",
            "lsn": lsn, "sequence": format!("[null,\"{lsn}\"]"), "ts_us": 0
        });
        let value =
            serde_json::json!({ "before": null, "after": { "id": 1 }, "source": source, "op": "c" }).to_string();
        Decoder::new().decode(Some(br#"{"id":1}"#), Some(value.as_bytes())).expect("decodes").expect("an event")
    }

    #[test]
    fn a_position_counts_for_its_source() {
        let (movies, users) = (event("movies", 0x10), event("users", 0x20));
        let said = Progress::parse("0/11");
        assert_eq!((said.shows(&movies, true), said.shows(&users, true)), (Some(true), Some(false)));
        assert_eq!(said.shows(&movies, false), None, "of several sources, each is named");
        let said = Progress::parse("movies=0/10, users = 0/21");
        assert_eq!((said.shows(&movies, false), said.shows(&users, false)), (Some(false), Some(true)));
        assert_eq!(said.shows(&event("other", 1), true), None);
        for nonsense in ["", "soon", "movies=", ",", "=0/11"] {
            assert_eq!(Progress::parse(nonsense).shows(&movies, true), None, "{nonsense:?}");
        }
    }
}
