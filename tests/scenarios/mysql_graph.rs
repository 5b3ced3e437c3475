//! Indexes over MySQL and MariaDB: a document is what the graph answers, whatever changes, and whatever becomes of the process.

use std::collections::BTreeMap;

use movie_graph::truth;
use mysql_async::Pool;
use mysql_async::prelude::Queryable as _;
use serde_json::{Value as Json, json};

use crate::client;
use crate::world::studio::Studio;
use crate::world::{Own, Pair, World};

const TABLES: &str = "create table distributor (id int primary key, name varchar(80) not null);
create table movie (id int primary key, title varchar(80) not null, votes int not null, distributor_id int, key (distributor_id));
create table screening (id int primary key, hall varchar(80) not null, movie_id int, key (movie_id))";

const QUERY: &str = "query Movies($ids: [ID!]!) {
  movies(ids: $ids) { id title votes distributor { id name } screenings @nested { id hall } }
}";

const PIPELINE: &str = r#"
sources:
  studio:
    KIND: { url: "URL", tables: [DATABASE.movie, DATABASE.distributor, DATABASE.screening] }
graph:
  endpoint: "${GRAPH_URL}"
  vertices:
    DATABASE.movie: [{ type: Movie, id: "{id}" }]
    DATABASE.distributor: [{ type: Distributor, id: "{id}" }]
    DATABASE.screening: [{ type: Screening, id: "{id}" }]
  edges:
    Movie.distributor: { stored_in: parent }
indexes:
  INDEX:
    query: movies.graphql
    refresh: 100ms
    roots: ROOTS
    build: { deadline: 5s }
"#;

/// Movies at first: more than one page of a listing has.
const MOVIES: u64 = 2_500;

/// Id, title, votes, and the distributor's id and name.
type MovieRow = (i32, String, i32, Option<i32>, Option<String>);

/// The documents, computed by the database.
async fn expected(pool: &Pool) -> BTreeMap<String, Json> {
    let mut sql = pool.get_conn().await.expect("connects");
    let rows: Vec<MovieRow> = sql
        .query("select m.id, title, votes, d.id, name from movie m left join distributor d on d.id = distributor_id")
        .await
        .expect("movies");
    let screenings: Vec<(i32, String, i32)> = sql
        .query("select id, hall, movie_id from screening where movie_id is not null order by id")
        .await
        .expect("screenings");
    let mut shown: BTreeMap<i32, Vec<Json>> = BTreeMap::new();
    for (id, hall, movie) in screenings {
        shown.entry(movie).or_default().push(json!({ "id": id.to_string(), "hall": hall }));
    }
    let document = |(id, title, votes, distributor, name): MovieRow| {
        let shown = shown.remove(&id).unwrap_or_default();
        let distributor = distributor.map(|id| json!({ "id": id.to_string(), "name": name }));
        let id = id.to_string();
        (
            id.clone(),
            json!({ "id": id, "title": title, "votes": votes, "distributor": distributor, "screenings": shown }),
        )
    };
    rows.into_iter().map(document).collect()
}

