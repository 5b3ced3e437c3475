//! Tables change under a running pipeline: what its rules name, what the log carries, and rows without events.

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

/// Whether `/health` says that the source is down for a reason that holds a text.
async fn source_says(address: &str, text: &str) -> bool {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"].as_object().is_some_and(|parts| {
        parts.iter().any(|(name, part)| {
            name.starts_with("source ")
                && part["up"] == false
                && part["why"].as_str().is_some_and(|why| why.contains(text))
        })
    })
}

/// A world whose rule for talents names a column beside the key: `code`, which has the same values.
async fn with_codes(name: &str, pair: Pair) -> World {
    let world = World::new(name, pair, Own::default()).await;
    world
        .execute(
            "ALTER TABLE talent ADD COLUMN code int; UPDATE talent SET code = id; ALTER TABLE talent REPLICA IDENTITY FULL",
        )
        .await;
    rule(&world, "{id}", "{code}");
    world
}

/// Replaces the id of the rule for talents.
fn rule(world: &World, before: &str, after: &str) {
    let pipeline = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let changed = pipeline.replace(
        &format!("type: Talent, id: \"{before}\" }}]\n    public.dist"),
        &format!("type: Talent, id: \"{after}\" }}]\n    public.dist"),
    );
    assert_ne!(changed, pipeline);
    std::fs::write(world.pipeline(), changed).expect("the pipeline");
}

/// Talents that are in most documents.
const TALENTS: &str = "id IN (SELECT talent_id FROM movie_talent GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 20)";

