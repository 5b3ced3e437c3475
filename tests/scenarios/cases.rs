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
    assert!(code == Some(0) && said.contains("9 passed"), "{said}");
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

/// A component that answers each event with the list of its arguments.
#[cfg(feature = "wasm")]
const PAIR: &str = r#"(component
    (core module $module
        (memory (export "memory") 16)
        (global $next (mut i32) (i32.const 64))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.add (global.get $next) (local.get 3)))
            (local.get $at))
        (func (export "call") (param $ptr i32) (param $len i32) (result i32)
            (i32.store (i32.const 16) (i32.const 0))
            (i32.store (i32.const 20) (local.get $ptr))
            (i32.store (i32.const 24) (local.get $len))
            (i32.const 16)))
    (core instance $instance (instantiate $module))
    (func (export "call") (param "events" (list u8)) (result (result (list u8) (error string)))
        (canon lift (core func $instance "call") (memory (core memory $instance "memory"))
            (realloc (core func $instance "cabi_realloc")))))"#;

/// A component is a step and a part of programs; what it is given and answers is held to what the pipeline says of it.
#[cfg(feature = "wasm")]
#[test]
fn components_are_called() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    write("pair.wasm", &wat::parse_str(PAIR).expect("a component"));
    let text = r#"
pipeline: paired
sources:
  studio: { postgres: { url: "postgres://nobody@localhost:1/none", tables: [public.movie] } }
functions:
  pair: { wasm: pair.wasm, takes: { id: integer, title: string? }, answers: array }
streams:
  paired:
    from: public.movie
    steps:
      - call: { function: pair, with: [.after.id, .after.title], into: .pair }
      - transform: '. = { "pair": .pair, "again": pair!(to_int!(.pair[0]) + 1) }'
    on_error: dead_letter
    to: [{ topic: { name: paired, key: "to_string!(.pair[0])" } }]
"#;
    let pipeline = write("pipeline.yaml", text.as_bytes());
    let case = |after: &str, expected: &str| {
        let event = format!("events: [{{ public.movie: {{ op: c, after: {after} }} }}]");
        write("cases.yaml", format!("- case: pairs\n  stream: paired\n  {event}\n  expect: {expected}\n").as_bytes())
    };
    let expected = "{ events: [{ pair: [7, Alien], again: [8, null] }] }";
    let (code, said) = test(&[], &[pipeline.clone(), case("{ id: 7, title: Alien }", expected)]);
    assert!(code == Some(0) && said.contains("1 passed"), "{said}");
    // Another type is the event's fault.
    let (code, said) = test(&[], &[pipeline.clone(), case("{ id: seven, title: Alien }", expected)]);
    assert!(code == Some(1) && said.contains("`id` takes integer, and was given string"), "{said}");
    let lies = write("lies.yaml", text.replace("answers: array", "answers: object").as_bytes());
    let (code, said) = test(&[], &[lies, case("{ id: 7, title: Alien }", expected)]);
    assert!(code == Some(1) && said.contains("it answered [integer, string], and `answers` says object"), "{said}");
    let none = write("none.yaml", text.replace("pair.wasm", "pipeline.yaml").as_bytes());
    let (code, said) = test(&[], &[none, case("{ id: 7 }", expected)]);
    assert!(code != Some(0) && said.contains("`pipeline.yaml` cannot be called: it is no component"), "{said}");
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
