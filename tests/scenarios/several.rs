//! Several processes of one pipeline at a time: they share its work, and whatever happens to some of them, the index is right.

use std::time::{Duration, Instant};

use tributary_stack::Clock;

use crate::client;
use crate::world::{ALL, MOVIES, Own, Pair, World};

/// Two processes that follow the log, behind a complete index.
async fn two(name: &str, pair: Pair) -> World {
    let mut world = World::new(name, pair, Own::default()).await;
    world.start_process(0);
    world.start_process(1);
    world.until_documents(MOVIES).await;
    world
}

/// Documents that a process has built, or found unchanged.
async fn built(address: &str) -> u64 {
    let Ok(answer) = reqwest::get(format!("http://{address}/metrics")).await else { return 0 };
    let text = answer.text().await.unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("tributary_documents_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// Each process has its part in the work.
async fn assert_shared(world: &World) {
    for address in world.addresses() {
        assert!(built(&address).await > 0, "{address} has built nothing:\n{}", world.log());
    }
}

/// What a process has read, and not written yet, while another one resolves the change of it.
async fn answers_that_come_late(pair: Pair) {
    let mut world = World::new("late", pair, Own::default()).await;
    // Answers that are late must not be too late on a machine that is slow besides.
    world.edit_pipeline("deadline: 5s", "deadline: 10s");
    world.faults().set_late(Duration::from_secs(2));
    world.start_process(0);
    world.start_process(1);
    world.until_documents(1).await;
    // Of the demo's movies each has one director at most, and a director a few movies.
    for round in 1..=60 {
        let renamed = format!("UPDATE talent SET name = 'Late {round}' WHERE id % 97 = {round}");
        world.execute(&renamed).await;
        world.execute(&format!("UPDATE distributor SET name = 'Late {round}' WHERE id = {round}")).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    world.until_documents(MOVIES).await;
    assert_shared(&world).await;
    for round in 1..=50 {
        let (movie, leaf) = (round * 24, 100_000 + round);
        // The venue is renamed while the movie that shows it now is on its way.
        world.execute(&format!("INSERT INTO venue VALUES ({leaf}, 'Before', 'A')")).await;
        world.execute(&format!("INSERT INTO screening VALUES ({leaf}, {movie}, {leaf}, now())")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.execute(&format!("UPDATE venue SET name = 'After' WHERE id = {leaf}")).await;
    }
    world.faults().set_late(Duration::ZERO);
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_come_late_kafka_elasticsearch() {
    answers_that_come_late(Pair::KafkaElasticsearch).await;
}

/// An edge is moved, and its new target renamed long before the index shows that the document embeds it.
async fn slowly_visible(pair: Pair) {
    let mut world = World::new("unseen", pair, Own::default()).await;
    world.edit_pipeline("refresh: 100ms", "refresh: 10s");
    world.start_process(0);
    world.start_process(1);
    world.until_documents(MOVIES).await;
    // Nobody else refreshes it.
    let store = if pair == Pair::KafkaOpenSearch { world.opensearch_url() } else { world.store_url() };
    let settings = reqwest::Client::new().put(format!("{store}/{}/_settings", world.index()));
    let settings = settings.json(&serde_json::json!({ "index": { "refresh_interval": "-1" } }));
    settings.send().await.expect("asked").error_for_status().expect("the index refreshes itself no more");
    world.execute("INSERT INTO venue SELECT i, 'First', 'A' FROM generate_series(1, 200) i").await;
    world.assert_converged_after("the venues").await;
    // The rename of a target follows the move by some seconds, and its fifty other changes.
    for round in 1..=150 {
        if round <= 100 {
            world.execute(&format!("INSERT INTO screening VALUES ({round}, {}, {round}, now())", round * 12)).await;
            world.execute(&format!("UPDATE screening SET venue_id = {} WHERE id = {round}", 100 + round)).await;
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        if round > 50 {
            world.execute(&format!("UPDATE venue SET name = 'Second' WHERE id = {}", 50 + round)).await;
        }
    }
    world.assert_converged().await;
    assert_shared(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_visible_kafka_elasticsearch() {
    slowly_visible(Pair::KafkaElasticsearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slowly_visible_kafka_opensearch() {
    slowly_visible(Pair::KafkaOpenSearch).await;
}

/// Searches go to either copy of a shard, and one copy goes away and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_on_two_nodes_kafka_elasticsearch() {
    let own = Own { copies: true, ..Own::default() };
    let mut world = World::new("copies", Pair::KafkaElasticsearch, own).await;
    world.start_process(0);
    world.start_process(1);
    world.until_documents(MOVIES).await;
    if let Some(node) = &world.elasticsearch {
        let health = format!("{}/_cluster/health?wait_for_status=green&timeout=60s", node.url());
        let health: serde_json::Value = reqwest::get(health).await.expect("asked").json().await.expect("JSON");
        assert_eq!(health["status"], "green", "{health}");
        let copies = health["active_shards"].as_u64() > health["active_primary_shards"].as_u64();
        assert_eq!(copies, world.second_node.is_some(), "{health}");
    }
    moved_targets(&world, 0).await;
    world.assert_converged_after("edges were moved").await;
    if let Some(node) = &world.second_node {
        node.kill().await.expect("killed");
        moved_targets(&world, 1).await;
        node.start_again().await.expect("started");
        moved_targets(&world, 2).await;
    }
    world.assert_converged_after("a copy was away").await;
}

/// Edges are moved, and their new targets renamed before the index was refreshed.
async fn moved_targets(world: &World, round: u32) {
    for number in (100 * round)..(100 * round + 50) {
        let (old, new) = (10_000 + 2 * number, 10_001 + 2 * number);
        world.execute(&format!("INSERT INTO venue VALUES ({old}, 'First', 'A'), ({new}, 'Second', 'B')")).await;
        world.execute(&format!("INSERT INTO screening VALUES ({number}, {}, {old}, now())", 1 + number)).await;
        world.execute(&format!("UPDATE screening SET venue_id = {new} WHERE id = {number}")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.execute(&format!("UPDATE venue SET name = 'Renamed' WHERE id = {new}")).await;
    }
}

/// A graph that answers from a cache, and a pipeline that knows how old the answers may be. There are fewer deletes than the brake lets
/// through in a minute, for what the cache does not have yet counts too.
async fn cached_answers(pair: Pair, processes: usize) {
    let mut world = World::new("cache", pair, Own::default()).await;
    world.edit_pipeline("graph:\n", "graph:\n  lag: 4s\n");
    world.faults().set_age(Duration::from_secs(3));
    for process in 0..processes {
        world.start_process(process);
    }
    world.until_documents(MOVIES).await;
    for round in 1..=70 {
        let (movie, new, leaf) = (round * 12, 900_000 + round, 100_000 + round);
        world.execute(&format!("UPDATE talent SET name = 'Cached {round}' WHERE id % 101 = {}", round % 101)).await;
        world.execute(&format!("INSERT INTO movie (id, title) VALUES ({new}, 'New')")).await;
        world.execute(&format!("DELETE FROM movie WHERE id = {movie}")).await;
        world.execute(&format!("INSERT INTO venue VALUES ({leaf}, 'Before', 'A')")).await;
        world.execute(&format!("INSERT INTO screening VALUES ({leaf}, {new}, {leaf}, now())")).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.execute(&format!("UPDATE venue SET name = 'After' WHERE id = {leaf}")).await;
    }
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_answers_embedded() {
    cached_answers(Pair::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_answers_kafka_elasticsearch() {
    cached_answers(Pair::KafkaElasticsearch, 2).await;
}

/// Five hundred changes of roots and leaves, edges among them.
async fn burst(world: &World, round: u32) {
    for i in 0..500 {
        let movie = 1 + (round * 500 + i) * 7 % (MOVIES as u32 - 1);
        world.execute(&format!("UPDATE movie SET title = 'Round {round}', imdb_votes = {i} WHERE id = {movie}")).await;
        match i % 25 {
            0 => world.execute(&format!("UPDATE talent SET name = 'T{round}-{i}' WHERE id % 50 = {}", i / 25)).await,
            5 => {
                world
                    .execute(&format!("DELETE FROM movie WHERE id = {}", 1 + (round * 97 + i) % (MOVIES as u32 - 1)))
                    .await
            }
            10 => {
                world.execute(&format!("UPDATE distributor SET name = 'D{round}-{i}' WHERE id = {}", 1 + i / 25)).await
            }
            15 => {
                let id = 10_000 + round * 500 + i;
                world.execute(&format!("INSERT INTO movie (id, title) VALUES ({id}, 'New')")).await;
                world.execute(&format!("UPDATE movie_talent SET movie_id = {id} WHERE movie_id = {}", movie + 1)).await;
            }
            _ => {}
        }
    }
}

/// Processes come, leave in good order, are killed, and stand still, all in the middle of a burst.
async fn coming_and_going(pair: Pair) {
    let mut world = two("coming", pair).await;
    world.supervised = true;
    burst(&world, 0).await;
    world.start_process(2);
    burst(&world, 1).await;
    world.stop_process(0).await;
    burst(&world, 2).await;
    world.assert_converged_after("a third process came, and the first one left").await;
    world.start_process(0);
    burst(&world, 3).await;
    world.kill_process(1);
    burst(&world, 4).await;
    world.start_process(1);
    world.assert_converged_after("one was killed").await;
    burst(&world, 5).await;
    world.pause_process(2);
    burst(&world, 6).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    burst(&world, 7).await;
    world.resume_process(2);
    burst(&world, 8).await;
    world.assert_converged_after("one stood still for twenty seconds").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coming_and_going_kafka_elasticsearch() {
    coming_and_going(Pair::KafkaElasticsearch).await;
}

/// One of two machines has a clock that is five seconds behind: it says so, and builds nothing until that is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_that_differ_kafka_elasticsearch() {
    if let Some(cause) = Clock::left_out() {
        eprintln!("NOT TESTED: {cause}");
        return;
    }
    let clock = Clock::new().await.expect("a clock");
    clock.set(-5).expect("it is set");
    let mut world = World::new("clocks", Pair::KafkaElasticsearch, Own::default()).await;
    world.start_process(0);
    world.until_documents(MOVIES).await;
    world.environment.extend(clock.environment());
    world.start_process(1);
    let started = Instant::now();
    let health = async |address: &String| match reqwest::get(format!("http://{address}/health")).await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    };
    let mut changes = 0;
    let behind = loop {
        // It is told when there is something to do.
        changes += 1;
        world.execute(&format!("UPDATE movie SET imdb_votes = {changes} WHERE id % 100 = 7")).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if let [_, second] = world.addresses().as_slice()
            && health(second).await.contains("ms behind that of")
        {
            break second.clone();
        }
        assert!(started.elapsed() < Duration::from_secs(180), "nobody says so:\n{}", world.log());
    };
    let first = world.address().expect("it runs");
    assert!(!health(&first).await.contains("ms behind that of"), "whose clock is right is not told that it is wrong");
    burst(&world, 0).await;
    assert_eq!(built(&behind).await, 0, "it builds by a clock that is wrong:\n{}", world.log());
    clock.set(0).expect("it is set");
    burst(&world, 1).await;
    world.assert_converged_after("the clocks agree").await;
    assert_shared(&world).await;
}

/// One root gets children without a pause; another root, and the first one itself, are searchable meanwhile.
async fn a_storm_of_children(pair: Pair, processes: usize) {
    const CHILDREN: u32 = 4000;
    let mut world = World::new("storm", pair, Own::default()).await;
    for process in 0..processes {
        world.start_process(process);
    }
    world.until_documents(MOVIES).await;
    let url = world.database_url();
    let (sql, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("the database");
    tokio::spawn(connection);
    let storm = tokio::spawn(async move {
        let begin = tokio::time::Instant::now();
        let insert = "INSERT INTO screening (id, movie_id) VALUES ($1, 7)";
        for child in 0..CHILDREN {
            tokio::time::sleep_until(begin + Duration::from_millis(5) * child).await;
            sql.execute(insert, &[&i32::try_from(child).expect("a number")]).await.expect("a child");
        }
    });
    let index = world.index();
    let document = async |address: &str, id: u32| {
        client::get(address, &format!("/indexes/{index}/documents/{id}")).await.unwrap_or_default()["document"].clone()
    };
    let children = async |address: &str| document(address, 7).await["screenings"].as_array().map_or(0, Vec::len);
    for round in 1..=5_u32 {
        let title = format!("Beside the storm {round}");
        world.execute(&format!("UPDATE movie SET title = '{title}' WHERE id = {}", 1000 + round)).await;
        let found = async |address: &str| document(address, 1000 + round).await["title"] == title.as_str();
        world.until("a change beside the storm is searchable", found).await;
        let some = 300 * round as usize;
        world.until("children are searchable while others come", async |address| children(address).await > some).await;
    }
    assert!(!storm.is_finished(), "the storm was over before its children, and what is beside it, were searchable");
    storm.await.expect("no panic");
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_children_embedded() {
    a_storm_of_children(Pair::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_children_kafka_elasticsearch() {
    a_storm_of_children(Pair::KafkaElasticsearch, 2).await;
}

/// A vertex in very many documents is renamed among five hundred edits: these do not wait for its documents.
async fn a_supernode_among_edits(pair: Pair, processes: usize) {
    let mut world = World::of("supernode", pair, Own::default(), ALL).await;
    world.execute("UPDATE movie SET genre_id = 1 WHERE id > 700").await;
    world.edit_pipeline("deadline: 5s", "deadline: 5s, batch: 20, concurrency: 2");
    for process in 0..processes {
        world.start_process(process);
    }
    world.until_documents(ALL).await;
    world.assert_converged_after("the first build").await;
    world.faults().set_delay(Duration::from_millis(200));
    // They come in one piece.
    let edits = "UPDATE movie SET title = 'Edited' WHERE id BETWEEN 100 AND 349";
    let others = edits.replace("100 AND 349", "350 AND 599");
    world.execute(&format!("BEGIN; {edits}; UPDATE genre SET name = 'Renamed' WHERE id = 1; {others}; COMMIT")).await;
    let index = world.index();
    let count = async |address: &str, query: &str| {
        let path = format!("/indexes/{index}/search?q={query}&size=1");
        client::get(address, &path).await.unwrap_or_default()["total"].as_u64().unwrap_or(0)
    };
    world.until("the edits are searchable", async |address| count(address, "title:Edited").await == 500).await;
    let address = world.address().expect("it runs");
    let renamed = count(&address, "genre.name:Renamed").await;
    assert!(renamed < 2000, "{renamed} documents of the supernode were built before the last edit");
    world.faults().set_delay(Duration::ZERO);
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supernode_among_edits_embedded() {
    a_supernode_among_edits(Pair::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supernode_among_edits_kafka_elasticsearch() {
    a_supernode_among_edits(Pair::KafkaElasticsearch, 2).await;
}
