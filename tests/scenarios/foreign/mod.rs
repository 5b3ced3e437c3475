//! In front of GraphQL servers that others wrote: PostGraphile 4 and 5, Platformatic and Apollo Federation, each as it comes.
//!
//! The folders beside this file hold what a newcomer writes for each of them, a pipeline and a query, and the documents that
//! must come out, by SQL. The tables are the same for all: keys of every kind, join tables, and lists of which a document
//! shows the first three.

use std::io::Write as _;
use std::path::PathBuf;

use tributary_stack::GraphqlProduct;

use crate::client;
use crate::world::{Pair, World};

const TABLES: &str = include_str!("tables.sql");

/// The rows that `tables.sql` gives the table of the roots.
const MOVIES: u64 = 253;

/// A movie below 2^53 and one above, as JavaScript tells them apart no more.
const BELOW: i64 = 9_007_199_254_740_950;
const ABOVE: i64 = 9_007_199_254_740_993;

/// Every kind of change, one after the other; after each the index equals the truth.
fn changes() -> Vec<(&'static str, String)> {
    let row = |n: u32| format!("md5('talent {n}')::uuid");
    vec![
        (
            "roots come, change and go",
            format!(
                "INSERT INTO movie VALUES (2, 'Second', 2000, 8.1, 4), (9007199254740994999, 'Vast', 2001, NULL, NULL);
                 UPDATE movie SET title = 'Renamed', score = 9.9 WHERE id IN (1, -5, {BELOW}, {ABOVE});
                 DELETE FROM movie WHERE id IN ({BELOW} + 1, {ABOVE} + 1, -9007199254740993)"
            ),
        ),
        (
            "a root is deleted and is back at once",
            format!(
                "BEGIN; DELETE FROM movie WHERE id = {ABOVE} + 2; INSERT INTO movie VALUES ({ABOVE} + 2, 'Back', 1, 1, 1); COMMIT;
                 DELETE FROM movie WHERE id = {BELOW} + 2; INSERT INTO movie VALUES ({BELOW} + 2, 'Back', 1, 1, 1)"
            ),
        ),
        (
            "leaves are renamed",
            format!(
                "UPDATE distributor SET name = 'Renamed' WHERE id IN (2, 3);
                 UPDATE genre SET label = label || ' (renamed)' WHERE code IN ('g1', 'Sci-Fi / Fantasy', 'ünï');
                 UPDATE talent SET name = 'Renamed', born = NULL WHERE id = {};
                 UPDATE award SET title = 'Renamed' WHERE id IN (41, 1002)",
                row(8)
            ),
        ),
        (
            "edges to one are moved",
            format!(
                "UPDATE movie SET distributor_id = 7 WHERE id IN (1, {ABOVE});
                 UPDATE movie SET distributor_id = NULL WHERE id = {BELOW};
                 UPDATE award SET talent_id = {} WHERE id IN (40, 1001); UPDATE award SET talent_id = NULL WHERE id = 41",
                row(9)
            ),
        ),
        (
            "a new target of an edge is renamed",
            "INSERT INTO distributor VALUES (21, 'New'); UPDATE movie SET distributor_id = 21 WHERE id = 1;
             UPDATE distributor SET name = 'New and renamed' WHERE id = 21"
                .to_owned(),
        ),
        (
            "pairs come, move and go",
            format!(
                "INSERT INTO movie_talent VALUES (1, {}, 'cast'), (2, {}, 'cast'), (-5, {}, 'director');
                 UPDATE movie_talent SET role = 'lead' WHERE movie_id = {BELOW};
                 UPDATE movie_talent SET movie_id = {ABOVE} WHERE movie_id = 2;
                 UPDATE movie_talent SET talent_id = {} WHERE movie_id = -5;
                 DELETE FROM movie_talent WHERE movie_id = {BELOW} + 4;
                 INSERT INTO movie_genre VALUES (-5, 'g1'), (2, 'ünï');
                 UPDATE movie_genre SET genre_code = 'g2' WHERE movie_id = -5;
                 UPDATE movie_genre SET movie_id = -5 WHERE movie_id = 2;
                 DELETE FROM movie_genre WHERE genre_code = 'g3'",
                row(1),
                row(2),
                row(3),
                row(4)
            ),
        ),
        (
            "children with a key of their own come, move and go",
            format!(
                "INSERT INTO award VALUES (2001, 'New', 1, {}), (2002, 'New', {ABOVE}, NULL);
                 UPDATE award SET movie_id = {ABOVE} WHERE id = 1003; UPDATE award SET movie_id = -5 WHERE id = 2002;
                 DELETE FROM award WHERE id IN (1004, 43)",
                row(5)
            ),
        ),
        // Each at movies of their own: what was changed a moment ago is built once more anyway.
        (
            "of a list, members that the documents do not show go",
            "DELETE FROM screening WHERE id IN (205, 9007199254740990 + 9, 9007199254740990 + 12)".to_owned(),
        ),
        (
            "of a list, the members after the third move up",
            "DELETE FROM screening WHERE id IN (270, 271, 9007199254740990 + 1, 9007199254740990 + 2)".to_owned(),
        ),
        (
            "of a list, members come before and behind the third",
            format!(
                "INSERT INTO screening VALUES (1, {BELOW} - 16, '2025-12-31 10:00Z', 'Early'), (2, {BELOW} + 5, '2026-03-31 10:00Z', 'Late')"
            ),
        ),
        (
            "of a list, a member that is not shown comes to the front",
            "UPDATE screening SET starts_at = '2025-12-31 10:00Z' WHERE id = 415".to_owned(),
        ),
        (
            "of a list, a shown member goes to the back, and another that is not shown has another hall",
            "UPDATE screening SET starts_at = '2026-12-31 10:00Z' WHERE id = 550;
             UPDATE screening SET hall = 'Unseen' WHERE id = 625"
                .to_owned(),
        ),
        (
            "of a list, members that are not shown move to another parent, and are shown there or not",
            format!(
                "UPDATE screening SET movie_id = {BELOW} + 19, starts_at = '2025-01-01Z' WHERE id = 485;
                 UPDATE screening SET movie_id = {BELOW} + 26 WHERE id = 835"
            ),
        ),
        (
            "of a list, shown members move to another parent",
            format!("UPDATE screening SET movie_id = {BELOW} + 33 WHERE id IN (900, 901)"),
        ),
        (
            "keys change",
            format!(
                "UPDATE movie SET id = 3 WHERE id = 1; UPDATE movie SET id = 9007199254741999 WHERE id = {ABOVE};
                 UPDATE distributor SET id = 33 WHERE id = 3; UPDATE genre SET code = 'g one' WHERE code = 'g1';
                 UPDATE talent SET id = md5('another')::uuid WHERE id = {}; UPDATE award SET id = 3000 WHERE id = 1005;
                 UPDATE screening SET id = 3 WHERE id = 2",
                row(1)
            ),
        ),
        ("leaves are deleted", format!("DELETE FROM talent WHERE id = {}; DELETE FROM genre WHERE code = 'g4'", row(20))),
        ("a table is emptied", "TRUNCATE award".to_owned()),
    ]
}

