//! Two processes of a pipeline: one captures, the other is its standby.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::client;
use crate::world::{Own, Pair, World};

/// The process that captures. The world's own process is the standby.
struct Active {
    process: Child,
    data: tempfile::TempDir,
}

impl Active {
    fn start(world: &World) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let mut command = world.command(&["run", world.pipeline().to_str().expect("a path"), "--quiet"]);
        let log = std::fs::File::create(data.path().join("log")).expect("a log");
        command.env("TRIBUTARY_DATA", data.path()).stdout(Stdio::null()).stderr(log);
        Self { process: command.spawn().expect("tributary starts"), data }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default()
    }

    /// Waits until it streams.
    async fn streaming(&self) {
        while !self.log().contains("\"streaming\"") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether `/health` answers 200 and says that the process is a standby.
async fn is_standby(address: &str) -> bool {
    let Ok(answer) = reqwest::get(format!("http://{address}/health")).await else { return false };
    let healthy = answer.status() == 200;
    let health: serde_json::Value = answer.json().await.unwrap_or_default();
    let source = health["parts"].as_object().is_some_and(|parts| {
        parts.iter().any(|(name, part)| name.starts_with("source ") && part["state"] == "standby" && part["up"] == true)
    });
    healthy && source && health["state"] == "standby"
}

/// Standbys that start beside a busy process are healthy, say what they are, and the last one takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_busy_process() {
    let mut world = World::new("standby", Pair::KafkaElasticsearch, Own::default()).await;
    let active = Active::start(&world);
    active.streaming().await;
    // Each statement is a transaction; a session of its own writes on while standbys come and go.
    let command = world.command(&[]);
    let url = command.get_envs().find(|(name, _)| *name == "STUDIO_URL").and_then(|(_, url)| url).expect("a URL");
    let (sql, connection) =
        tokio_postgres::connect(url.to_str().expect("text"), tokio_postgres::NoTls).await.expect("the database");
    tokio::spawn(connection);
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, update) = (stop.clone(), "UPDATE movie SET imdb_votes = $1 WHERE id = $2");
    let writer = tokio::spawn(async move {
        let mut number = 0_i32;
        while !ended.load(Ordering::Acquire) {
            number += 1;
            sql.execute(update, &[&number, &(1 + number % 1200)]).await.expect("a change");
        }
        number
    });
    for _ in 0..8 {
        world.start();
        world.until("it is a standby, and healthy", is_standby).await;
        world.kill();
    }
    world.start();
    world.until("it is a standby, and healthy", is_standby).await;
    let address = world.address().expect("it listens");
    for path in ["/health/ready", "/health/live"] {
        assert_eq!(reqwest::get(format!("http://{address}{path}")).await.expect("an answer").status(), 200, "{path}");
    }
    assert_eq!(world.said("trying again"), 0, "a standby has no trouble:\n{}", world.log());
    drop(active);
    let state = async |address: &str| client::get(address, "/health").await.is_some_and(|h| h["state"] == "up");
    world.until("it has taken over", state).await;
    stop.store(true, Ordering::Release);
    assert!(writer.await.expect("no panic") > 100);
    world.execute("UPDATE movie SET title = 'Taken over' WHERE id < 30").await;
    world.assert_converged().await;
}
