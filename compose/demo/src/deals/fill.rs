//! Fills the databases of films and contracts with the demo's movies: of each movie with a distributor one deal is made.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::Databases;
use super::database::Database;
use crate::load::{MOVIES, numbered};

const FILMS: &str = include_str!("../../deals/films.sql");
const CONTRACTS: &str = include_str!("../../deals/contracts.sql");

/// Rows of a statement.
const ROWS: usize = 500;
/// Places of columns in `movies.csv`.
const TITLE: usize = 1;
const RELEASED: usize = 2;
const DISTRIBUTOR: usize = 5;
const DIRECTOR: usize = 7;
const VOTES: usize = 9;
const BUDGET: usize = 10;

/// Creates the tables and fills them; answers how many movies there are.
///
/// # Errors
/// If a database does not answer, or has the tables already.
pub async fn fill(databases: &Databases) -> anyhow::Result<usize> {
    let movies = csv::Reader::from_reader(MOVIES.as_bytes()).into_records();
    let movies = movies.collect::<Result<Vec<_>, _>>().context("movies.csv")?;
    let (directors, vendors) = (numbered(&movies, DIRECTOR), numbered(&movies, DISTRIBUTOR));
    let Databases { films, contracts } = databases;
    films.run(FILMS).await.context("creating the tables of films")?;
    contracts.run(CONTRACTS).await.context("creating the tables of contracts")?;
    let field = |movie: &csv::StringRecord, at: usize| movie.get(at).unwrap_or_default().to_owned();
    let or_null = |text: String| if text.is_empty() { "null".to_owned() } else { text };
    let number = |numbers: &BTreeMap<&str, u32>, name: &str| numbers.get(name).copied();
    let named = |database: &Database, numbers: &BTreeMap<&str, u32>| -> Vec<String> {
        numbers.iter().map(|(name, id)| format!("({id}, {})", database.literal(name))).collect()
    };
    let rows = |database: &Database, movie: &csv::StringRecord| {
        let date = field(movie, RELEASED);
        let date = if date.is_empty() { "null".to_owned() } else { database.literal(&date) };
        let (id, title) = (field(movie, 0), database.literal(&field(movie, TITLE)));
        format!("({id}, {title}, {date}, {})", or_null(field(movie, VOTES)))
    };
    insert(films, "talent (id, name)", named(films, &directors)).await?;
    insert(films, "movie (id, title, released, votes)", movies.iter().map(|movie| rows(films, movie)).collect())
        .await?;
    let made = movies
        .iter()
        .filter_map(|movie| Some(format!("({}, {})", movie.get(0)?, number(&directors, movie.get(DIRECTOR)?)?)));
    insert(films, "movie_talent (movie_id, talent_id)", made.collect()).await?;
    insert(contracts, "vendor (id, name)", named(contracts, &vendors)).await?;
    let deals = movies.iter().filter_map(|movie| {
        let (id, vendor) = (movie.get(0)?, number(&vendors, movie.get(DISTRIBUTOR)?)?);
        Some(format!("({id}, {id}, {vendor}, {})", or_null(field(movie, BUDGET))))
    });
    insert(contracts, "deal (id, movie_id, vendor_id, amount_usd)", deals.collect()).await?;
    Ok(movies.len())
}

async fn insert(database: &Database, into: &str, rows: Vec<String>) -> anyhow::Result<()> {
    for some in rows.chunks(ROWS) {
        let statement = format!("insert into {into} values {}", some.join(", "));
        database.run(&statement).await.with_context(|| format!("filling {into}"))?;
    }
    Ok(())
}