/// When the index is compared with the truth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// After each kind of change: each alone must do what it has to.
    StepByStep,
    /// After all of them: they meet each other on their way.
    AtOnce,
}

async fn make_changes(world: &mut World, pace: Pace) {
    for (what, sql) in changes() {
        // Each is a transaction of its own, unless it says otherwise.
        for statement in sql.split(";\n") {
            world.execute(statement).await;
        }
        if pace == Pace::StepByStep {
            world.assert_converged_after(what).await;
        }
    }
    world.assert_converged().await;
}

/// Changes of every table, some of them while nobody is there: the process is killed in between without warning, and so is the
/// GraphQL server.
async fn killed_in_a_burst(world: &mut World) {
    for round in 0..3 {
        for i in 0..120 {
            let server = world.graphql.as_ref().expect("a server");
            match (round, i) {
                (1, 30) => server.kill().await.expect("it is killed"),
                (1, 90) => server.start_again().await.expect("it starts again"),
                _ => {}
            }
            let movie = BELOW - 49 + (round * 71 + i * 17) % 240;
            world
                .execute(&format!(
                    "UPDATE movie SET title = 'Round {round}.{i}' WHERE id = {movie};
                     INSERT INTO screening SELECT {round} * 1000 + {i} + 100000, id, timestamptz '2025-06-01Z' + {i} * interval '1 hour', 'Burst'
                         FROM movie WHERE id = {movie};
                     UPDATE screening SET starts_at = starts_at - interval '1 year' WHERE id = 100000 + {i} * 3"
                ))
                .await;
            if i % 20 == 0 {
                world
                    .execute(&format!(
                        "UPDATE distributor SET name = 'Round {round}.{i}' WHERE id = {};
                         UPDATE talent SET name = 'Round {round}.{i}' WHERE id = md5('talent {}')::uuid;
                         DELETE FROM movie WHERE id = {movie} + 3; DELETE FROM screening WHERE id % 60 = {i} % 60 + 1",
                        4 + i / 20,
                        30 + i
                    ))
                    .await;
            }
        }
        world.kill();
        world.execute(&format!("UPDATE genre SET label = 'Round {round}' WHERE code = 'g{}'", 5 + round)).await;
        world.execute(&format!("DELETE FROM screening WHERE movie_id = {BELOW} + {round}")).await;
        world.start();
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/foreign")
}

/// Whether a product cannot be had here, which is said.
fn is_left_out(product: GraphqlProduct) -> bool {
    let Some(cause) = GraphqlProduct::left_out() else { return false };
    // The print macros are captured by the harness.
    writeln!(std::io::stderr(), "NOT TESTED: a pipeline in front of {product}: {cause}").expect("standard error");
    true
}

async fn succeeds(world: &World, arguments: &[&str]) -> String {
    let (code, out, err) = world.run(arguments).await;
    assert_eq!(code, 0, "tributary {}: {out}{err}", arguments.join(" "));
    out
}

/// Fields of levels that were flattened are found under the names that documents show.
async fn flattened_fields_are_searched(world: &World) {
    let query = std::fs::read_to_string(world.folder.path().join("movies.graphql")).expect("the query");
    let (search, truth) = match query.contains("cast") {
        true => ("cast.role:director", "SELECT count(DISTINCT movie_id) FROM movie_talent WHERE role = 'director'"),
        false => ("awards.id:55", "SELECT count(DISTINCT movie_id) FROM award WHERE id = 55"),
    };
    let must: i64 = world.sql.query_one(truth, &[]).await.expect("a count").get(0);
    let address = world.address().expect("it runs");
    let found = client::get(&address, &format!("/indexes/{}/search?q={search}&size=1", world.index())).await;
    assert_eq!(found.as_ref().and_then(|found| found["total"].as_i64()), Some(must), "{search}: {found:?}");
}

/// The whole walk: the first build, every kind of change, and kills.
async fn walk(product: GraphqlProduct, pair: Pair, pace: Pace, definition: &str) {
    if is_left_out(product) {
        return;
    }
    let mut world = World::behind(product, definition, TABLES).await;
    world.define(pair, &folder().join(definition));
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    succeeds(&world, &["check", &pipeline]).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    flattened_fields_are_searched(&world).await;
    make_changes(&mut world, pace).await;
    killed_in_a_burst(&mut world).await;
    world.assert_converged_after("kills in a burst").await;
    assert_eq!(succeeds(&world, &["dlq", "list", &pipeline]).await.trim(), "no dead letters");
}

/// The pipeline that is proposed is right as it is: it passes the check, and its index follows.
async fn proposed(product: GraphqlProduct, name: &str) {
    if is_left_out(product) {
        return;
    }
    // The log has of old rows what it has unless somebody asked for more.
    let tables: Vec<&str> = TABLES.lines().filter(|line| !line.ends_with("REPLICA IDENTITY FULL;")).collect();
    assert_eq!(tables.len() + 2, TABLES.lines().count(), "two tables of the other walks keep their old rows");
    let mut world = World::behind(product, &format!("init_{name}"), &tables.join("\n")).await;
    let proposal = world.folder.path().join("proposal");
    let place = proposal.to_str().expect("a path").to_owned();
    let (graph, source) = (world.graph_url(), world.database_url());
    let arguments = ["init", "--graph", &graph, "--source", &source, "--root", "Movie", "--folder", &place];
    succeeds(&world, &arguments).await;
    world.adopt(&proposal);
    world.expect(&folder().join("proposed").join(name).with_extension("sql"));
    // It proposes no order, and the database changes its own with every update.
    world.unordered = product == GraphqlProduct::Platformatic;

    succeeds(&world, &["check", world.pipeline().to_str().expect("a path")]).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    make_changes(&mut world, Pace::AtOnce).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgraphile_4_as_proposed() {
    proposed(GraphqlProduct::Postgraphile4, "postgraphile_4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgraphile_5_as_proposed() {
    proposed(GraphqlProduct::Postgraphile5, "postgraphile_5").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platformatic_as_proposed() {
    proposed(GraphqlProduct::Platformatic, "platformatic").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apollo_as_proposed() {
    proposed(GraphqlProduct::Apollo, "apollo").await;
}

/// Keys of types that have several texts: what the rules say is what the graph writes, in the first build and in every change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_keys() {
    if is_left_out(GraphqlProduct::Postgraphile4) {
        return;
    }
    let tables = std::fs::read_to_string(folder().join("odd_keys/tables.sql")).expect("the tables");
    let mut world = World::behind(GraphqlProduct::Postgraphile4, "odd_keys", &tables).await;
    world.define(Pair::Embedded, &folder().join("odd_keys"));
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    // What is not so is told, with what would be.
    for (right, wrong, words) in [
        (
            "Day, id: \"{date(day)}\" }]\n    public.country",
            "Day, id: \"{day}\" }]\n    public.country",
            "write \"{date(day)}\"",
        ),
        ("id: \"{code}\"", "id: \"{trim(code)}\"", "{code}"),
        ("decimals: string", "decimals: precise", "set `decimals: string` for the source"),
    ] {
        world.edit_pipeline(right, wrong);
        let (code, _, err) = world.run(&["check", &pipeline]).await;
        assert!(code == 3 && err.contains(words), "{code}: {err}");
        world.edit_pipeline(wrong, right);
    }
    succeeds(&world, &["check", &pipeline]).await;
    world.start();
    world.until_documents(82).await;
    world.assert_converged().await;
    for statement in [
        "INSERT INTO day VALUES ('2030-01-01', 'New'); INSERT INTO screening VALUES (1000, '2030-01-01', 'DE', '10.9.9.9')",
        "UPDATE country SET name = name || ' (renamed)'",
        "UPDATE screening SET country = 'DE', number = number + 2000.25 WHERE number < 10",
        "UPDATE screening SET day = '1969-12-31' WHERE day = '2024-02-29'",
        "UPDATE day SET day = '0001-01-01 BC' WHERE day = '2024-01-05'",
        "UPDATE country SET code = 'F' WHERE code = 'FR'",
        "DELETE FROM screening WHERE number > 30; DELETE FROM day WHERE day IN ('0044-03-15 BC', '2024-01-07')",
    ] {
        world.execute(statement).await;
        world.assert_converged_after(statement).await;
    }
    assert_eq!(succeeds(&world, &["dlq", "list", &pipeline]).await.trim(), "no dead letters");
}

macro_rules! walks {
    ($($name:ident: $product:ident, $pair:ident, $pace:ident, $definition:literal;)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            walk(GraphqlProduct::$product, Pair::$pair, Pace::$pace, $definition).await;
        }
    )* };
}

walks! {
    postgraphile_4: Postgraphile4, Embedded, StepByStep, "postgraphile_4";
    postgraphile_4_by_filter: Postgraphile4WithFilters, Embedded, AtOnce, "postgraphile_4_filter";
    postgraphile_5_by_global_ids: Postgraphile5, Embedded, StepByStep, "postgraphile_5_global_ids";
    postgraphile_5_by_global_ids_on_kafka_elasticsearch: Postgraphile5, KafkaElasticsearch, AtOnce, "postgraphile_5_global_ids";
    postgraphile_5_by_row_ids: Postgraphile5, Embedded, AtOnce, "postgraphile_5_row_ids";
    platformatic: Platformatic, Embedded, StepByStep, "platformatic";
    platformatic_on_kafka_elasticsearch: Platformatic, KafkaElasticsearch, AtOnce, "platformatic";
    apollo_by_entities: Apollo, Embedded, StepByStep, "apollo_entities";
    apollo_by_list: Apollo, Embedded, AtOnce, "apollo_list";
}
