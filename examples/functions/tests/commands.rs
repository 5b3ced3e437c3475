//! The example as its users see it: the command knows its functions and streams, and what attributes and a builder define is what YAML defines.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tributary::definition::{PipelineFile, read};
use tributary::functions::{Argument, Change, Functions, Json, Outcome, Signature};
use tributary_dsl::render_plan;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn run(arguments: &[&str], files: &[PathBuf]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_deals"));
    // What it keeps is kept there.
    let folder = tempfile::tempdir().expect("a folder");
    let output = command.args(arguments).args(files).current_dir(&folder).output().expect("the command runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn its_cases_pass_on_the_engine_that_runs_pipelines() {
    for way in [&["test"][..], &["test", "--crash"]] {
        let (output, said) = run(way, &[file("pipeline.yaml"), file("cases.yaml")]);
        assert!(output.status.success() && said.contains("5 passed"), "{said}");
    }
}

#[test]
fn a_case_that_expects_something_else_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = std::fs::read_to_string(file("cases.yaml")).expect("the cases").replace("score: 7.0", "score: 8.0");
    let wrong = folder.path().join("cases.yaml");
    std::fs::write(&wrong, cases).expect("the cases are written");
    let (output, said) = run(&["test"], &[file("pipeline.yaml"), wrong]);
    assert!(output.status.code() == Some(1) && said.contains("FAIL  a program and a step"), "{said}");
}

#[test]
fn all_commands_know_them() {
    let (output, said) = run(&["plan"], &[file("pipeline.yaml")]);
    assert!(output.status.success(), "{said}");
    for told in [
        "score(price: integer or float, country: string or null) -> float, or a failure",
        "stream signed-deals of deals.deal",
        "only-signed (sets aside what it fails for, and later events of its key):",
        "the event becomes headline(., .movie)",
        ".usd is dollars(.after.price, .after.currency)",
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    let (_, drawn) = run(&["graph"], &[file("pipeline.yaml")]);
    assert!(drawn.contains("large-deals/call-1") && drawn.contains("function dollars"), "{drawn}");
}

#[test]
fn a_mistake_in_rust_is_told_with_its_place_before_anything_begins() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(file("pipeline.yaml")).expect("a pipeline").replace("catalog:", "cinema:");
    let wrong = folder.path().join("pipeline.yaml");
    std::fs::write(&wrong, text).expect("a pipeline is written");
    let (output, said) = run(&["plan"], &[wrong]);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let line = line_of("service = \"catalog\",");
    assert!(said.contains("there is no service `catalog`"), "{said}");
    assert!(said.contains(&format!("--> examples/functions/src/lib.rs:{line}:")), "{said}");
}

fn line_of(text: &str) -> usize {
    let source = std::fs::read_to_string(file("src/lib.rs")).expect("the source");
    1 + source.lines().position(|line| line.contains(text)).expect("it is there")
}

#[tokio::test]
async fn attributes_and_builder_give_the_plan_of_yaml() {
    let of_rust = rendered(file("pipeline.yaml"), deals::functions()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let beside = |name: &str| std::fs::read_to_string(file(name)).expect("a file");
    let text = beside("pipeline.yaml") + STREAMS;
    std::fs::write(folder.path().join("pipeline.yaml"), text).expect("a pipeline is written");
    std::fs::write(folder.path().join("movies.graphql"), beside("movies.graphql")).expect("a query is written");
    // What the streams in Rust bring with them.
    let signature = |name: &str| Signature::new(name).parameter("event", <Change<deals::Deal>>::takes());
    let deal = |name: &str| Signature::new(name).parameter("deal", <Change<deals::Deal>>::takes());
    let signed = deal("signed").answers(bool::answers(), true).each(|_| true.made());
    let headline = deal("headline").parameter("movie", <Json<deals::Movie>>::takes());
    let headline = headline.answers(<Json<deals::Headline>>::answers(), true).each(|_| ().made());
    let map = signature("map_3").answers(<Json<deals::Large>>::answers(), true).each(|_| ().made());
    let functions = Functions::new().function::<deals::score>().function::<deals::dollars>();
    let functions = functions.with(signed).with(headline).with(map);
    assert_eq!(of_rust, rendered(folder.path().join("pipeline.yaml"), functions).await);
}

async fn rendered(path: PathBuf, functions: Functions) -> String {
    let draft = read(&PipelineFile { path, functions: Arc::new(functions) }).await.expect("a pipeline");
    render_plan(&draft.load().await.expect("a plan"))
}

const STREAMS: &str = r#"
  signed-deals:
    from: deals.deal
    ops: [u]
    start: first
    on_error: dead_letter
    steps:
      - changed: [status]
      - filter: signed!(.)
        name: only-signed
      - enrich: { service: catalog, query: movies.graphql, key: .after.movie_id, into: .movie, cache: { ttl: 30s } }
      - call: { function: headline, with: [., .movie] }
    to:
      - topic: { name: deals.signed, key: .id }
  large-deals:
    from: deals.deal
    ops: [c, u]
    start: first
    on_error: dead_letter
    steps:
      - call: { function: dollars, with: [.after.price, .after.currency], into: .usd }
      - filter: .usd > 1000.0
      - call: { function: map_3 }
    to:
      - topic: { name: deals.large, key: .id }
"#;

#[test]
fn functions_can_be_called_as_what_they_are() {
    assert_eq!(deals::score(2.0, Some("NL")), Ok(4.0));
    assert_eq!(deals::dollars(vec![4.0], vec![Some("EUR".to_owned())]), [Ok(5.0)]);
}

#[test]
fn functions_that_will_not_do_are_told_with_their_place() {
    let wrong = Functions::new().function::<deals::score>().function::<deals::score>();
    let line = line!() - 1;
    assert_eq!(
        wrong.problems(),
        [format!(
            "examples/functions/tests/commands.rs:{line}: there are two functions `score`: give one of the two another name"
        )]
    );
}
