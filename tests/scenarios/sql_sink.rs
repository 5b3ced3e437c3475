//! A stream into a table of MySQL, and of MariaDB: it is what the rows say, whatever becomes of process and server on the way.

use std::collections::BTreeMap;

use mysql_async::prelude::Queryable as _;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

use crate::client;
use crate::world::{Own, Pair, World};

const STREAM: &str = r#"
streams:
  copied:
    from: public.movie
    ops: [c, u, d]
    start: first
    steps:
      - filter: .op == "d" || .after.imdb_votes != null
    to:
      - sql: { url: "TABLES", table: copies.movie, key: id, row: '{ "id": .after.id, "title": .after.title, "votes": .after.imdb_votes }', retry: { max_pause: 1s } }
"#;

/// Changes under which the process is killed, and the server is.
async fn killed(product: MySqlProduct) {
    let Some(version) = product.newest() else {
        eprintln!("NOT TESTED: a stream into {product}: {}", product.left_out().unwrap_or_default());
        return;
    };
    let options = MySqlOptions { fsync: false, ..MySqlOptions::of(product, version) };
    let server = MySql::start(options).await.expect("a server starts");
    let pool = mysql_async::Pool::new(server.server_url().as_str());
    let mut tables = pool.get_conn().await.expect("it answers");
    tables.query_drop("create database copies").await.expect("made");
    drop(tables);
    let mut world = World::new("mysql-tables", Pair::Embedded, Own::default()).await;
    // No graph of indexes: streams alone.
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    let streams = STREAM.replace("TABLES", "${TABLES_URL}");
    std::fs::write(world.pipeline(), format!("{head}\n{streams}\nhttp:{tail}")).expect("the pipeline");
    world.environment = vec![("TABLES_URL".to_owned(), server.url("copies"))];
    let (code, said, error) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 0, "{said}{error}");
    world.start();
    world.until_captured().await;
    for i in 0..300_u64 {
        let id = 1 + (i * 17) % 40;
        let sql = match i % 20 {
            3 => format!("INSERT INTO movie (id, title, imdb_votes) VALUES ({}, 'New ü', {i})", 100_000 + i),
            11 if i % 40 == 11 => format!("DELETE FROM movie WHERE id = {}", 100_000 + i - 8),
            _ => format!("UPDATE movie SET title = 'Round {i}', imdb_votes = {i} WHERE id = {id}"),
        };
        world.execute(&sql).await;
        match i {
            80 | 200 => {
                world.kill();
                world.start();
            }
            120 => server.kill().await.expect("killed"),
            160 => server.start_again().await.expect("started"),
            _ => {}
        }
    }
    world.until_captured().await;
    let truth: BTreeMap<i64, (String, i64)> = {
        let changed = "SELECT id::int8, title, imdb_votes::int8 FROM movie WHERE title LIKE 'Round %' OR id > 100000";
        world
            .sql
            .query(changed, &[])
            .await
            .expect("rows")
            .iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2))))
            .collect()
    };
    assert!(truth.len() > 30, "{truth:?}");
    let is_there = async |_: &str| {
        let Ok(mut tables) = pool.get_conn().await else { return false };
        let rows: Result<Vec<(i64, String, i64)>, _> =
            tables.query("select id, title, votes from copies.movie where not _deleted").await;
        let rows = rows.map(|rows| rows.into_iter().map(|(id, title, votes)| (id, (title, votes))).collect());
        rows.is_ok_and(|rows: BTreeMap<i64, (String, i64)>| rows == truth)
    };
    world.until("the table is what the rows say", is_there).await;
    let mut tables = pool.get_conn().await.expect("it answers");
    let deleted: Option<i64> =
        tables.query_first("select count(*) from copies.movie where _deleted").await.expect("a count");
    assert_eq!(deleted, Some(8), "what was deleted is marked");
    drop(tables);
    // Another table would lack the rows of before, whether it is given while the pipeline runs or not.
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    world.edit_pipeline("table: copies.movie", "table: copies.film");
    let (code, said, error) = world.run(&["reload", &pipeline]).await;
    assert!(
        code == 1 && error.contains("is given the table copies.film in place of copies.movie"),
        "{code} {said}{error}"
    );
    world.kill();
    world.start();
    let is_told = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let why = health["parts"]["sink copied/sql"]["why"].as_str().unwrap_or_default().to_owned();
        why.contains("has written the table movie up to offset") && why.contains("give the sink another name")
    };
    world.until("the sink says that it was given another table", is_told).await;
    world.edit_pipeline("table: copies.film", "name: films, table: copies.film");
    let (code, said, error) = world.run(&["reload", &pipeline]).await;
    assert_eq!(code, 0, "{said}{error}");
    let is_there = async |_: &str| {
        let Ok(mut tables) = pool.get_conn().await else { return false };
        let rows: Result<Option<usize>, _> =
            tables.query_first("select count(*) from copies.film where not _deleted").await;
        rows.is_ok_and(|rows| rows == Some(truth.len()))
    };
    world.until("another table has all rows under another name", is_there).await;
    world.stop_process(0).await;
    pool.disconnect().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_mysql_is_what_the_rows_say() {
    killed(MySqlProduct::MySql).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_mariadb_is_what_the_rows_say() {
    killed(MySqlProduct::MariaDb).await;
}
