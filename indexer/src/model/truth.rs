//! The database: small, written at random, remembered in all its versions, and its log of change events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::Instant;
use tributary_event::debezium::{DecimalMode, Encoder, encode_event_key, topic};
use tributary_event::{
    ChangeEvent, Column, HybridClock, Lsn, Op, Position, Row, Scope, SourceInfo, SourceKind, TableSchema, Value,
};

use super::random::Random;

/// The rows, all ids being small numbers and all values one letter, so that values return.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Title and distributor.
    pub movies: BTreeMap<u8, (char, Option<u8>)>,
    pub talents: BTreeMap<u8, char>,
    pub distributors: BTreeMap<u8, char>,
    /// Movie and talent.
    pub movie_talents: BTreeSet<(u8, u8)>,
    /// Movie and text.
    pub reviews: BTreeMap<u8, (u8, char)>,
}

impl State {
    /// A movie as the index's query asks for it.
    pub fn movie(&self, id: u8) -> Option<Json> {
        let (title, distributor) = self.movies.get(&id)?;
        let named =
            |name: &str, id: &u8, value: &char| json!({ "__typename": name, "id": id.to_string(), "name": value });
        let talents: Vec<Json> = self
            .movie_talents
            .iter()
            .filter(|(movie, _)| *movie == id)
            .filter_map(|(_, talent)| Some(named("Talent", talent, self.talents.get(talent)?)))
            .collect();
        let reviews: Vec<Json> = self
            .reviews
            .iter()
            .filter(|(_, (movie, _))| *movie == id)
            .map(|(id, (_, text))| json!({ "__typename": "Review", "id": id.to_string(), "text": text }))
            .collect();
        let distributor = distributor.and_then(|id| Some(named("Distributor", &id, self.distributors.get(&id)?)));
        Some(json!({
            "__typename": "Movie", "id": id.to_string(), "title": title, "talents": talents, "reviews": reviews,
            "distributor": distributor,
        }))
    }

