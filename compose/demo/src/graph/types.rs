//! The entities of the movie graph and the edges between them. Lists are in the order of their ids.

#![allow(clippy::unused_async, reason = "the Object macro takes resolvers that are async")]

use super::scalars::{Date, DateTime, Long, Rating};
use crate::database::DatabaseError;
use crate::faults::Faults;
use crate::loaders::{
    DistributorId, GenreId, Loaders, MovieId, MoviesOfDistributor, MoviesOfGenre, MoviesOfTalent, ScreeningsOfMovie,
    ScreeningsOfVenue, Store, TalentsOfMovie, VenueId,
};
use crate::poison::MARK;
use async_graphql::dataloader::Loader;
use async_graphql::{Context, ErrorExtensions, ID, Interface, Object, Result};
use std::hash::Hash;
use std::sync::Arc;

/// The names that the served schema gives to its fields; part of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `Movie.title`.
    Usual,
    /// `Movie.name` instead.
    Renamed,
}

fn usual(ctx: &Context<'_>) -> bool {
    ctx.data_opt() != Some(&Naming::Renamed)
}

fn renamed(ctx: &Context<'_>) -> bool {
    !usual(ctx)
}

/// An entity by its type and id: the global id of movie 5 is `Movie:5`.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "The id among the entities of the same type."))]
pub(crate) enum Node {
    Movie(Movie),
    Talent(Talent),
    Distributor(Distributor),
    Genre(Genre),
    Screening(Screening),
    Venue(Venue),
}

