//! Fills a database with the demo's movies: creates the tables and copies `data/movies.csv` into them, once or many
//! times over.
//!
//! A copy has movies and talents of its own (their ids are shifted by [`STRIDE`] per copy); distributors and genres
//! are shared, so that a hundred copies give one distributor a hundred times the movies.

use anyhow::Context;
use axum::body::Bytes;
use futures::SinkExt;
use std::collections::{BTreeMap, BTreeSet};
use tokio_postgres::{Client, NoTls, Transaction};

const SCHEMA: &str = include_str!("../schema.sql");
pub(crate) const MOVIES: &str = include_str!("../data/movies.csv");

/// The distance between the ids of one movie in two neighbouring copies.
const STRIDE: u32 = 10_000;
/// The most copies whose ids fit into a PostgreSQL `int`.
const MAX_COPIES: u32 = 200_000;
/// Keeps two processes from filling the same database at the same time.
const LOAD_LOCK: i64 = 0x006d_6f76_6965;

/// What to fill a database with.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// How often the 3,201 movies are written; at least one.
    pub copies: u32,
    /// So many of them at most, those of the lowest ids.
    pub movies: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { copies: 1, movies: usize::MAX }
    }
}

/// What a database holds after [`load()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadReport {
    /// Whether this call filled it; false if movies were there already and nothing was written.
    pub filled: bool,
    /// Rows of `movie`.
    pub movies: u64,
    /// Rows of `talent`.
    pub talents: u64,
    /// Rows of `distributor`.
    pub distributors: u64,
    /// Rows of `genre`.
    pub genres: u64,
}

/// Creates the tables and indexes that are absent, and leaves everything else as it is.
///
/// # Errors
/// If the database cannot be reached or refuses a statement.
pub async fn create_schema(database_url: &str) -> anyhow::Result<()> {
    let mut client = connect(database_url).await?;
    let transaction = begin(&mut client).await?;
    transaction.commit().await.context("committing the tables")
}

/// Creates the tables that are absent and, if there is no movie yet, fills them in one transaction.
///
/// # Errors
/// If `copies` is out of range, or the database cannot be reached or refuses a statement; nothing is written then.
pub async fn load(database_url: &str, options: LoadOptions) -> anyhow::Result<LoadReport> {
    anyhow::ensure!((1..=MAX_COPIES).contains(&options.copies), "copies must be between 1 and {MAX_COPIES}");
    let mut client = connect(database_url).await?;
    let transaction = begin(&mut client).await?;
    let filled = transaction.query_opt("SELECT FROM public.movie LIMIT 1", &[]).await?.is_none();
    if filled {
        fill(&transaction, options).await.context("filling the tables")?;
    }
    transaction.commit().await.context("committing the movies")?;
    if filled {
        // Without statistics the planner reads whole tables where an index would do.
        client
            .batch_execute("ANALYZE public.distributor, public.genre, public.talent, public.movie, public.movie_talent")
            .await
            .context("gathering statistics")?;
    }
    count(&client, filled).await.context("counting rows")
}

/// Connects; the connection's task ends when the client is dropped.
async fn connect(database_url: &str) -> anyhow::Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(database_url, NoTls).await.context("connecting to the movie database")?;
    tokio::spawn(async move {
        // A broken connection fails the client's next statement, which reports it.
        let _ = connection.await;
    });
    Ok(client)
}

/// Opens a transaction in which the tables exist and no other loader is at work.
async fn begin(client: &mut Client) -> anyhow::Result<Transaction<'_>> {
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOAD_LOCK]).await?;
    transaction.batch_execute(SCHEMA).await.context("creating the tables")?;
    Ok(transaction)
}

/// The names of a column in alphabetical order, each with its id from 1.
pub(crate) fn numbered<'a>(movies: &'a [csv::StringRecord], column: usize) -> BTreeMap<&'a str, u32> {
    let names: BTreeSet<&'a str> = movies.iter().filter_map(|movie| movie.get(column)).collect();
    names.into_iter().filter(|name| !name.is_empty()).zip(1..).collect()
}

