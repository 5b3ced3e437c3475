//! `tributary test`: cases by a clock of their own, with services, receivers and sinks that are no servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    let begun = Instant::now();
    let (code, said) = test(&[], &[file("pipeline.yaml"), file("cases.yaml")]);
    assert!(code == Some(0) && said.contains("8 passed"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(600), "{:?}", begun.elapsed());
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
    assert!(said.contains("given:\n        pricing: { found: { 7: {} } }"), "{said}");
    assert!(said.contains("sinks.hook: the stream has no such sink (it has: conductor, files, index, sql, webhook)"), "{said}");
}
