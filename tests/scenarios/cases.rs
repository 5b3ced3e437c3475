//! `tributary test`: cases by a clock of their own, with services, receivers and sinks that are no servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::world::{MOVIES, Own, Pair, World};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

fn test(arguments: &[&str], files: &[PathBuf]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
    let output = command.arg("test").args(arguments).args(files).current_dir(&folder).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

/// Hours pass in them; by the clock of the machine it is seconds.
#[test]
fn time_passes_by_the_clock_of_the_case() {
    let (code, said) = test(&[], &[file("pipeline.yaml"), file("cases.yaml")]);
    assert!(code == Some(0) && said.contains("8 passed"), "{said}");
}

#[test]
fn what_comes_of_a_case_is_the_same_if_it_is_killed_on_the_way() {
    for words in ["every sink", "set aside", "of a burst", "a repetition"] {
        let (code, said) = test(&["--crash", "--only", words], &[file("pipeline.yaml"), file("cases.yaml")]);
        assert!(code == Some(0) && said.contains("1 passed"), "{said}");
    }
}

#[test]
fn what_a_case_does_not_answer_is_told_as_it_is_to_be_filled_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.yaml");
    let text = r#"
- case: nobody said what it costs
  stream: priced
  events: [{ public.movie: { op: c, after: { id: 7, title: Alien, year: 1979 } } }]
  expect: { events: [] }
- case: no such sink
  stream: priced
  sinks: { hook: {} }
  events: []
  expect: {}
"#;
    std::fs::write(&cases, text).expect("cases");
    let (code, said) = test(&[], &[file("pipeline.yaml"), cases]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("      given:\n        pricing: { found: { 7: {} } }"), "{said}");
    assert!(
        said.contains(
            "sinks.hook: the stream has no such sink (it has: conductor, files, priced-movies, sql, webhook)"
        ),
        "{said}"
    );
}

const TITLED: &str = r#"
services:
  catalog: { graphql: "GRAPH" }

streams:
  titled:
    from: public.movie
    ops: [u]
    steps:
      - enrich: { service: catalog, query: titles.graphql, key: .after.id, into: .known }
      - transform: '. = { "id": .after.id, "known": .known.title }'
    to:
      - topic: { name: titled, key: .id }
"#;

const UNANSWERED: &str = "
- case: nobody has filled it in
  stream: titled
  events: [{ public.movie: { op: u, before: { id: 3 }, after: { id: 3 } } }]
";

/// What flows through a running pipeline becomes cases that pass; so does a case of which the services are asked for what it lacks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cases_are_recorded() {
    let mut world = World::new("recorded", Pair::Embedded, Own::default()).await;
    let query = "query Titles($ids: [ID!]!) { movies(ids: $ids) { id title } }";
    std::fs::write(world.folder.path().join("titles.graphql"), query).expect("the query");
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let streams = TITLED.replace("GRAPH", &world.graph_url());
    std::fs::write(world.pipeline(), format!("{text}{streams}")).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    let in_folder = |name: &str| world.folder.path().join(name).to_str().expect("a path").to_owned();
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (seen, lacking, filled) = (in_folder("seen.yaml"), in_folder("lacking.yaml"), in_folder("filled.yaml"));
    let mut command = world.command(&["test", &pipeline, "--record", &seen, "--stream", "titled", "--count", "2"]);
    let recording = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
    // Until it has seen two of them.
    while !recording.is_finished() {
        world.execute("UPDATE movie SET title = title || '!' WHERE id = 1").await;
        world.execute("UPDATE movie SET title = title || '?' WHERE id = 2").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let recorded = recording.await.expect("it ended");
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    let (code, said, error) = world.run(&["test", &pipeline, &seen]).await;
    let written = std::fs::read_to_string(&seen).expect("cases");
    assert!(code == 0 && said.contains("2 passed"), "{said}{error}{written}");
    assert!(written.contains("catalog:") && written.contains("\"known\":"), "{written}");
    std::fs::write(&lacking, UNANSWERED).expect("a case");
    let (code, said, error) = world.run(&["test", &pipeline, &lacking, "--record", &filled]).await;
    assert!(code == 0 && said.contains("1 recorded"), "{said}{error}");
    let (code, said, error) = world.run(&["test", &pipeline, &filled]).await;
    let written = std::fs::read_to_string(&filled).expect("cases");
    assert!(code == 0 && said.contains("1 passed") && written.contains("\"found\":{\"3\":"), "{said}{error}{written}");
    world.assert_converged().await;
}
