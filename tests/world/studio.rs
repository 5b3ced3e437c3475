//! A GraphQL service over a studio in MySQL or MariaDB: movies, who distributes them, and when they are shown.

use async_graphql::connection::{Connection, Edge, EmptyFields, query};
use async_graphql::{
    ComplexObject, Context, EmptyMutation, EmptySubscription, ID, Object, Result, Schema, SimpleObject,
};
use async_graphql_axum::GraphQL;
use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Params, Pool};

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
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription).data(pool).finish();
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

async fn rows<R: FromRow + Send + 'static>(
    ctx: &Context<'_>,
    sql: &str,
    params: impl Into<Params> + Send,
) -> Result<Vec<R>> {
    let mut session = ctx.data::<Pool>()?.get_conn().await?;
    Ok(session.exec(sql, params.into()).await?)
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
        let found: Vec<(i32, String)> = rows(ctx, "select id, name from distributor where id = ?", (id,)).await?;
        Ok(found.into_iter().next().map(distributor))
    }

    async fn screenings(&self, ctx: &Context<'_>) -> Result<Vec<Screening>> {
        let found: Vec<ScreeningRow> =
            rows(ctx, &format!("{SCREENING} where movie_id = ? order by id"), (self.key,)).await?;
        Ok(found.into_iter().map(screening).collect())
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
        let found: Vec<MovieRow> =
            rows(ctx, &format!("{MOVIE} where distributor_id = ? order by id"), (self.key,)).await?;
        Ok(found.into_iter().map(movie).collect())
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
        let found: Vec<MovieRow> = rows(ctx, &format!("{MOVIE} where id = ?"), (id,)).await?;
        Ok(found.into_iter().next().map(movie))
    }
}

struct Query;

#[Object]
impl Query {
    async fn movies(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Movie>>> {
        let mut all = Vec::new();
        for id in ids {
            let found: Vec<MovieRow> = rows(ctx, &format!("{MOVIE} where id = ?"), (id.parse::<i32>()?,)).await?;
            all.push(found.into_iter().next().map(movie));
        }
        Ok(all)
    }

    async fn distributors(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Distributor>>> {
        let mut all = Vec::new();
        for id in ids {
            let sql = "select id, name from distributor where id = ?";
            let found: Vec<(i32, String)> = rows(ctx, sql, (id.parse::<i32>()?,)).await?;
            all.push(found.into_iter().next().map(distributor));
        }
        Ok(all)
    }

    async fn screenings(&self, ctx: &Context<'_>, ids: Vec<ID>) -> Result<Vec<Option<Screening>>> {
        let mut all = Vec::new();
        for id in ids {
            let found: Vec<ScreeningRow> =
                rows(ctx, &format!("{SCREENING} where id = ?"), (id.parse::<i32>()?,)).await?;
            all.push(found.into_iter().next().map(screening));
        }
        Ok(all)
    }

    async fn all_movies(
        &self,
        ctx: &Context<'_>,
        first: i32,
        after: Option<String>,
    ) -> Result<Connection<i32, Movie, EmptyFields, EmptyFields>> {
        query(after, None, Some(first), None, |after: Option<i32>, _, first, _| async move {
            let most = first.unwrap_or(10);
            let sql = format!("{MOVIE} where id > ? order by id limit {}", most + 1);
            let mut found: Vec<MovieRow> = rows(ctx, &sql, (after.unwrap_or(i32::MIN),)).await?;
            let mut page = Connection::new(false, found.len() > most);
            found.truncate(most);
            page.edges.extend(found.into_iter().map(|row| Edge::new(row.0, movie(row))));
            Ok::<_, async_graphql::Error>(page)
        })
        .await
    }
}