/// `roots`: where their ids come from.
async fn follows(kind: &str, variable: &str, roots: &str) {
    let Ok(server) = std::env::var(variable) else {
        eprintln!("NOT TESTED: {variable} is not set");
        return;
    };
    let mut world = World::new("mysql_graph", Pair::Embedded, Own::default()).await;
    let database = format!("{kind}_{}", world.name.replace('-', "_"));
    let admin = Pool::new(server.as_str());
    let create = format!("create database {database} character set utf8mb4");
    admin.get_conn().await.expect("connects").query_drop(create).await.expect("a database");
    let pool = Pool::new(format!("{server}/{database}").as_str());
    let execute = async |sql: String| {
        pool.get_conn().await.expect("connects").query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    };
    for table in TABLES.split(';') {
        execute(table.to_owned()).await;
    }
    for id in 1..=5 {
        execute(format!("insert into distributor values ({id}, 'Verleih {id}')")).await;
    }
    let movies: Vec<String> = (1..=MOVIES).map(|id| format!("({id}, 'Höhle {id}', 1, {})", 1 + id % 5)).collect();
    execute(format!("insert into movie values {}", movies.join(","))).await;
    let screenings: Vec<String> = (1..=MOVIES).map(|id| format!("({id}, 'Saal {id}', {id})")).collect();
    execute(format!("insert into screening values {}", screenings.join(","))).await;
    let studio = Studio::start(pool.clone()).await;
    world.environment.push(("GRAPH_URL".to_owned(), studio.url().to_owned()));
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let (head, tail) =
        (text.split_once("\nsources:").expect("sources").0, text.split_once("\nhttp:").expect("a listener").1);
    let index = world.index();
    let parts =
        PIPELINE.replace("KIND", kind).replace("URL}", "\u{0}").replace("URL", &server).replace('\u{0}', "URL}");
    let listed = roots.replace("DATABASE", &database);
    let parts = parts.replace("DATABASE", &database).replace("INDEX", &index).replace("ROOTS", &listed);
    std::fs::write(world.pipeline(), format!("{head}\n{parts}\nhttp:{tail}")).expect("the pipeline");
    std::fs::write(world.folder.path().join("movies.graphql"), QUERY).expect("the query");

    // A comparison costs more than all else that runs here.
    let right = async |address: &str| {
        client::is_quiet(address, &index).await
            && match client::documents(address, &index).await {
                Some(actual) => truth::differences(&expected(&pool).await, &actual).is_empty(),
                None => false,
            }
    };
    world.start();
    // In the midst of the first listing.
    world.until_documents(10).await;
    world.kill_process(0);
    world.start();
    world.until_documents(MOVIES).await;
    world.until("the first build is right", right).await;
    for round in 0..3 {
        let base = round * 20;
        for i in 1..=20 {
            let id = base + i;
            execute(format!("update movie set votes = votes + {i} where id = {id}")).await;
            execute(format!("update movie set distributor_id = {} where id = {}", 1 + i % 5, id + 60)).await;
            execute(format!("update screening set movie_id = {} where id = {}", id + 1, id)).await;
            execute(format!("update screening set movie_id = null where id = {}", id + 100)).await;
            execute(format!("insert into movie values ({}, 'Neu', 0, null)", 10_000 + id)).await;
            execute(format!("insert into screening values ({}, 'Neu', {})", 10_000 + id, 10_000 + id)).await;
            execute(format!("delete from movie where id = {}", id + 130)).await;
            if i == 10 {
                world.kill_process(0);
                world.start();
            }
        }
        execute(format!("update distributor set name = 'Umbenannt {round}' where id = {}", 1 + round)).await;
        world.until("the index is right after a kill", right).await;
    }
    execute("delete from distributor where id = 5".to_owned()).await;
    execute("delete from screening where id > 10000".to_owned()).await;
    world.until("the index is right after deletes", right).await;
    if roots == FIELD {
        definitions_change_rows(&mut world, &execute, &right).await;
    }
    world.stop_process(0).await;
    execute(format!("drop database {database}")).await;
}

/// Definitions change rows, and the log has no events of them.
async fn definitions_change_rows(
    world: &mut World,
    execute: &impl AsyncFn(String),
    right: &impl AsyncFn(&str) -> bool,
) {
    execute("create table renamed like movie".to_owned()).await;
    execute(
        "insert into renamed select id, concat(title, '!'), votes, distributor_id from movie where id <> 7".to_owned(),
    )
    .await;
    execute("rename table movie to movie_old, renamed to movie".to_owned()).await;
    world.until("the index is right when another table has the name", right).await;
    execute("alter table screening partition by hash (id) partitions 4".to_owned()).await;
    world.kill_process(0);
    execute("alter table screening truncate partition p1".to_owned()).await;
    world.start();
    world.until("the index is right when a partition was emptied", right).await;
}

const FIELD: &str = "{ field: allMovies }";
const TABLE: &str = "{ table: DATABASE.movie }";

