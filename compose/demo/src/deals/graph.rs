//! The graph of movies, talents, vendors and deals. Lists are in the order of their ids. What a request asks for is gathered, and fetched
//! with one statement for each kind of it.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::{Context, EmptyMutation, EmptySubscription, ID, Object, Result};

use super::Databases;
use super::database::Row;

pub(super) type Schema = async_graphql::Schema<Query, EmptyMutation, EmptySubscription>;

/// The schema over databases.
pub(super) fn schema(databases: Databases) -> Schema {
    let rows = DataLoader::new(Rows(databases), tokio::spawn).max_batch_size(5_000);
    Schema::build(Query, EmptyMutation, EmptySubscription).data(rows).finish()
}

/// What rows are asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum By {
    Movie,
    Talent,
    Deal,
    Vendor,
    TalentsOfMovie,
    MoviesOfTalent,
    DealsOfMovie,
    DealsOfVendor,
}

impl By {
    const ALL: [Self; 8] = [
        Self::Movie,
        Self::Talent,
        Self::Deal,
        Self::Vendor,
        Self::TalentsOfMovie,
        Self::MoviesOfTalent,
        Self::DealsOfMovie,
        Self::DealsOfVendor,
    ];

    /// Whether the rows are contracts, and the statement up to the list of ids: its first column is what they are asked for by.
    fn statement(self) -> (bool, &'static str) {
        match self {
            Self::Movie => (false, "select id, id, title, released, votes from movie where id in"),
            Self::Talent => (false, "select id, id, name from talent where id in"),
            Self::TalentsOfMovie => {
                (false, "select movie_id, id, name from movie_talent join talent on id = talent_id where movie_id in")
            }
            Self::MoviesOfTalent => (
                false,
                "select talent_id, id, title, released, votes from movie_talent join movie on id = movie_id where talent_id in",
            ),
            Self::Deal => (true, "select id, id, amount_usd, movie_id, vendor_id from deal where id in"),
            Self::Vendor => (true, "select id, id, name, country from vendor where id in"),
            Self::DealsOfMovie => {
                (true, "select movie_id, id, amount_usd, movie_id, vendor_id from deal where movie_id in")
            }
            Self::DealsOfVendor => {
                (true, "select vendor_id, id, amount_usd, movie_id, vendor_id from deal where vendor_id in")
            }
        }
    }
}

/// Fetches rows.
struct Rows(Databases);

impl Loader<(By, i32)> for Rows {
    type Value = Vec<Arc<Row>>;
    type Error = Arc<anyhow::Error>;

    async fn load(&self, keys: &[(By, i32)]) -> Result<HashMap<(By, i32), Self::Value>, Self::Error> {
        let mut found: HashMap<(By, i32), Self::Value> = HashMap::new();
        for by in By::ALL {
            let ids: Vec<String> = keys.iter().filter(|key| key.0 == by).map(|key| key.1.to_string()).collect();
            if ids.is_empty() {
                continue;
            }
            let (is_contract, statement) = by.statement();
            let database = if is_contract { &self.0.contracts } else { &self.0.films };
            let rows = database.rows(&format!("{statement} ({}) order by id", ids.join(", "))).await;
            for mut row in rows.map_err(Arc::new)? {
                let key = row.remove(0).and_then(|key| key.parse().ok());
                if let Some(key) = key {
                    found.entry((by, key)).or_default().push(Arc::new(row));
                }
            }
        }
        Ok(found)
    }
}

async fn rows(ctx: &Context<'_>, by: By, key: Option<i32>) -> Result<Vec<Arc<Row>>> {
    let Some(key) = key else { return Ok(Vec::new()) };
    Ok(ctx.data::<DataLoader<Rows>>()?.load_one((by, key)).await?.unwrap_or_default())
}

/// Rows in the order of the ids they were asked for by; an id that is no number is nobody's.
async fn aligned(ctx: &Context<'_>, by: By, ids: &[ID]) -> Result<Vec<Option<Arc<Row>>>> {
    let keys: Vec<Option<(By, i32)>> = ids.iter().map(|id| Some((by, id.parse().ok()?))).collect();
    let found = ctx.data::<DataLoader<Rows>>()?.load_many(keys.iter().flatten().copied()).await?;
    Ok(keys.into_iter().map(|key| found.get(&key?)?.first().cloned()).collect())
}

