//! Answers of the graph that a stream keeps for an hour fall with the changes that the pipeline captures.

use std::time::Duration;

use serde_json::Value as Json;

use crate::client;
use crate::world::topics::records;
use crate::world::{Own, Pair, World};

const STREAM: &str = r#"
services:
  catalog: { graphql: "GRAPH" }
streams:
  titled:
    from: public.movie
    ops: [u]
    start: first
    steps:
      - enrich: { service: catalog, query: known.graphql, key: .after.id, into: .known, cache: { ttl: 1h } }
      - transform: '. = { "title": .after.title, "known": .known }'
    to: [{ topic: { name: OUT } }]
  shown:
    from: public.screening
    ops: [u]
    start: first
    steps:
      - enrich: { service: catalog, query: known.graphql, key: .after.movie_id, into: .known, cache: { ttl: 1h } }
    to:
      - sql:
          url: "${STUDIO_URL}"
          table: copies.screening
          key: id
          row: '{ "id": .after.id, "title": .known.title, "distributor": .known.distributor.name }'
"#;

const QUERY: &str = "query Known($ids: [ID!]!) { movies(ids: $ids) { id title distributor { id name } } }";

/// The number behind a title.
fn round(title: &Json) -> Option<u64> {
    title.as_str()?.strip_prefix("Round ")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_never_older_than_the_event() {
    let mut world = World::new("falling", Pair::Embedded, Own::default()).await;
    world.execute("CREATE SCHEMA copies").await;
    std::fs::write(world.folder.path().join("known.graphql"), QUERY).expect("the query");
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    // The graph reads the primary.
    let text = text.replace("  vertices:", "  lag: 0s\n  vertices:");
    let streams = STREAM.replace("GRAPH", &world.graph_url()).replace("OUT", "titled");
    std::fs::write(world.pipeline(), format!("{text}{streams}")).expect("the pipeline");
    let (code, said, error) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 0, "{said}{error}");
    let movie = 7;
    world.execute("INSERT INTO venue (id, name, city) VALUES (1, 'Odeon', 'Berlin')").await;
    world
        .execute(&format!("INSERT INTO screening (id, movie_id, venue_id, starts_at) VALUES (1, {movie}, 1, now())"))
        .await;
    world
        .execute(&format!("UPDATE movie SET distributor_id = (SELECT min(id) FROM distributor) WHERE id = {movie}"))
        .await;
    world.start();
    world.until_captured().await;

    // A stream's own changes: no event gets what was kept before it.
    for n in 1..=200_u64 {
        world.execute(&format!("UPDATE movie SET title = 'Round {n}' WHERE id = {}", 1 + n % 5)).await;
    }

    // The changes of other tables: what was kept is dropped a moment later, for a vertex that it is, and for one inside of it.
    let shown = async |world: &World, title: &str, distributor: &str| {
        let touch = "UPDATE screening SET starts_at = starts_at + interval '1 minute' WHERE id = 1";
        world.execute(touch).await;
        let rows = world.sql.query("SELECT title, distributor FROM copies.screening", &[]).await;
        rows.is_ok_and(|rows| {
            rows.iter().any(|row| {
                let [of_row, of_distributor]: [Option<String>; 2] = [row.get(0), row.get(1)];
                of_row.as_deref() == Some(title) && of_distributor.as_deref() == Some(distributor)
            })
        })
    };
    for n in 0..3 {
        let (title, distributor) = (format!("Kept {n}"), format!("Distributor {n}"));
        world.execute(&format!("UPDATE movie SET title = '{title}' WHERE id = {movie}")).await;
        world
            .execute(&format!(
                "UPDATE distributor SET name = '{distributor}' WHERE id = (SELECT min(id) FROM distributor)"
            ))
            .await;
        let mut tries = 0;
        while !shown(&world, &title, &distributor).await {
            tries += 1;
            assert!(tries < 600, "it still shows what was kept: {}", world.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let hits = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        let lags = metrics.lines().filter(|line| line.starts_with("tributary_stage_lag_records"));
        let is_kept =
            metrics.lines().any(|line| line.starts_with("tributary_service_cache_hits_total") && !line.ends_with(" 0"));
        is_kept && lags.into_iter().all(|line| line.ends_with(" 0"))
    };
    // Something was kept, and is asked for while nothing changes.
    for _ in 0..5 {
        let (title, distributor) = ("Kept 2", "Distributor 2");
        shown(&world, title, distributor).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.until("answers were kept, and nothing waits", hits).await;
    world.stop_process(0).await;
    let transport = world.transport(Pair::Embedded);
    let mut seen = 0;
    for record in records(transport.as_ref(), "titled").await.iter().flatten() {
        let event: Json = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        assert!(event["known"].is_object() && event["known"].get("tributary_type").is_none(), "{event}");
        let Some(own) = round(&event["title"]) else { continue };
        let known = round(&event["known"]["title"]);
        assert!(known.is_none_or(|known| known >= own), "an answer from before the change: {event}");
        seen += 1;
    }
    assert_eq!(seen, 200);
}
