//! A graph that reads a standby, which is further behind than anybody thought, and says with every answer how far it has come.

use std::time::Duration;

use tributary_stack::{Postgres, PostgresOptions};

use crate::world::{Own, Pair, World, connect};

/// How much later the standby applies what it has received. The pipeline believes in a second.
const BEHIND: &str = "3s";

/// A standby of the world's database, made of a copy of its files.
async fn standby(world: &mut World) -> Postgres {
    let primary = world.postgres.as_ref().expect("its own PostgreSQL");
    let settings = vec![("recovery_min_apply_delay".to_owned(), BEHIND.to_owned())];
    let options = PostgresOptions { password: Some("of-the-owner".into()), settings, ..PostgresOptions::default() };
    let standby = primary.standby(options).await.expect("the standby starts");
    world.reconnect().await;
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
    let standby = standby(&mut world).await;
    let primary = world.postgres.as_ref().expect("its own PostgreSQL").server_url();
    let database = world.database_url().replace(&primary, &standby.server_url());
    world.serve_from(&database).await;
    world.faults().say_position(true);
    world.start_process(0);
    world.start_process(1);
    world.until_documents(3201).await;
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