#[tokio::test(flavor = "multi_thread")]
async fn an_index_follows_mysql() {
    follows("mysql", "TRIBUTARY_TEST_MYSQL", FIELD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_follows_mariadb() {
    follows("mariadb", "TRIBUTARY_TEST_MARIADB", FIELD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_lists_its_roots_from_a_table_of_mysql() {
    follows("mysql", "TRIBUTARY_TEST_MYSQL", TABLE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_lists_its_roots_from_a_table_of_mariadb() {
    follows("mariadb", "TRIBUTARY_TEST_MARIADB", TABLE).await;
}

/// A newcomer's walk over MySQL: what is proposed of tables and their foreign keys runs as it is.
async fn proposed(kind: &str, variable: &str) {
    let Ok(server) = std::env::var(variable) else {
        eprintln!("NOT TESTED: {variable} is not set");
        return;
    };
    let mut world = World::new("mysql_init", Pair::Embedded, Own::default()).await;
    let database = format!("{kind}_{}", world.name.replace('-', "_"));
    let admin = Pool::new(server.as_str());
    let create = format!("create database {database} character set utf8mb4");
    admin.get_conn().await.expect("connects").query_drop(create).await.expect("a database");
    let pool = Pool::new(format!("{server}/{database}").as_str());
    let execute = async |sql: &str| {
        pool.get_conn().await.expect("connects").query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    };
    execute(TABLES).await;
    execute(
        "alter table movie add foreign key (distributor_id) references distributor (id); \
         alter table screening add foreign key (movie_id) references movie (id); \
         insert into distributor values (1, 'Verleih'); insert into movie values (1, 'Höhle', 1, 1), (2, 'Zelle', 1, null); \
         insert into screening values (1, 'Saal', 2)",
    )
    .await;
    let studio = Studio::start(pool.clone()).await;
    let folder = world.folder.path().join("proposed");
    let to = folder.to_str().expect("a path").to_owned();
    let source = format!("{}/{database}", server.replace("mysql://", &format!("{kind}://")));
    let (code, out, err) =
        world.run(&["init", "--graph", studio.url(), "--source", &source, "--root", "movie", "--folder", &to]).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("it passes the check; rows and graph agree on ids"), "{out}{err}");
    let proposed = std::fs::read_to_string(folder.join("pipeline.yaml")).expect("a pipeline");
    assert!(proposed.contains(&format!("    {kind}:\n")) && !proposed.contains(&source), "{proposed}");
    assert!(proposed.contains(&format!("roots: {{ table: {database}.movie }}")), "{proposed}");
    world.environment.push(("DATABASE_URL".to_owned(), source));
    world.adopt_as(&folder, "${DATABASE_URL}");
    // Ids that do not fit are told before anything is captured.
    world.edit_pipeline("type: Movie, id: \"{id}\"", "type: Movie, id: \"m{id}\"");
    world.start();
    let code = world.ended().await;
    assert!(code == 1 && world.log().contains("makes other ids than the graph has"), "{code}: {}", world.log());
    assert!(!world.folder.path().join("data/log").exists(), "a log was made");
    world.edit_pipeline("id: \"m{id}\"", "id: \"{id}\"");
    world.start();
    world.until_documents(2).await;
    execute("update distributor set name = 'Umbenannt'; update screening set hall = 'Foyer'").await;
    let index = world.index();
    world
        .until("both changes are in the documents", async |address| {
            let documents = client::documents(address, &index).await.unwrap_or_default();
            let shown = |id: &str, pointer: &str| documents.get(id).and_then(|found| found.pointer(pointer)).cloned();
            shown("1", "/distributor/name") == Some(json!("Umbenannt"))
                && shown("2", "/screenings/0/hall") == Some(json!("Foyer"))
        })
        .await;
    // A column of a rule is renamed: what is to be done is told in the server's own SQL.
    world.stop_process(0).await;
    execute("alter table distributor rename column id to number").await;
    let (code, out, err) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 3, "{out}{err}");
    let statement = format!("ALTER TABLE `{database}`.`distributor` RENAME COLUMN … TO `id`;");
    assert!(err.contains(&statement), "{err}");
    execute(&format!("drop database {database}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_over_mysql_runs_as_it_is() {
    proposed("mysql", "TRIBUTARY_TEST_MYSQL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_proposed_over_mariadb_runs_as_it_is() {
    proposed("mariadb", "TRIBUTARY_TEST_MARIADB").await;
}
