//! A GraphQL service over a studio in MySQL or MariaDB: movies, who distributes them, and when they are shown.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::connection::{Connection, Edge, EmptyFields, query};
use async_graphql::dataloader::{DataLoader, Loader};
use async_graphql::{
    ComplexObject, Context, EmptyMutation, EmptySubscription, ID, Object, Result, Schema, SimpleObject,
};
use async_graphql_axum::GraphQL;
use mysql_async::Pool;
use mysql_async::prelude::{FromRow, Queryable as _};

/// The service, for as long as it is kept.
pub struct Studio {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Studio {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Studio {
    /// Serves a database.
    pub async fn start(pool: Pool) -> Self {
        let loader = Rows::new(Database(pool), tokio::spawn);
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription).data(loader).finish();
        let app = axum::Router::new().route_service("/graphql", GraphQL::new(schema));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/graphql", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { url, task }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Gathers what many fields ask for, and asks for it with one statement. Nothing is kept.
type Rows = DataLoader<Database>;

struct Database(Pool);

impl Database {
    async fn rows<R: FromRow + Send + 'static>(&self, sql: String) -> Result<Vec<R>, Arc<mysql_async::Error>> {
        let mut session = self.0.get_conn().await?;
        Ok(session.query(sql).await?)
    }
}

/// Keys as a list of SQL.
fn listed(keys: impl Iterator<Item = i32>) -> String {
    let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
    keys.join(",")
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MovieKey(i32);
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct DistributorKey(i32);
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ScreeningKey(i32);
/// The screenings of a movie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ShownOf(i32);
/// The movies of a distributor.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MoviesOf(i32);

impl Loader<MovieKey> for Database {
    type Value = Movie;
    type Error = Arc<mysql_async::Error>;

    async fn load(&self, keys: &[MovieKey]) -> Result<HashMap<MovieKey, Movie>, Self::Error> {
        let sql = format!("{MOVIE} where id in ({})", listed(keys.iter().map(|key| key.0)));
        Ok(self.rows(sql).await?.into_iter().map(movie).map(|movie| (MovieKey(movie.key), movie)).collect())
    }
}

impl Loader<MoviesOf> for Database {
    type Value = Vec<Movie>;
    type Error = Arc<mysql_async::Error>;

    async fn load(&self, keys: &[MoviesOf]) -> Result<HashMap<MoviesOf, Vec<Movie>>, Self::Error> {
        let sql = format!("{MOVIE} where distributor_id in ({}) order by id", listed(keys.iter().map(|key| key.0)));
        let mut all: HashMap<MoviesOf, Vec<Movie>> = HashMap::new();
        for movie in self.rows(sql).await?.into_iter().map(movie) {
            all.entry(MoviesOf(movie.distributor_id.unwrap_or_default())).or_default().push(movie);
        }
        Ok(all)
    }
}

impl Loader<DistributorKey> for Database {
    type Value = Distributor;
    type Error = Arc<mysql_async::Error>;

    async fn load(&self, keys: &[DistributorKey]) -> Result<HashMap<DistributorKey, Distributor>, Self::Error> {
        let sql = format!("select id, name from distributor where id in ({})", listed(keys.iter().map(|key| key.0)));
        Ok(self.rows(sql).await?.into_iter().map(distributor).map(|found| (DistributorKey(found.key), found)).collect())
    }
}

impl Loader<ScreeningKey> for Database {
    type Value = Screening;
    type Error = Arc<mysql_async::Error>;

    async fn load(&self, keys: &[ScreeningKey]) -> Result<HashMap<ScreeningKey, Screening>, Self::Error> {
        let sql = format!("{SCREENING} where id in ({})", listed(keys.iter().map(|key| key.0)));
        let rows: Vec<ScreeningRow> = self.rows(sql).await?;
        Ok(rows.into_iter().map(|row| (ScreeningKey(row.0), screening(row))).collect())
    }
}

impl Loader<ShownOf> for Database {
    type Value = Vec<Screening>;
    type Error = Arc<mysql_async::Error>;

    async fn load(&self, keys: &[ShownOf]) -> Result<HashMap<ShownOf, Vec<Screening>>, Self::Error> {
        let sql = format!("{SCREENING} where movie_id in ({}) order by id", listed(keys.iter().map(|key| key.0)));
        let mut all: HashMap<ShownOf, Vec<Screening>> = HashMap::new();
        for screening in self.rows(sql).await?.into_iter().map(screening) {
            all.entry(ShownOf(screening.movie_id.unwrap_or_default())).or_default().push(screening);
        }
        Ok(all)
    }
}

/// What there is for each of these ids, in their order.
async fn each<K>(
    ctx: &Context<'_>,
    ids: Vec<ID>,
    key: fn(i32) -> K,
) -> Result<Vec<Option<<Database as Loader<K>>::Value>>>
where
    K: Copy + Eq + std::hash::Hash + Send + Sync + 'static,
    Database: Loader<K, Error = Arc<mysql_async::Error>>,
{
    let keys = ids.iter().map(|id| Ok(key(id.parse::<i32>()?))).collect::<Result<Vec<K>>>()?;
    let mut found = ctx.data::<Rows>()?.load_many(keys.iter().copied()).await?;
    Ok(keys.iter().map(|key| found.remove(key)).collect())
}

type MovieRow = (i32, String, i32, Option<i32>);
type ScreeningRow = (i32, String, Option<i32>);

const MOVIE: &str = "select id, title, votes, distributor_id from movie";
const SCREENING: &str = "select id, hall, movie_id from screening";

#[derive(Clone, SimpleObject)]
#[graphql(complex)]
struct Movie {
    id: ID,
    title: String,
    votes: i32,
    #[graphql(skip)]
    key: i32,
    #[graphql(skip)]
    distributor_id: Option<i32>,
}

fn movie((key, title, votes, distributor_id): MovieRow) -> Movie {
    Movie { id: key.into(), title, votes, key, distributor_id }
}

#[ComplexObject]
impl Movie {
    async fn distributor(&self, ctx: &Context<'_>) -> Result<Option<Distributor>> {
        let Some(id) = self.distributor_id else { return Ok(None) };
        Ok(ctx.data::<Rows>()?.load_one(DistributorKey(id)).await?)
    }

    async fn screenings(&self, ctx: &Context<'_>) -> Result<Vec<Screening>> {
        Ok(ctx.data::<Rows>()?.load_one(ShownOf(self.key)).await?.unwrap_or_default())
    }
}

#[derive(Clone, SimpleObject)]
#[graphql(complex)]
struct Distributor {
    id: ID,
    name: String,
    #[graphql(skip)]
    key: i32,
}

fn distributor((key, name): (i32, String)) -> Distributor {
    Distributor { id: key.into(), name, key }
}

#[ComplexObject]
impl Distributor {
    async fn movies(&self, ctx: &Context<'_>) -> Result<Vec<Movie>> {
        Ok(ctx.data::<Rows>()?.load_one(MoviesOf(self.key)).await?.unwrap_or_default())
    }
}

#[derive(Clone, SimpleObject)]
#[graphql(complex)]
struct Screening {
    id: ID,
    hall: String,
    #[graphql(skip)]
    movie_id: Option<i32>,
}

fn screening((key, hall, movie_id): ScreeningRow) -> Screening {
    Screening { id: key.into(), hall, movie_id }
}

#[ComplexObject]
impl Screening {
    async fn movie(&self, ctx: &Context<'_>) -> Result<Option<Movie>> {
        let Some(id) = self.movie_id else { return Ok(None) };
        Ok(ctx.data::<Rows>()?.load_one(MovieKey(id)).await?)
    }
}

struct Query;

#[Object]
impl Query {
    async fn movies(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Movie>>> {
        each(ctx, ids, MovieKey).await
    }

    async fn distributors(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Distributor>>> {
        each(ctx, ids, DistributorKey).await
    }

    async fn screenings(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Screening>>> {
        each(ctx, ids, ScreeningKey).await
    }

    async fn all_movies(
        &self,
        ctx: &Context<'_>,
        first: i32,
        after: Option<String>,
    ) -> Result<Connection<i32, Movie, EmptyFields, EmptyFields>> {
        query(after, None, Some(first), None, |after: Option<i32>, _, first, _| async move {
            let most = first.unwrap_or(10);
            let sql = format!("{MOVIE} where id > {} order by id limit {}", after.unwrap_or(i32::MIN), most + 1);
            let mut found: Vec<MovieRow> = ctx.data::<Rows>()?.loader().rows(sql).await?;
            let mut page = Connection::new(false, found.len() > most);
            found.truncate(most);
            page.edges.extend(found.into_iter().map(|row| Edge::new(row.0, movie(row))));
            Ok::<_, async_graphql::Error>(page)
        })
        .await
    }
}