async fn column_of_a_rule_renamed(pair: Pair) {
    let mut world = with_codes("renamed", pair).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute(&format!("UPDATE talent SET name = 'Before' WHERE {TALENTS}")).await;
    world.assert_converged().await;
    world.execute("ALTER TABLE talent RENAME code TO number").await;
    world.execute(&format!("UPDATE talent SET name = 'Between' WHERE {TALENTS}")).await;
    world.until("the source is down", async |address| source_says(address, "names the column `code`").await).await;
    // Mended on the server, it goes on by itself.
    world.execute("ALTER TABLE talent RENAME number TO code").await;
    world.assert_converged().await;
    // Mended in the pipeline, it goes on at the next start; changes that it captured before are not resolved yet then.
    world.stop_service().await;
    world.execute(&format!("UPDATE talent SET name = 'Unresolved' WHERE {TALENTS}")).await;
    world
        .until("the graph is missed", async |address| {
            client::get(address, "/health").await.is_some_and(|health| health["parts"]["graph"]["up"] == false)
        })
        .await;
    world.execute("ALTER TABLE talent RENAME code TO number").await;
    world.execute(&format!("UPDATE talent SET name = name || '!' WHERE {TALENTS}")).await;
    world.until("the source is down", async |address| source_says(address, "names the column `code`").await).await;
    world.kill();
    rule(&world, "{code}", "{number}");
    world.start_service_again().await;
    world.start();
    world.assert_converged().await;
    world.execute(&format!("UPDATE talent SET name = 'After' WHERE {TALENTS}")).await;
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_of_a_rule_renamed_embedded() {
    column_of_a_rule_renamed(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn column_of_a_rule_renamed_kafka_elasticsearch() {
    column_of_a_rule_renamed(Pair::KafkaElasticsearch).await;
}

/// Old rows lack what a rule names: a talent that changes its code would leave its documents stale.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_narrowed() {
    let mut world = with_codes("narrowed", Pair::Embedded).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY DEFAULT").await;
    world.execute(&format!("UPDATE talent SET name = 'Narrow' WHERE {TALENTS}")).await;
    world.until("the source is down", async |address| source_says(address, "REPLICA IDENTITY FULL").await).await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY FULL").await;
    world.execute("DELETE FROM movie_talent WHERE talent_id = 3; DELETE FROM talent WHERE id = 3").await;
    world.assert_converged().await;
}

async fn rows_without_events(pair: Pair) {
    let mut world = World::new("unseen", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.execute("ALTER TABLE movie ALTER title TYPE text USING title || ' (rewritten)'").await;
    world.assert_converged().await;
    // While nobody looks.
    world.kill();
    world.execute("ALTER TABLE distributor ALTER name TYPE text USING name || ' (while away)'").await;
    world.start();
    world.assert_converged().await;
    let log = world.log();
    assert!(log.contains("an ALTER TABLE rewrote its rows"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_events_embedded() {
    rows_without_events(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_without_events_kafka_opensearch() {
    rows_without_events(Pair::KafkaOpenSearch).await;
}

/// Rows that a detached partition takes away, and an attached one brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_come_and_go() {
    let mut world = World::new("parts", Pair::Embedded, Own::default()).await;
    world
        .execute(
            "ALTER TABLE screening RENAME TO whole; \
             CREATE TABLE screening (LIKE whole INCLUDING DEFAULTS, PRIMARY KEY (id)) PARTITION BY RANGE (id); \
             CREATE TABLE low PARTITION OF screening FOR VALUES FROM (MINVALUE) TO (5000); \
             CREATE TABLE high PARTITION OF screening FOR VALUES FROM (5000) TO (9000); \
             INSERT INTO screening SELECT * FROM whole WHERE id < 9000; \
             INSERT INTO screening SELECT 5001, id, (SELECT min(id) FROM venue), now() FROM movie WHERE id = 50",
        )
        .await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.execute("ALTER TABLE screening DETACH PARTITION high").await;
    world.assert_converged().await;
    world.execute("UPDATE high SET movie_id = 60; ALTER TABLE screening ATTACH PARTITION high FOR VALUES FROM (5000) TO (9000)").await;
    world.assert_converged().await;
    world.execute("TRUNCATE low").await;
    world.assert_converged().await;
}

/// What needs a database waits for it, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_databases_down_at_the_start() {
    let other =
        tributary_stack::Postgres::start(tributary_stack::PostgresOptions { fsync: false, ..Default::default() })
            .await
            .expect("another PostgreSQL");
    let url = other.url("postgres");
    let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connects");
    tokio::spawn(connection);
    sql.batch_execute("CREATE TABLE rating (movie_id int PRIMARY KEY, stars int)").await.expect("a table");
    other.stop().await.expect("stops");

    let mut world = World::new("two", Pair::Embedded, Own::default()).await;
    let pipeline = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let sources = format!("sources:\n  other:\n    postgres: {{ url: \"{url}\", tables: [public.rating] }}\n");
    std::fs::write(world.pipeline(), pipeline.replace("sources:\n", &sources)).expect("the pipeline");
    world.start();
    // No document shows ratings.
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'One is enough' WHERE id < 40").await;
    world.assert_converged().await;
    let address = world.address().expect("it runs");
    assert!(source_says(&address, "cannot be reached").await, "{}", world.log());
    // Now that documents show them, a first build of another index waits, and so does the listing for the new rule; the index that
    // is there goes on.
    world.kill();
    let pipeline = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let second = "indexes:\n  second:\n    query: movies.graphql\n    roots: { table: public.movie }\n";
    let rules = "  vertices:\n    public.rating: [{ type: Movie, id: \"{movie_id}\" }]\n";
    let pipeline = pipeline.replace("    refresh:", "    roots: { table: public.movie }\n    refresh:");
    let pipeline = pipeline.replace("indexes:\n", second).replace("  vertices:\n", rules);
    std::fs::write(world.pipeline(), pipeline).expect("the pipeline");
    world.start();
    world.execute("UPDATE movie SET title = 'And again' WHERE id < 50").await;
    world.assert_right().await;
    let address = world.address().expect("it runs");
    let health = client::get(&address, "/health").await.unwrap_or_default();
    assert!(
        health["parts"]["index second"]["why"].as_str().is_some_and(|why| why.contains("source other")),
        "{health:#}"
    );
    other.start_again().await.expect("starts again");
    world
        .until("the second index is built", async |address| {
            client::get(address, "/indexes/second").await.is_some_and(|status| status["documents"] == MOVIES)
        })
        .await;
    world.assert_converged().await;
}
