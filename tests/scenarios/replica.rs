//! A graph that reads a standby, which is further behind than anybody thought, and says with every answer how far it has come.

use std::time::Duration;

use tributary_stack::{Postgres, PostgresOptions};

use crate::world::{MOVIES, Own, Pair, World, connect};

/// How much later the standby applies what it has received. The pipeline believes in a second.
const BEHIND: &str = "3s";

/// A standby of the world's database, made of a copy of its files, which is so far behind; the graph reads it from now on.
async fn graph_on_standby(world: &mut World, behind: &str) -> Postgres {
    let primary = world.postgres.as_ref().expect("its own PostgreSQL");
    let settings = vec![("recovery_min_apply_delay".to_owned(), behind.to_owned())];
    let options = PostgresOptions { password: Some("of-the-owner".into()), settings, ..PostgresOptions::default() };
    let standby = primary.standby(options).await.expect("the standby starts");
    world.reconnect().await;
    let primary = world.postgres.as_ref().expect("its own PostgreSQL").server_url();
    world.serve_from(&world.database_url().replace(&primary, &standby.server_url())).await;
    standby
}

/// New documents, moved edges, renamed leaves and deletes, each of which the standby shows much later.
async fn change(world: &World, round: u32) {
    for number in (20 * round)..(20 * round + 20) {
        let (old, new, movie) = (10_000 + 2 * number, 10_001 + 2 * number, 900_000 + number);
        world.execute(&format!("INSERT INTO venue VALUES ({old}, 'First', 'A'), ({new}, 'Second', 'B')")).await;
        world.execute(&format!("INSERT INTO movie (id, title) VALUES ({movie}, 'New')")).await;
        world.execute(&format!("INSERT INTO screening VALUES ({number}, {movie}, {old}, now())")).await;
        world.execute(&format!("UPDATE screening SET venue_id = {new} WHERE id = {number}")).await;
        world.execute(&format!("UPDATE talent SET name = 'Late {number}' WHERE id % 101 = {}", number % 101)).await;
        world.execute(&format!("DELETE FROM movie WHERE id = {}", 1 + number)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.execute(&format!("UPDATE venue SET name = 'Renamed' WHERE id = {new}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_that_says_how_far_it_has_come_is_waited_for() {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("replica", Pair::KafkaElasticsearch, own).await;
    let standby = graph_on_standby(&mut world, BEHIND).await;
    let primary = world.postgres.as_ref().expect("its own PostgreSQL").server_url();
    let database = world.database_url().replace(&primary, &standby.server_url());
    world.faults().say_position(true);
    world.start_process(0);
    world.start_process(1);
    world.until_documents(MOVIES).await;
    change(&world, 0).await;
    world.assert_converged_after("changes that the graph showed late").await;

    // It stands still, and much is waiting then.
    let replay = connect(&database).await;
    replay.batch_execute("SELECT pg_wal_replay_pause()").await.expect("paused");
    change(&world, 1).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    replay.batch_execute("SELECT pg_wal_replay_resume()").await.expect("resumed");
    change(&world, 2).await;
    world.assert_converged_after("the graph had stood still").await;
}

/// What committed just before the slot was made has no event, nor has what the publication left out: only a listing repairs it, and
/// nothing repairs a listing that fetched what was before. The standby is further behind than a start and a look at the catalog take.
async fn what_no_event_tells(name: &str, says: bool) {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new(name, Pair::Embedded, own).await;
    let _standby = graph_on_standby(&mut world, "10s").await;
    world.faults().say_position(says);
    if !says {
        world.edit_pipeline("graph:\n", "graph:\n  lag: 13s\n");
    }
    world.execute("UPDATE talent SET name = 'Just before' WHERE id % 101 = 0").await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged_after("a change just before the first start").await;
    let publication = world.sql.query_one("SELECT quote_ident(pubname) FROM pg_publication", &[]).await.expect("one");
    let publication: String = publication.get(0);
    world
        .execute(&format!(
            "BEGIN; ALTER PUBLICATION {publication} DROP TABLE distributor; \
             UPDATE distributor SET name = name || ' (left out)'; \
             ALTER PUBLICATION {publication} ADD TABLE distributor; COMMIT"
        ))
        .await;
    world.assert_converged_after("rows without events").await;
    assert!(world.said("its publication was changed") > 0, "{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_event_tells_is_listed_when_the_lag_is_over() {
    what_no_event_tells("lagging", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_event_tells_is_listed_when_the_graph_says_so() {
    what_no_event_tells("saying", true).await;
}

/// Writes beside `change`, in a session of its own: several commits wait for the standby at a time.
async fn write(database: String, round: i32) {
    let sql = connect(&database).await;
    for number in 0..20 {
        let statement = format!("UPDATE movie SET imdb_votes = {round} WHERE id % 97 = {}", 50 + number);
        sql.batch_execute(&statement).await.expect("written");
    }
}

/// Commits that wait for a standby are in the log, and nobody sees them: neither the graph, which reads the primary, nor does anybody say how
/// far that is behind. Their events are held back meanwhile, over a kill as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronous_standby_that_is_away_for_seconds_leaves_nothing_stale() {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("synchronous", Pair::Embedded, own).await;
    let primary = world.postgres.as_ref().expect("its own PostgreSQL");
    let options = PostgresOptions { password: Some("of-the-owner".into()), ..PostgresOptions::default() };
    let standby = primary.standby(options).await.expect("the standby starts");
    world.reconnect().await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'").await;
    world.execute("SELECT pg_reload_conf()").await;
    let database = world.database_url();
    for round in 0..2 {
        standby.pause().await;
        let back = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            standby.resume().await;
        };
        let writer = tokio::spawn(write(database.clone(), round));
        if round == 1 {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
            let sql = connect(&database).await;
            while sql.query_one(waiting, &[]).await.expect("a number").get::<_, i64>(0) == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            world.kill();
            world.start();
        }
        tokio::join!(change(&world, round as u32), back);
        writer.await.expect("it writes");
        world.assert_converged_after("a synchronous standby was away").await;
    }
    standby.stop().await.expect("it stops");
}