async fn fill(transaction: &Transaction<'_>, LoadOptions { copies, movies }: LoadOptions) -> anyhow::Result<()> {
    const TITLE: usize = 1;
    const DISTRIBUTOR: usize = 5;
    const GENRE: usize = 6;
    const DIRECTOR: usize = 7;
    // One movie of the source has no title. It is kept, with the empty text as its title.
    const TITLE_REQUIRED: &str = ", FORCE_NOT_NULL (title)";

    let movies = csv::Reader::from_reader(MOVIES.as_bytes())
        .into_records()
        .take(movies)
        .collect::<Result<Vec<_>, _>>()
        .context("movies.csv")?;
    let distributors = numbered(&movies, DISTRIBUTOR);
    let genres = numbered(&movies, GENRE);
    let directors = numbered(&movies, DIRECTOR);
    let shifts = || (0..copies).map(|copy| copy * STRIDE);

    let mut table = Copier::start(transaction, "distributor (id, name)", "").await?;
    table.named(&distributors, 0).await?;
    table.finish().await?;
    let mut table = Copier::start(transaction, "genre (id, name)", "").await?;
    table.named(&genres, 0).await?;
    table.finish().await?;
    let mut table = Copier::start(transaction, "talent (id, name)", "").await?;
    for shift in shifts() {
        table.named(&directors, shift).await?;
    }
    table.finish().await?;

    let columns = "movie (id, title, released, mpaa, runtime_min, distributor_id, genre_id, imdb_rating, imdb_votes, \
                   budget_usd, gross_usd)";
    let mut table = Copier::start(transaction, columns, TITLE_REQUIRED).await?;
    for shift in shifts() {
        for movie in &movies {
            let id = movie_id(movie, shift)?;
            let mut fields = vec![id.to_string()];
            for (column, value) in movie.iter().enumerate().skip(TITLE) {
                let number = |numbers: &BTreeMap<&str, u32>| numbers.get(value).map(u32::to_string).unwrap_or_default();
                match column {
                    DISTRIBUTOR => fields.push(number(&distributors)),
                    GENRE => fields.push(number(&genres)),
                    DIRECTOR => {}
                    _ => fields.push(value.to_owned()),
                }
            }
            table.row(&fields).await?;
        }
    }
    table.finish().await?;

    let mut table = Copier::start(transaction, "movie_talent (movie_id, talent_id, role)", "").await?;
    for shift in shifts() {
        for movie in &movies {
            if let Some(director) = movie.get(DIRECTOR).and_then(|name| directors.get(name)) {
                let id = movie_id(movie, shift)?;
                table.row(&[id.to_string(), (director + shift).to_string(), "director".to_owned()]).await?;
            }
        }
    }
    table.finish().await
}

fn movie_id(movie: &csv::StringRecord, shift: u32) -> anyhow::Result<u32> {
    Ok(movie.get(0).context("a movie without an id")?.parse::<u32>()? + shift)
}

async fn count(client: &Client, filled: bool) -> anyhow::Result<LoadReport> {
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM public.movie), (SELECT count(*) FROM public.talent), \
             (SELECT count(*) FROM public.distributor), (SELECT count(*) FROM public.genre)",
            &[],
        )
        .await?;
    let number = |column| row.try_get::<_, i64>(column).map(i64::unsigned_abs);
    Ok(LoadReport { filled, movies: number(0)?, talents: number(1)?, distributors: number(2)?, genres: number(3)? })
}

/// One running `COPY … FROM STDIN`. An empty field is NULL unless the options say otherwise.
struct Copier {
    sink: std::pin::Pin<Box<tokio_postgres::CopyInSink<Bytes>>>,
    rows: csv::Writer<Vec<u8>>,
}

impl Copier {
    /// Rows are sent whenever this many bytes have gathered.
    const CHUNK: usize = 256 * 1024;

    async fn start(transaction: &Transaction<'_>, table_and_columns: &str, options: &str) -> anyhow::Result<Self> {
        let statement = format!("COPY public.{table_and_columns} FROM STDIN (FORMAT csv{options})");
        let sink = Box::pin(transaction.copy_in(&statement).await.with_context(|| statement.clone())?);
        Ok(Self { sink, rows: Self::writer() })
    }

    fn writer() -> csv::Writer<Vec<u8>> {
        // The writer's own buffer comes first; what it has passed on is what `CHUNK` counts.
        csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new())
    }

    async fn row(&mut self, fields: &[String]) -> anyhow::Result<()> {
        self.rows.write_record(fields)?;
        if self.rows.get_ref().len() >= Self::CHUNK {
            self.send().await?;
        }
        Ok(())
    }

    async fn named(&mut self, names: &BTreeMap<&str, u32>, shift: u32) -> anyhow::Result<()> {
        for (name, id) in names {
            self.row(&[(id + shift).to_string(), (*name).to_owned()]).await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        let rows = std::mem::replace(&mut self.rows, Self::writer());
        let bytes = rows.into_inner().map_err(|error| anyhow::anyhow!("{}", error.error()))?;
        self.sink.send(Bytes::from(bytes)).await?;
        Ok(())
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        self.send().await?;
        self.sink.as_mut().finish().await?;
        Ok(())
    }
}
