//! The root fields of the movie graph. A list of ids is answered in the same order, with null where nothing has the
//! id; an id that is no number belongs to nothing.

use super::types::{Distributor, Genre, Movie, Node, Screening, Talent, Venue};
use crate::database::DatabaseError;
use crate::faults::Faults;
use crate::loaders::{DistributorId, GenreId, Loaders, MovieId, ScreeningId, Store, TalentId, VenueId};
use async_graphql::connection::PageInfo;
use async_graphql::dataloader::Loader;
use async_graphql::{Context, ID, Object, Result, SimpleObject};
use futures::future::try_join_all;
use std::hash::Hash;

/// The most movies on one page.
const MAX_PAGE: i32 = 1_000;

pub(crate) struct Query;

/// The number that an id stands for, if it is written as this service writes it.
fn number(id: &str) -> Option<i32> {
    let number: i32 = id.parse().ok()?;
    // "+5" and "05" parse as well, but no entity has such an id.
    (number.to_string() == id).then_some(number)
}

/// Entities in the order of the ids they were asked for by.
async fn aligned<K, E>(ctx: &Context<'_>, ids: &[ID], key: fn(i32) -> K) -> Result<Vec<Option<E>>>
where
    K: Send + Sync + Hash + Eq + Clone + 'static,
    E: Clone,
    Store: Loader<K, Value = E, Error = DatabaseError>,
{
    let keys: Vec<Option<K>> = ids.iter().map(|id| number(id).map(key)).collect();
    let found = ctx.data::<Loaders>()?.load_many(keys.iter().flatten().cloned()).await?;
    Ok(keys.into_iter().map(|key| found.get(&key?).cloned()).collect())
}

/// The entity of a global id.
async fn global(ctx: &Context<'_>, id: &ID) -> Result<Option<Node>> {
    let Some((kind, id)) = id.split_once(':') else { return Ok(None) };
    let Some(id) = number(id) else { return Ok(None) };
    let loaders = ctx.data::<Loaders>()?;
    Ok(match kind {
        "Movie" => {
            let movie = loaders.load_one(MovieId(id)).await?;
            ctx.data::<Faults>()?.count_movies(usize::from(movie.is_some()));
            movie.map(Node::Movie)
        }
        "Talent" => loaders.load_one(TalentId(id)).await?.map(Node::Talent),
        "Distributor" => loaders.load_one(DistributorId(id)).await?.map(Node::Distributor),
        "Genre" => loaders.load_one(GenreId(id)).await?.map(Node::Genre),
        "Screening" if ctx.data::<Faults>()?.hides_screenings() => None,
        "Screening" => loaders.load_one(ScreeningId(id)).await?.map(Node::Screening),
        "Venue" => loaders.load_one(VenueId(id)).await?.map(Node::Venue),
        _ => None,
    })
}

async fn movies_by_id(ctx: &Context<'_>, ids: &[ID]) -> Result<Vec<Option<Movie>>> {
    let faults = ctx.data::<Faults>()?;
    if faults.denies_movies() {
        return Ok(ids.iter().map(|_| None).collect());
    }
    let mut movies = aligned(ctx, ids, MovieId).await?;
    if let Some(most) = faults.most_movies() {
        movies.retain(Option::is_some);
        movies.truncate(most);
    }
    faults.count_movies(movies.iter().flatten().count());
    Ok(movies)
}

/// The movies, who made them, and where they are shown.
#[Object]
impl Query {
    /// A movie, or null if there is none of this id.
    async fn movie(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Movie>> {
        Ok(movies_by_id(ctx, &[id]).await?.pop().flatten())
    }

    /// Movies in the order of the ids, null where there is none.
    async fn movies(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Movie>>> {
        movies_by_id(ctx, &ids).await
    }

    /// Talents in the order of the ids, null where there is none.
    async fn talents(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Talent>>> {
        aligned(ctx, &ids, TalentId).await
    }

    /// Distributors in the order of the ids, null where there is none.
    async fn distributors(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Distributor>>> {
        aligned(ctx, &ids, DistributorId).await
    }

    /// Genres in the order of the ids, null where there is none.
    async fn genres(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Genre>>> {
        aligned(ctx, &ids, GenreId).await
    }

    /// Screenings in the order of the ids, null where there is none.
    async fn screenings(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Screening>>> {
        if ctx.data::<Faults>()?.hides_screenings() {
            return Ok(ids.iter().map(|_| None).collect());
        }
        aligned(ctx, &ids, ScreeningId).await
    }

    /// Venues in the order of the ids, null where there is none.
    async fn venues(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Venue>>> {
        aligned(ctx, &ids, VenueId).await
    }

    /// All movies in the order of their ids, page by page; a page has at most 1,000.
    async fn all_movies(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 100)] first: i32,
        after: Option<String>,
    ) -> Result<MovieConnection> {
        if first < 0 {
            return Err("first must not be negative".into());
        }
        let after = match after.as_deref() {
            Some(cursor) => number(cursor).ok_or("after is no cursor of this list")?,
            None => i32::MIN,
        };
        let first = first.min(MAX_PAGE);
        let store = ctx.data::<Loaders>()?.loader();
        // One more than asked for tells whether there is a next page.
        let mut nodes = store.movies_after(after, i64::from(first) + 1).await?;
        let size = usize::try_from(first)?;
        let has_next_page = nodes.len() > size;
        nodes.truncate(size);
        let cursor = |movie: &Movie| movie.0.id.to_string();
        let page_info = PageInfo {
            has_previous_page: false,
            has_next_page,
            start_cursor: nodes.first().map(cursor),
            end_cursor: nodes.last().map(cursor),
        };
        let edges = nodes.iter().map(|movie| MovieEdge { cursor: cursor(movie), node: movie.clone() }).collect();
        Ok(MovieConnection { edges, nodes, page_info })
    }

    /// The entity of a global id such as `Movie:5`, or null if there is none.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        global(ctx, &id).await
    }

    /// Entities in the order of their global ids, null where there is none.
    async fn nodes(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Node>>> {
        try_join_all(ids.iter().map(|id| global(ctx, id))).await
    }
}

/// A page of movies.
#[derive(SimpleObject)]
struct MovieConnection {
    /// The movies with their cursors.
    edges: Vec<MovieEdge>,
    /// The movies alone.
    nodes: Vec<Movie>,
    /// Where the page lies in the list.
    page_info: PageInfo,
}

/// A movie on a page.
#[derive(SimpleObject)]
struct MovieEdge {
    /// What `after` must be to continue behind this movie.
    cursor: String,
    /// The movie.
    node: Movie,
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn only_ids_as_they_are_written_are_numbers() {
        assert_eq!(number("5"), Some(5));
        assert_eq!(number("-5"), Some(-5));
        for other in ["", "+5", "05", "-0", "5 ", "five", "99999999999", "5.0"] {
            assert_eq!(number(other), None, "{other:?}");
        }
    }
}