    /// The movies that show a distributor or a review.
    pub fn parents(&self, type_name: &str, id: u8) -> Vec<u8> {
        match type_name {
            "Review" => self
                .reviews
                .get(&id)
                .map(|(movie, _)| *movie)
                .filter(|m| self.movies.contains_key(m))
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// The database with its past. Clones share it.
#[derive(Clone)]
pub struct Truth(Arc<Mutex<Database>>);

struct Database {
    /// States with the moment of their commit, oldest first.
    past: Vec<(Instant, State)>,
    /// The last event of each of them.
    last: Vec<u64>,
    sequence: u64,
    encoder: Encoder,
    source: Arc<SourceInfo>,
    clock: HybridClock,
}

/// An event of the log: its topic, its key, its value.
pub type Logged = (String, Option<Vec<u8>>, Vec<u8>);

/// Of all kinds of statements; the first few of them change only what movies embed.
pub const KINDS: usize = 12;
pub const EMBEDDED: usize = 3;
const LETTERS: [char; 3] = ['A', 'B', 'C'];

impl Truth {
    pub fn new(state: State) -> Self {
        let source = SourceInfo { name: "db".into(), kind: SourceKind::PostgreSql, database: "db".into() };
        Self(Arc::new(Mutex::new(Database {
            past: vec![(Instant::now(), state)],
            last: vec![0],
            sequence: 0,
            encoder: Encoder::new(&source, DecimalMode::default()),
            source: Arc::new(source),
            clock: HybridClock::default(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> State {
        self.lock().past.last().expect("a state").1.clone()
    }

    /// What a reader sees who is behind.
    pub fn seen_behind(&self, behind: Duration) -> State {
        let database = self.lock();
        let moment = Instant::now().checked_sub(behind);
        let seen = database.past.iter().rev().find(|(at, _)| moment.is_some_and(|moment| *at <= moment));
        seen.unwrap_or(&database.past[0]).1.clone()
    }

    /// Where in the log a reader stands who is behind.
    pub fn position_behind(&self, behind: Duration) -> Lsn {
        let database = self.lock();
        let moment = Instant::now().checked_sub(behind);
        let seen = database.past.iter().rposition(|(at, _)| moment.is_some_and(|moment| *at <= moment));
        Lsn(database.last[seen.unwrap_or_default()] + 1)
    }

    /// One transaction of one statement, of one of so many [`KINDS`]. Returns what the log says of it, and what was done.
    pub fn edit(&self, random: &mut Random, kinds: usize) -> (Vec<Logged>, String) {
        let mut database = self.lock();
        let mut state = database.past.last().expect("a state").1.clone();
        let letter = LETTERS[random.below(3)];
        let (movie, talent, review) = (random.below(4) as u8, random.below(3) as u8, random.below(3) as u8);
        let distributor = random.below(2) as u8;
        let mut events = Vec::new();
        let said;
        match random.below(kinds) {
            0 | 1 => {
                said = format!("talent {talent} = {letter}");
                state.talents.insert(talent, letter);
                events.push(database.event("talent", Op::Update, None, Some(vec![talent.into(), letter.into()])));
            }
            2 => {
                said = format!("distributor {distributor} = {letter}");
                state.distributors.insert(distributor, letter);
                let row = vec![distributor.into(), letter.into()];
                events.push(database.event("distributor", Op::Update, None, Some(row)));
            }
            3 | 4 => {
                let before = state.movies.insert(movie, (letter, Some(distributor)));
                said = format!("movie {movie} = {letter} of distributor {distributor}");
                let op = if before.is_some() { Op::Update } else { Op::Create };
                let row = vec![movie.into(), letter.into(), distributor.into()];
                events.push(database.event("movie", op, None, Some(row)));
            }
            5 => {
                said = format!("movie {movie} deleted");
                let pairs: Vec<(u8, u8)> = state.movie_talents.iter().copied().filter(|(m, _)| *m == movie).collect();
                for pair in pairs {
                    state.movie_talents.remove(&pair);
                    events.push(database.event(
                        "movie_talent",
                        Op::Delete,
                        Some(vec![pair.0.into(), pair.1.into()]),
                        None,
                    ));
                }
                let reviews: Vec<u8> =
                    state.reviews.iter().filter(|(_, (m, _))| *m == movie).map(|(id, _)| *id).collect();
                for id in reviews {
                    state.reviews.remove(&id);
                    events.push(database.event(
                        "review",
                        Op::Delete,
                        Some(vec![id.into(), Cell::Null, Cell::Null]),
                        None,
                    ));
                }
                if state.movies.remove(&movie).is_some() {
                    let before = vec![movie.into(), Cell::Null, Cell::Null];
                    events.push(database.event("movie", Op::Delete, Some(before), None));
                }
            }
            6 | 7 => {
                let pair = (movie, talent);
                let row = vec![movie.into(), talent.into()];
                if state.movie_talents.remove(&pair) {
                    said = format!("talent {talent} leaves movie {movie}");
                    events.push(database.event("movie_talent", Op::Delete, Some(row), None));
                } else {
                    said = format!("talent {talent} joins movie {movie}");
                    if state.movies.contains_key(&movie) {
                        state.movie_talents.insert(pair);
                        events.push(database.event("movie_talent", Op::Create, None, Some(row)));
                    }
                }
            }
            8..=10 => {
                said = format!("review {review} of movie {movie} = {letter}");
                if state.movies.contains_key(&movie) {
                    let before = state.reviews.insert(review, (movie, letter));
                    let op = if before.is_some() { Op::Update } else { Op::Create };
                    let row = vec![review.into(), movie.into(), letter.into()];
                    events.push(database.event("review", op, None, Some(row)));
                }
            }
            _ => {
                said = format!("review {review} deleted");
                if state.reviews.remove(&review).is_some() {
                    let before = vec![review.into(), Cell::Null, Cell::Null];
                    events.push(database.event("review", Op::Delete, Some(before), None));
                }
            }
        }
        database.past.push((Instant::now(), state));
        let last = database.sequence;
        database.last.push(last);
        (events, said)
    }
}

enum Cell {
    Null,
    Number(u8),
    Letter(char),
}

impl From<u8> for Cell {
    fn from(number: u8) -> Self {
        Self::Number(number)
    }
}

impl From<char> for Cell {
    fn from(letter: char) -> Self {
        Self::Letter(letter)
    }
}

/// The tables: columns, of which the first are the key.
fn table(name: &str) -> Arc<TableSchema> {
    let (columns, key): (&[&str], usize) = match name {
        "movie" => (&["id", "title", "distributor_id"], 1),
        "movie_talent" => (&["movie_id", "talent_id"], 2),
        "review" => (&["id", "movie_id", "text"], 1),
        _ => (&["id", "name"], 1),
    };
    let column = |name: &&str| Column { name: (*name).into(), type_name: "integer".into() };
    Arc::new(TableSchema::new("public", name, columns.iter().map(column).collect(), (0..key).collect()))
}

impl Database {
    fn event(&mut self, name: &str, op: Op, before: Option<Vec<Cell>>, after: Option<Vec<Cell>>) -> Logged {
        self.sequence += 1;
        let table = table(name);
        let row = |cells: Vec<Cell>| Row {
            table: table.clone(),
            values: cells
                .into_iter()
                .map(|cell| match cell {
                    Cell::Null => Value::Null,
                    Cell::Number(number) => Value::Int(number.into()),
                    Cell::Letter(letter) => Value::text(letter.to_string()),
                })
                .collect(),
        };
        let event = ChangeEvent {
            source: self.source.clone(),
            op,
            scope: Scope::Row,
            before: before.map(row),
            after: after.map(row),
            message: None,
            position: Position::Postgres { commit: Lsn(self.sequence), lsn: Lsn(self.sequence) },
            transaction: None,
            origin: None,
            query: None,
            commit_us: self.clock.wall_us(),
            capture_us: self.clock.wall_us(),
            sequence: self.sequence,
            table,
        };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let has_key = encode_event_key(&mut key, &event, DecimalMode::default());
        self.encoder.value(&event, &mut value);
        (topic("db", "public", name), has_key.then_some(key), value)
    }
}
