//! A stream into a bucket: each event is in one file, once, whatever becomes of process and store on the way.

use std::path::Path;

use serde_json::Value as Json;
use tributary_stack::S3;

use crate::world::topics::records;
use crate::world::{Own, Pair, World};

const STREAM: &str = r#"
streams:
  filed:
    from: public.movie
    ops: [u]
    start: first
    to:
      - files:
          folder: s3://lake/movies
          s3: { endpoint: "${LAKE_URL}", access_key: "${LAKE_KEY}", secret_key: "${LAKE_SECRET}" }
          every: 300ms
          retry: { max_pause: 1s }
"#;

/// The numbers of all events of the files of a folder.
fn sequences(folder: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sequences(&path));
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
            found.extend(lines.filter_map(|line| line["sequence"].as_u64()));
        }
    }
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_has_each_event_once() {
    let lake = S3::start().await.expect("an object store starts");
    let bucket = lake.bucket("lake").expect("a bucket");
    let mut world = World::new("s3-files", Pair::Embedded, Own::default()).await;
    // No graph of indexes: streams alone.
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    std::fs::write(world.pipeline(), format!("{head}\n{STREAM}\nhttp:{tail}")).expect("the pipeline");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    world.environment = vec![
        variable("LAKE_URL", &lake.endpoint()),
        variable("LAKE_KEY", S3::ACCESS_KEY),
        variable("LAKE_SECRET", S3::SECRET_KEY),
    ];
    let (code, said, error) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 0, "{said}{error}");
    world.start();
    world.until_captured().await;
    for i in 0..200_u64 {
        let id = 1 + (i * 17) % 40;
        world.execute(&format!("UPDATE movie SET title = 'Round {i}' WHERE id = {id}")).await;
        match i {
            60 | 150 => {
                world.kill();
                world.start();
            }
            90 => lake.kill().await.expect("killed"),
            120 => lake.start_again().await.expect("started"),
            _ => {}
        }
    }
    world.until_captured().await;
    world.until("the bucket has all", async |_: &str| sequences(&bucket).len() >= 200).await;
    world.stop_process(0).await;
    let transport = world.transport(Pair::Embedded);
    let events = records(transport.as_ref(), &world.topic("public.movie")).await;
    let events =
        events.iter().flatten().filter_map(|record| serde_json::from_slice::<Json>(record.value.as_deref()?).ok());
    let mut expected: Vec<u64> = events.filter_map(|event| event["sequence"].as_u64()).collect();
    expected.sort_unstable();
    assert_eq!(sequences(&bucket), expected);
}
