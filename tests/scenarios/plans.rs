//! Plans that change: an index that leaves the pipeline for a while, another query or rule for the same documents, processes that
//! run an old and a new plan at a time. The index is right in the end, and nobody asked for a reindex.

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

/// The line of the query that has another field behind the same name in [`other_query`].
const FIELD: &str = "    runtimeMin\n";
const OTHER_FIELD: &str = "    runtimeMin: imdbVotes\n";

fn edit(path: &std::path::Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).expect("a file");
    assert!(text.contains(from), "{from:?} is not in {}:\n{text}", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).expect("written");
}

/// The same mapping, other documents; and what they must be then.
fn other_query(world: &mut World) {
    edit(&world.folder.path().join("movies.graphql"), FIELD, OTHER_FIELD);
    let documents = movie_graph::truth::DOCUMENTS.replace("'runtimeMin', m.runtime_min", "'runtimeMin', m.imdb_votes");
    let file = world.folder.path().join("documents.sql");
    std::fs::write(&file, documents).expect("written");
    world.expect(&file);
}

/// The query that the demo has.
fn first_query(world: &mut World) {
    edit(&world.folder.path().join("movies.graphql"), OTHER_FIELD, FIELD);
    let file = world.folder.path().join("documents.sql");
    std::fs::write(&file, movie_graph::truth::DOCUMENTS).expect("written");
    world.expect(&file);
}

/// Adds an index beside the world's own; its store is the same, or the one that is given.
pub(super) fn add_index(world: &World, name: &str, store: Option<&str>) {
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let begin = format!("  {}:\n", world.index());
    let at = text.find(&begin).expect("the index") + begin.len();
    let lines = text[at..].split_inclusive('\n').take_while(|line| line.starts_with("    "));
    let lines: String = lines
        .map(|line| match store {
            Some("embedded") if line.trim_start().starts_with("store:") => String::new(),
            Some(store) if line.trim_start().starts_with("store:") => format!("    store: {store}\n"),
            _ => line.to_owned(),
        })
        .collect();
    edit(&world.pipeline(), "indexes:\n", &format!("indexes:\n  {name}:\n{lines}"));
}

/// Takes the world's own index out of the pipeline, or puts it back.
fn comment_out(world: &World, out: bool) {
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let mut inside = false;
    let lines = text.split_inclusive('\n').map(|line| {
        let bare = line.strip_prefix('#').unwrap_or(line);
        inside = if bare == format!("  {}:\n", world.index()) { true } else { inside && bare.starts_with("    ") };
        match (inside, out) {
            (false, _) => line.to_owned(),
            (true, true) => format!("#{bare}"),
            (true, false) => bare.to_owned(),
        }
    });
    let lines: String = lines.collect();
    std::fs::write(world.pipeline(), lines).expect("the pipeline");
}

