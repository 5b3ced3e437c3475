//! One of those who write to the database: changes of every kind, one after the other, whatever happens to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio_postgres::{Client, NoTls};

/// Rows that are inserted have ids from here on, so many at most: a search shows ten thousand documents.
const NEW: i32 = 10_000;
const MOST_NEW: i32 = 1_000;
/// Venues and, of each, some screenings.
const VENUES: i32 = 60;
const SCREENINGS: i32 = 3_000;

pub(super) struct Writer {
    pub(super) url: String,
    random: StdRng,
    number: u64,
    changes: i32,
}

/// What all writers have in common.
#[derive(Default)]
pub(super) struct Tally {
    /// Told to end.
    pub(super) ended: AtomicBool,
    /// Statements that the database carried out.
    pub(super) carried_out: AtomicU64,
    /// Statements that it refused, or did not answer.
    pub(super) failed: AtomicU64,
}

impl Writer {
    pub(super) fn new(url: String, seed: u64, number: u64) -> Self {
        let random = StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(number));
        Self { url, random, number, changes: 0 }
    }

    /// Writes until it is told to end.
    pub(super) async fn run(mut self, tally: Arc<Tally>) {
        let mut connected: Option<Client> = None;
        while !tally.ended.load(Ordering::Acquire) {
            let pause = Duration::from_millis(self.random.random_range(0..120));
            tokio::time::sleep(pause).await;
            let statement = self.change();
            let Some(client) = connected.take().filter(|client| !client.is_closed()) else {
                connected = connect(&self.url).await;
                continue;
            };
            let counter = match client.batch_execute(&statement).await {
                Ok(()) => &tally.carried_out,
                // Another writer was faster, or the database is away: what is in it in the end is what counts.
                Err(_) => &tally.failed,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            connected = Some(client);
        }
    }

    /// The next change.
    fn change(&mut self) -> String {
        self.changes += 1;
        let mark = format!("{}-{}", self.number, self.changes);
        let movie = self.random.random_range(1..=3201);
        let other = self.random.random_range(1..=3201);
        let new = NEW + self.random.random_range(0..MOST_NEW);
        let talent = self.random.random_range(1..=550);
        let (venue, screening) = (self.random.random_range(0..VENUES), self.random.random_range(0..SCREENINGS));
        let insert = |movie: i32| {
            format!(
                "INSERT INTO movie (id, title, distributor_id, genre_id) VALUES ({movie}, 'New {mark}', {}, {}) \
                 ON CONFLICT (id) DO UPDATE SET title = excluded.title",
                1 + movie % 174,
                1 + movie % 12
            )
        };
        match self.random.random_range(0..1000) {
            // Roots.
            0..150 => format!("UPDATE movie SET title = 'Title {mark}' WHERE id = {movie}"),
            150..200 => insert(new),
            200..240 => format!("DELETE FROM movie WHERE id = {new}"),
            240..270 => format!("DELETE FROM movie WHERE id = {movie}; {}", insert(movie)),
            270..300 => format!("BEGIN; DELETE FROM movie WHERE id = {new}; {}; COMMIT", insert(new)),
            300..310 => format!("UPDATE movie SET id = {new} WHERE id = {movie}"),
            310..320 => insert(movie),
            // There and back: what is written late must not win.
            320..360 => {
                let set = |votes: i32| format!("UPDATE movie SET imdb_votes = {votes} WHERE id = {movie}");
                format!("{}; {}; {}", set(1), set(2), set(1))
            }
            // Leaves.
            360..460 => format!("UPDATE talent SET name = 'Talent {mark}' WHERE id = {talent}"),
            460..520 => format!("UPDATE venue SET name = 'Venue {mark}' WHERE id = {venue}"),
            // Edges that are columns of the root, or rows of a join table.
            520..580 => format!("UPDATE movie SET distributor_id = {} WHERE id = {movie}", 1 + other % 174),
            580..640 => {
                format!(
                    "INSERT INTO movie_talent (movie_id, talent_id) VALUES ({movie}, {talent}) ON CONFLICT DO NOTHING"
                )
            }
            640..690 => format!("UPDATE movie_talent SET movie_id = {other} WHERE movie_id = {movie}"),
            690..720 => format!("DELETE FROM movie_talent WHERE movie_id = {movie}"),
            // Children with keys of their own: they come, move, go, and come again.
            720..800 => format!(
                "INSERT INTO venue VALUES ({venue}, 'Venue {mark}', 'C') ON CONFLICT DO NOTHING; \
                 INSERT INTO screening VALUES ({screening}, {movie}, {venue}, now()) \
                 ON CONFLICT (id) DO UPDATE SET movie_id = excluded.movie_id, venue_id = excluded.venue_id"
            ),
            800..860 => format!("UPDATE screening SET movie_id = {movie} WHERE id = {screening}"),
            860..900 => format!(
                "UPDATE screening SET venue_id = {venue} WHERE id = {screening}; \
                 UPDATE venue SET name = 'Moved {mark}' WHERE id = {venue}"
            ),
            900..940 => format!("DELETE FROM screening WHERE id = {screening}"),
            940..960 => format!(
                "DELETE FROM screening WHERE id = {screening}; \
                 INSERT INTO screening VALUES ({screening}, {movie}, NULL, now())"
            ),
            960..970 => format!("DELETE FROM venue WHERE id = {venue}"),
            // Vertices in hundreds of documents.
            970..985 => format!("UPDATE distributor SET name = 'Distributor {mark}' WHERE id = {}", 1 + other % 174),
            985..990 => format!("UPDATE genre SET name = 'Genre {mark}' WHERE id = {}", 1 + other % 12),
            // Everything at once, and nothing after all.
            990..996 => format!(
                "BEGIN; UPDATE movie SET imdb_votes = imdb_votes + 1 WHERE id % 97 = {}; \
                 UPDATE talent SET name = 'Many {mark}' WHERE id % 50 = {}; \
                 UPDATE screening SET venue_id = NULL WHERE id % 40 = {}; COMMIT",
                movie % 97,
                talent % 50,
                screening % 40
            ),
            996..999 => format!("BEGIN; UPDATE movie SET title = 'never' WHERE id = {movie}; ROLLBACK"),
            _ => "TRUNCATE screening".to_owned(),
        }
    }
}

async fn connect(url: &str) -> Option<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
    tokio::spawn(connection);
    Some(client)
}