/// Follows an edge to at most one entity.
async fn one<K>(ctx: &Context<'_>, key: Option<K>) -> Result<Option<<Store as Loader<K>>::Value>>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    Store: Loader<K, Error = DatabaseError>,
{
    match key {
        Some(key) => Ok(ctx.data::<Loaders>()?.load_one(key).await?),
        None => Ok(None),
    }
}

/// Follows an edge to any number of entities.
async fn many<K, E>(ctx: &Context<'_>, key: K) -> Result<Vec<E>>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    Store: Loader<K, Value = Vec<E>, Error = DatabaseError>,
{
    Ok(ctx.data::<Loaders>()?.load_one(key).await?.unwrap_or_default())
}

/// A row of `movie`.
pub(crate) struct MovieRow {
    pub(crate) id: i32,
    pub(crate) title: String,
    pub(crate) released: Option<String>,
    pub(crate) mpaa: Option<String>,
    pub(crate) runtime_min: Option<i32>,
    pub(crate) distributor_id: Option<i32>,
    pub(crate) genre_id: Option<i32>,
    pub(crate) imdb_rating: Option<f64>,
    pub(crate) imdb_votes: Option<i32>,
    pub(crate) budget_usd: Option<i64>,
    pub(crate) gross_usd: Option<i64>,
}

/// A movie.
#[derive(Clone)]
pub(crate) struct Movie(pub(crate) Arc<MovieRow>);

impl Movie {
    fn named(&self, ctx: &Context<'_>) -> Result<&str> {
        let faults = ctx.data::<Faults>()?;
        if faults.fails(self.0.id) {
            return Err(format!("the title of movie {} could not be resolved", self.0.id).into());
        }
        if faults.forbids(self.0.id) {
            let error = async_graphql::Error::new("the title may not be seen");
            return Err(error.extend_with(|_, extensions| extensions.set("code", "FORBIDDEN")));
        }
        Ok(if faults.poisons(self.0.id) { MARK } else { &self.0.title })
    }
}

#[Object]
impl Movie {
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The title under which it was released.
    #[graphql(visible = "usual")]
    async fn title(&self, ctx: &Context<'_>) -> Result<&str> {
        self.named(ctx)
    }

    /// The title under which it was released.
    #[graphql(visible = "renamed")]
    async fn name(&self, ctx: &Context<'_>) -> Result<&str> {
        self.named(ctx)
    }

    /// The day of its release.
    async fn released(&self) -> Option<Date> {
        self.0.released.clone().map(Date)
    }

    /// The rating of the Motion Picture Association.
    async fn mpaa(&self) -> Result<Option<Rating>> {
        let Some(text) = &self.0.mpaa else { return Ok(None) };
        Rating::parse(text).map(Some).ok_or_else(|| format!("no rating is called {text:?}").into())
    }

    /// The running time in minutes.
    async fn runtime_min(&self) -> Option<i32> {
        self.0.runtime_min
    }

    /// The mean of the votes of IMDb's users, from 1 to 10.
    async fn imdb_rating(&self) -> Option<f64> {
        self.0.imdb_rating
    }

    /// The number of votes.
    async fn imdb_votes(&self) -> Option<i32> {
        self.0.imdb_votes
    }

    /// What it cost, in US dollars.
    async fn budget_usd(&self) -> Option<Long> {
        self.0.budget_usd.map(Long)
    }

    /// What it earned, in US dollars.
    async fn gross_usd(&self) -> Option<Long> {
        self.0.gross_usd.map(Long)
    }

    /// Who distributes it.
    async fn distributor(&self, ctx: &Context<'_>) -> Result<Option<Distributor>> {
        one(ctx, self.0.distributor_id.map(DistributorId)).await
    }

    /// Its genre.
    async fn genre(&self, ctx: &Context<'_>) -> Result<Option<Genre>> {
        one(ctx, self.0.genre_id.map(GenreId)).await
    }

    /// Who made it.
    async fn talents(&self, ctx: &Context<'_>) -> Result<Vec<Talent>> {
        many(ctx, TalentsOfMovie(self.0.id)).await
    }

    /// When and where it is shown.
    async fn screenings(&self, ctx: &Context<'_>) -> Result<Vec<Screening>> {
        many(ctx, ScreeningsOfMovie(self.0.id)).await
    }
}

/// Declares an entity that has a name and movies.
macro_rules! named {
    ($($(#[doc = $doc:literal])* $entity:ident, $movies:ident;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone)]
        pub(crate) struct $entity {
            pub(crate) id: i32,
            pub(crate) name: Arc<str>,
        }

        $(#[doc = $doc])*
        #[Object]
        impl $entity {
            async fn id(&self) -> ID {
                self.id.into()
            }

            async fn name(&self) -> &str {
                &self.name
            }

            async fn movies(&self, ctx: &Context<'_>) -> Result<Vec<Movie>> {
                many(ctx, $movies(self.id)).await
            }
        }
    )*};
}

named! {
    /// Somebody who makes movies.
    Talent, MoviesOfTalent;
    /// A company that distributes movies.
    Distributor, MoviesOfDistributor;
    /// A kind of movies.
    Genre, MoviesOfGenre;
}

/// A showing of a movie at a venue.
#[derive(Clone)]
pub(crate) struct Screening {
    pub(crate) id: i32,
    pub(crate) movie_id: Option<i32>,
    pub(crate) venue_id: Option<i32>,
    pub(crate) starts_at: Option<Arc<str>>,
}

#[Object]
impl Screening {
    async fn id(&self) -> ID {
        self.id.into()
    }

    /// When it begins.
    async fn starts_at(&self) -> Option<DateTime> {
        self.starts_at.as_deref().map(|text| DateTime(text.to_owned()))
    }

    /// What is shown.
    async fn movie(&self, ctx: &Context<'_>) -> Result<Option<Movie>> {
        one(ctx, self.movie_id.map(MovieId)).await
    }

    /// Where it is shown.
    async fn venue(&self, ctx: &Context<'_>) -> Result<Option<Venue>> {
        one(ctx, self.venue_id.map(VenueId)).await
    }
}

/// A place where movies are shown.
#[derive(Clone)]
pub(crate) struct Venue {
    pub(crate) id: i32,
    pub(crate) name: Arc<str>,
    pub(crate) city: Option<Arc<str>>,
}

#[Object]
impl Venue {
    async fn id(&self) -> ID {
        self.id.into()
    }

    async fn name(&self) -> &str {
        &self.name
    }

    async fn city(&self) -> Option<&str> {
        self.city.as_deref()
    }

    /// What is shown there.
    async fn screenings(&self, ctx: &Context<'_>) -> Result<Vec<Screening>> {
        many(ctx, ScreeningsOfVenue(self.id)).await
    }
}