fn text(row: &Row, at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

fn number(row: &Row, at: usize) -> Option<i32> {
    text(row, at)?.parse().ok()
}

fn id(row: &Row) -> ID {
    text(row, 0).unwrap_or_default().into()
}

pub(super) struct Query;

/// Movies, who made them, and who bought them.
#[Object]
impl Query {
    /// Movies in the order of the ids, null where there is none.
    async fn movies(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Movie>>> {
        Ok(aligned(ctx, By::Movie, &ids).await?.into_iter().map(|row| row.map(Movie)).collect())
    }

    /// Talents in the order of the ids, null where there is none.
    async fn talents(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Talent>>> {
        Ok(aligned(ctx, By::Talent, &ids).await?.into_iter().map(|row| row.map(Talent)).collect())
    }

    /// Deals in the order of the ids, null where there is none.
    async fn deals(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Deal>>> {
        Ok(aligned(ctx, By::Deal, &ids).await?.into_iter().map(|row| row.map(Deal)).collect())
    }

    /// Vendors in the order of the ids, null where there is none.
    async fn vendors(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Vendor>>> {
        Ok(aligned(ctx, By::Vendor, &ids).await?.into_iter().map(|row| row.map(Vendor)).collect())
    }
}

struct Movie(Arc<Row>);

/// A movie.
#[Object]
impl Movie {
    async fn id(&self) -> ID {
        id(&self.0)
    }

    async fn title(&self) -> &str {
        text(&self.0, 1).unwrap_or_default()
    }

    /// The day of its release.
    async fn released(&self) -> Option<&str> {
        text(&self.0, 2)
    }

    async fn votes(&self) -> Option<i32> {
        number(&self.0, 3)
    }

    /// Who made it.
    async fn talents(&self, ctx: &Context<'_>) -> Result<Vec<Talent>> {
        Ok(rows(ctx, By::TalentsOfMovie, number(&self.0, 0)).await?.into_iter().map(Talent).collect())
    }

    /// Who bought it.
    async fn deals(&self, ctx: &Context<'_>) -> Result<Vec<Deal>> {
        Ok(rows(ctx, By::DealsOfMovie, number(&self.0, 0)).await?.into_iter().map(Deal).collect())
    }
}

struct Talent(Arc<Row>);

/// Somebody who makes movies.
#[Object]
impl Talent {
    async fn id(&self) -> ID {
        id(&self.0)
    }

    async fn name(&self) -> &str {
        text(&self.0, 1).unwrap_or_default()
    }

    async fn movies(&self, ctx: &Context<'_>) -> Result<Vec<Movie>> {
        Ok(rows(ctx, By::MoviesOfTalent, number(&self.0, 0)).await?.into_iter().map(Movie).collect())
    }
}

struct Deal(Arc<Row>);

/// What a vendor bought.
#[Object]
impl Deal {
    async fn id(&self) -> ID {
        id(&self.0)
    }

    async fn amount_usd(&self) -> Option<i32> {
        number(&self.0, 1)
    }

    async fn movie(&self, ctx: &Context<'_>) -> Result<Option<Movie>> {
        Ok(rows(ctx, By::Movie, number(&self.0, 2)).await?.into_iter().next().map(Movie))
    }

    async fn vendor(&self, ctx: &Context<'_>) -> Result<Option<Vendor>> {
        Ok(rows(ctx, By::Vendor, number(&self.0, 3)).await?.into_iter().next().map(Vendor))
    }
}

struct Vendor(Arc<Row>);

/// Somebody who buys movies.
#[Object]
impl Vendor {
    async fn id(&self) -> ID {
        id(&self.0)
    }

    async fn name(&self) -> &str {
        text(&self.0, 1).unwrap_or_default()
    }

    async fn country(&self) -> Option<&str> {
        text(&self.0, 2)
    }

    async fn deals(&self, ctx: &Context<'_>) -> Result<Vec<Deal>> {
        Ok(rows(ctx, By::DealsOfVendor, number(&self.0, 0)).await?.into_iter().map(Deal).collect())
    }
}
