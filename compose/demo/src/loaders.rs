//! The data loaders of one request: each gathers the keys that its fields ask for and fetches them with one statement.
//!
//! Two shapes cover the graph: an entity by its own id, and the entities of a parent, in the order of their ids. Both
//! are declared here, each with its key type; nothing is cached, neither across requests nor within one.

use crate::database::{Database, DatabaseError};
use crate::graph::types::{Distributor, Genre, Movie, MovieRow, Screening, Talent, Venue};
use async_graphql::dataloader::{DataLoader, Loader};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use tokio_postgres::Row;

// The columns of an entity, in the order in which `Entity::read` takes them.
macro_rules! movie {
    () => {
        "m.id, m.title, to_char(m.released, 'YYYY-MM-DD'), m.mpaa, m.runtime_min, m.distributor_id, m.genre_id, \
         m.imdb_rating::float8, m.imdb_votes, m.budget_usd, m.gross_usd"
    };
}
macro_rules! screening {
    () => {
        "s.id, s.movie_id, s.venue_id, to_char(s.starts_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    };
}

/// What a request's fields are loaded with.
pub(crate) type Loaders = DataLoader<Store>;

/// Opens the loaders of one request.
pub(crate) fn loaders(database: Database) -> Loaders {
    DataLoader::new(Store(database), tokio::spawn).max_batch_size(10_000)
}

/// Reads entities from the database.
pub(crate) struct Store(Database);

impl Store {
    /// Up to `limit` movies whose ids are above `after`, in the order of their ids.
    pub(crate) async fn movies_after(&self, after: i32, limit: i64) -> Result<Vec<Movie>, DatabaseError> {
        const SQL: &str = concat!("SELECT ", movie!(), " FROM public.movie m WHERE m.id > $1 ORDER BY m.id LIMIT $2");
        let rows = self.0.query(SQL, &[&after, &limit]).await?;
        rows.iter().map(|row| Ok(Movie::read(row, 0)?)).collect()
    }
}

/// An entity whose columns begin somewhere in a row.
trait Entity: Sized + Clone + Send + Sync + 'static {
    fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error>;
}

impl Entity for Movie {
    fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
        Ok(Self(Arc::new(MovieRow {
            id: row.try_get(first)?,
            title: row.try_get(first + 1)?,
            released: row.try_get(first + 2)?,
            mpaa: row.try_get(first + 3)?,
            runtime_min: row.try_get(first + 4)?,
            distributor_id: row.try_get(first + 5)?,
            genre_id: row.try_get(first + 6)?,
            imdb_rating: row.try_get(first + 7)?,
            imdb_votes: row.try_get(first + 8)?,
            budget_usd: row.try_get(first + 9)?,
            gross_usd: row.try_get(first + 10)?,
        })))
    }
}

macro_rules! named {
    ($($entity:ident)*) => {$(
        impl Entity for $entity {
            fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
                Ok(Self { id: row.try_get(first)?, name: row.try_get::<_, &str>(first + 1)?.into() })
            }
        }
    )*};
}
named!(Distributor Genre Talent);

impl Entity for Venue {
    fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(first)?,
            name: row.try_get::<_, &str>(first + 1)?.into(),
            city: row.try_get::<_, Option<&str>>(first + 2)?.map(Into::into),
        })
    }
}

impl Entity for Screening {
    fn read(row: &Row, first: usize) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            id: row.try_get(first)?,
            movie_id: row.try_get(first + 1)?,
            venue_id: row.try_get(first + 2)?,
            starts_at: row.try_get::<_, Option<&str>>(first + 3)?.map(Into::into),
        })
    }
}

/// Declares an entity's own id as a loader's key.
macro_rules! one {
    ($($(#[$doc:meta])* $key:ident: $entity:ty = $($sql:expr),+;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) struct $key(pub(crate) i32);

        impl Loader<$key> for Store {
            type Value = $entity;
            type Error = DatabaseError;

            async fn load(&self, keys: &[$key]) -> Result<HashMap<$key, Self::Value>, Self::Error> {
                let ids: Vec<i32> = keys.iter().map(|key| key.0).collect();
                let rows = self.0.query(concat!("SELECT ", $($sql),+, ".id = ANY($1)"), &[&ids]).await?;
                rows.iter().map(|row| Ok(($key(row.try_get(0)?), Entity::read(row, 0)?))).collect()
            }
        }
    )*};
}

one! {
    /// A movie's id.
    MovieId: Movie = movie!(), " FROM public.movie m WHERE m";
    /// A talent's id.
    TalentId: Talent = "t.id, t.name FROM public.talent t WHERE t";
    /// A distributor's id.
    DistributorId: Distributor = "d.id, d.name FROM public.distributor d WHERE d";
    /// A genre's id.
    GenreId: Genre = "g.id, g.name FROM public.genre g WHERE g";
    /// A screening's id.
    ScreeningId: Screening = screening!(), " FROM public.screening s WHERE s";
    /// A venue's id.
    VenueId: Venue = "v.id, v.name, v.city FROM public.venue v WHERE v";
}

/// Declares a parent's id as a loader's key; a row is the parent's id and one of its entities.
macro_rules! many {
    ($($(#[$doc:meta])* $key:ident: $entity:ty = $($sql:expr),+;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) struct $key(pub(crate) i32);

        impl Loader<$key> for Store {
            type Value = Vec<$entity>;
            type Error = DatabaseError;

            async fn load(&self, keys: &[$key]) -> Result<HashMap<$key, Self::Value>, Self::Error> {
                let ids: Vec<i32> = keys.iter().map(|key| key.0).collect();
                let rows = self.0.query(concat!("SELECT ", $($sql),+), &[&ids]).await?;
                let mut children: HashMap<$key, Self::Value> = HashMap::new();
                for row in &rows {
                    children.entry($key(row.try_get(0)?)).or_default().push(Entity::read(row, 1)?);
                }
                Ok(children)
            }
        }
    )*};
}

many! {
    /// The talents of a movie.
    TalentsOfMovie: Talent = "x.movie_id, t.id, t.name FROM public.movie_talent x JOIN public.talent t ON t.id = x.talent_id \
        WHERE x.movie_id = ANY($1) ORDER BY t.id";
    /// The screenings of a movie.
    ScreeningsOfMovie: Screening =
        "s.movie_id, ", screening!(), " FROM public.screening s WHERE s.movie_id = ANY($1) ORDER BY s.id";
    /// The screenings at a venue.
    ScreeningsOfVenue: Screening =
        "s.venue_id, ", screening!(), " FROM public.screening s WHERE s.venue_id = ANY($1) ORDER BY s.id";
    /// The movies of a talent.
    MoviesOfTalent: Movie = "x.talent_id, ", movie!(), " FROM public.movie_talent x JOIN public.movie m ON m.id = x.movie_id \
        WHERE x.talent_id = ANY($1) ORDER BY m.id";
    /// The movies of a distributor.
    MoviesOfDistributor: Movie =
        "m.distributor_id, ", movie!(), " FROM public.movie m WHERE m.distributor_id = ANY($1) ORDER BY m.id";
    /// The movies of a genre.
    MoviesOfGenre: Movie = "m.genre_id, ", movie!(), " FROM public.movie m WHERE m.genre_id = ANY($1) ORDER BY m.id";
}