async fn out_and_back(pair: Pair) {
    let mut world = World::new("out", pair, Own::default()).await;
    let other = format!("{}-2", world.index());
    add_index(&world, &other, None);
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.stop_process(0).await;
    comment_out(&world, true);
    world.start();
    world
        .execute(
            "UPDATE movie SET title = 'While it was out' WHERE id = 5; DELETE FROM movie WHERE id = 6;
             UPDATE distributor SET name = 'While it was out' WHERE id = 3;
             INSERT INTO movie (id, title) VALUES (900001, 'While it was out')",
        )
        .await;
    let path = format!("/indexes/{other}/documents/900001");
    world
        .until("the index that stayed has the changes", async |address| {
            let waiting = client::get(address, &format!("/indexes/{other}")).await.unwrap_or_default();
            let document = client::get(address, &path).await.unwrap_or_default();
            document["document"]["id"] == "900001" && waiting["changes_waiting"] == 0
        })
        .await;
    world.stop_process(0).await;
    comment_out(&world, false);
    world.start();
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_out_of_the_pipeline_and_back_embedded() {
    out_and_back(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_out_of_the_pipeline_and_back_kafka_elasticsearch() {
    out_and_back(Pair::KafkaElasticsearch).await;
}

/// The mapping stays, so the store cannot tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_field_behind_the_same_name() {
    for pair in [Pair::Embedded, Pair::KafkaElasticsearch] {
        let mut world = World::new("field", pair, Own::default()).await;
        world.start();
        world.until_documents(MOVIES).await;
        world.assert_converged().await;
        world.stop_process(0).await;
        other_query(&mut world);
        world.start();
        world.assert_converged().await;
        assert!(world.said("its query and the shape of its documents changed") > 0, "{}", world.log());
        // And once it is listed, a restart lists nothing.
        world.stop_process(0).await;
        world.start();
        world.assert_converged().await;
        assert_eq!(world.said("building every document"), 0, "{}", world.log());
    }
}

/// Changes of a table without a rule go unnoticed; with the rule, what went unnoticed is made up for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_that_was_added() {
    for pair in [Pair::Embedded, Pair::KafkaElasticsearch] {
        let mut world = World::new("rule", pair, Own::default()).await;
        const RULE: &str = "    public.genre: [{ type: Genre, id: \"{id}\" }]\n";
        world.edit_pipeline(RULE, "");
        world.start();
        world.until_documents(MOVIES).await;
        world
            .execute("UPDATE genre SET name = 'Unnoticed' WHERE id = 1; UPDATE movie SET title = 'T' WHERE id = 5")
            .await;
        let path = format!("/indexes/{}/documents/5", world.index());
        world
            .until("a change of another table is searchable", async |address| {
                client::get(address, &path).await.is_some_and(|document| document["document"]["title"] == "T")
            })
            .await;
        world.stop_process(0).await;
        world.edit_pipeline("    public.venue: [", &format!("{RULE}    public.venue: ["));
        world.start();
        world.assert_converged().await;
    }
}

/// Processes with the newer plan start beside the others, and those are started again as a supervisor does. Then back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_and_its_rollback() {
    let mut world = World::new("rolling", Pair::KafkaElasticsearch, Own::default()).await;
    world.start_process(0);
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    other_query(&mut world);
    world.start_process(1);
    // The former plan is at work until its process hears of the other one.
    world.execute("UPDATE movie SET imdb_votes = 7 WHERE id < 300").await;
    assert_eq!(world.ended().await, 1, "{}", world.log());
    assert!(world.said("another process of this pipeline has begun to work on the index by another plan") > 0);
    // Started again with the plan that was replaced, it is a standby.
    first_query(&mut world);
    world.start_process(0);
    let index = format!("index {}", world.index());
    let standby = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"][&index]["state"] == "standby"
    };
    world.until("the former plan's process is a standby", standby).await;
    world.execute("UPDATE movie SET imdb_votes = 8, title = 'Both run' WHERE id BETWEEN 300 AND 600").await;
    // The newer one takes over the whole.
    world.kill_process(0);
    other_query(&mut world);
    world.assert_converged().await;
    // Rolled back: the former plan's process starts beside the newer one, waits for its end, and lists anew.
    first_query(&mut world);
    world.start_process(0);
    world.until("the former plan's process is a standby", standby).await;
    world.stop_process(1).await;
    world.assert_converged().await;
}

/// An index in the folder of one process cannot be that of two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_index_behind_kafka_has_one_process() {
    let mut world = World::new("home", Pair::KafkaElasticsearch, Own::default()).await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with("    store:")).collect();
    std::fs::write(world.pipeline(), text).expect("the pipeline");
    world.start_process(1);
    world.until_documents(MOVIES).await;
    world.start_process(0);
    assert_eq!(world.ended().await, 1);
    assert!(world.said("several processes need a store that they share") > 0, "{}", world.log());
    world.execute("UPDATE movie SET title = 'Still here' WHERE id = 5").await;
    world.assert_converged().await;
}

/// An index whose store is away stops no other one, neither at the start nor later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_stops_its_own_index_alone() {
    let mut world = World::new("away", Pair::KafkaElasticsearch, Own::default()).await;
    let other = format!("{}-2", world.index());
    add_index(&world, &other, Some("{ elasticsearch: { url: \"http://127.0.0.1:9\", replicas: 0 } }"));
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'Not stopped' WHERE id = 5; DELETE FROM movie WHERE id = 6").await;
    world.assert_converged().await;
    let address = world.address().expect("it runs");
    let health = client::get(&address, "/health").await.expect("an answer");
    assert_eq!(health["parts"][format!("store of {other}")]["up"], false, "{health}");
}

/// Of two processes one lists; the other goes on when that one is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lister_is_killed() {
    let mut world = World::new("lister", Pair::KafkaElasticsearch, Own::default()).await;
    world.faults().set_delay(std::time::Duration::from_millis(100));
    world.start_process(1);
    world.until_documents(1).await;
    world.start_process(0);
    world.until("the second process runs", async |_| true).await;
    world.kill_process(1);
    world.faults().set_delay(std::time::Duration::ZERO);
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
}
