//! The event that the demo's stream makes of a rise, and the statements that make budgets rise and fall.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio_postgres::Client;

use super::outside::price;

/// Movies whose budgets change.
const MOVIES: i64 = 50;

/// An event: the budget of a movie rose.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raised {
    pub(super) id: i64,
    pub(super) title: String,
    pub(super) distributor: Option<String>,
    pub(super) budget_usd: i64,
    pub(super) rise_usd: i64,
    pub(super) ticket_usd: f64,
}

/// Events of each movie, in order.
pub(super) type ByMovie = BTreeMap<i64, Vec<Raised>>;

/// Puts events under their movies, in their order.
pub(super) fn by_movie(events: impl IntoIterator<Item = Raised>) -> ByMovie {
    let mut by_movie = ByMovie::new();
    for event in events {
        by_movie.entry(event.id).or_default().push(event);
    }
    by_movie
}

struct Movie {
    id: i64,
    title: String,
    distributor: Option<String>,
    budget_usd: i64,
}

/// Changes budgets, and knows what is to come of it.
pub(super) struct Changes {
    movies: Vec<Movie>,
    /// Rises so far.
    expected: Vec<Raised>,
    /// Statements so far.
    pub(super) statements: u64,
}

impl Changes {
    /// Of movies with a budget, those with the least ids.
    pub(super) async fn new(client: &Client) -> Result<Self> {
        const SQL: &str = "SELECT m.id::bigint, m.title, d.name, m.budget_usd FROM movie m \
                           LEFT JOIN distributor d ON d.id = m.distributor_id \
                           WHERE m.budget_usd > 0 ORDER BY m.id LIMIT $1";
        let rows = client.query(SQL, &[&MOVIES]).await.context("reading movies")?;
        let movie = |row: &tokio_postgres::Row| -> Result<Movie> {
            let (id, title) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Movie { id, title, distributor: row.try_get(2)?, budget_usd: row.try_get(3)? })
        };
        let movies = rows.iter().map(movie).collect::<Result<_>>()?;
        Ok(Self { movies, expected: Vec::new(), statements: 0 })
    }

    /// Runs the next statement: a rise of one movie; now and then a fall, another change, or a rise of all movies at once.
    pub(super) async fn next(&mut self, client: &Client) -> Result<()> {
        let number = self.statements;
        self.statements += 1;
        let chosen = usize::try_from(number * 17).unwrap_or_default() % self.movies.len().max(1);
        let sql = if number % 80 == 40 {
            let ids: Vec<String> = self.movies.iter().map(|movie| movie.id.to_string()).collect();
            for place in 0..self.movies.len() {
                self.change(place, 250);
            }
            format!("UPDATE movie SET budget_usd = budget_usd + 250 WHERE id IN ({})", ids.join(", "))
        } else if number % 11 == 5 {
            let id = self.movies.get(chosen).map_or(0, |movie| movie.id);
            format!("UPDATE movie SET imdb_votes = {number} WHERE id = {id}")
        } else {
            let by = if number % 7 == 3 { -500 } else { 1_000 + i64::try_from(number % 5).unwrap_or_default() };
            let id = self.change(chosen, by);
            format!("UPDATE movie SET budget_usd = budget_usd + {by} WHERE id = {id}")
        };
        client.batch_execute(&sql).await.with_context(|| sql.clone())
    }

    /// Notes a change; answers the movie's id.
    fn change(&mut self, place: usize, by: i64) -> i64 {
        let Some(movie) = self.movies.get_mut(place) else { return 0 };
        movie.budget_usd += by;
        if by > 0 {
            self.expected.push(Raised {
                id: movie.id,
                title: movie.title.clone(),
                distributor: movie.distributor.clone(),
                budget_usd: movie.budget_usd,
                rise_usd: by,
                ticket_usd: price(movie.id),
            });
        }
        movie.id
    }

    /// What is to come of all changes so far.
    pub(super) fn expected(&self) -> ByMovie {
        by_movie(self.expected.iter().cloned())
    }
}
