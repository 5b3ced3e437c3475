//! Guards of the rooms: which room may know which, what only one room may know, and how long a file may be.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

/// Rooms that each room may depend on.
fn arrows() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let rooms: [(&str, &[&str]); 11] = [
        ("tributary-event", &[]),
        ("tributary-expression", &["tributary-event"]),
        ("tributary-macros", &[]),
        ("tributary-dsl", &["tributary-event", "tributary-expression"]),
        ("tributary-transport", &["tributary-event"]),
        ("tributary-connector", &["tributary-event", "tributary-transport"]),
        ("tributary-processor", &["tributary-event", "tributary-expression", "tributary-dsl", "tributary-transport"]),
        ("tributary-indexer", &["tributary-event", "tributary-dsl", "tributary-transport", "tributary-processor"]),
        ("tributary-services", &["tributary-event", "tributary-expression", "tributary-dsl", "tributary-processor"]),
        (
            "tributary-sinks",
            &["tributary-event", "tributary-expression", "tributary-dsl", "tributary-transport", "tributary-processor"],
        ),
        // What a user has.
        ("deals", &["tributary"]),
    ];
    rooms.into_iter().map(|(room, may)| (room, may.iter().copied().collect())).collect()
}

/// Outside systems' clients, and the one package that may know each (tests and the demo aside).
const ONLY: [(&str, &[&str]); 16] = [
    ("rdkafka", &["tributary-transport"]),
    // The embedded log; and tables that streams look into and that are kept on disk, in a file of their own: a transport has topics, no rows.
    ("redb", &["tributary-transport", "tributary-processor"]),
    ("elasticsearch", &["tributary-indexer"]),
    ("governor", &["tributary-services"]),
    ("moka", &["tributary-services"]),
    // Tables of streams; sessions on servers that the stack and the demo have started.
    ("mysql_async", &["tributary-connector", "tributary-sinks", "tributary-stack", "movie-graph"]),
    // Files of streams in buckets.
    ("object_store", &["tributary-sinks"]),
    ("tantivy", &["tributary-indexer"]),
    ("tokio-postgres", &["tributary-connector", "tributary-sinks", "movie-graph", "tributary-stack", "xtask"]),
    ("parquet", &["tributary-sinks", "xtask"]),
    ("postgres-protocol", &["tributary-connector"]),
    ("async-graphql-parser", &["tributary-dsl"]),
    ("saphyr-parser", &["tributary-dsl"]),
    ("syn", &["tributary-macros"]),
    ("vrl", &["tributary-expression"]),
    ("wasmtime", &["tributary-wasm"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn packages() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    let normal = |p: &Json| {
        let all = p["dependencies"].as_array().expect("dependencies").iter();
        all.filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect()
    };
    packages.iter().map(|p| (text(&p["name"]), normal(p))).collect()
}

/// Packages with their features, as cargo resolves them.
fn resolved(arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--offline", "--prefix", "none", "-f", "{p} [{f}]"])
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// Else the first tests after the demo would compile most of the dependencies again.
#[test]
fn the_tests_are_compiled_with_the_features_of_the_demo() {
    let (demo, tests) = (resolved(&["-e", "no-dev"]), resolved(&[]));
    let other: Vec<&String> = demo.difference(&tests).collect();
    assert!(other.is_empty(), "name the features that the tests add in xtask/Cargo.toml: {other:#?}");
}

#[test]
fn rooms_know_only_the_rooms_they_may() {
    let arrows = arrows();
    let ours: BTreeSet<&str> = arrows.keys().copied().collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in packages() {
        let Some(may) = arrows.get(package.as_str()) else { continue };
        let rooms = dependencies.iter().filter(|d| ours.contains(d.as_str()) || *d == "tributary");
        wrong.extend(rooms.filter(|d| !may.contains(d.as_str())).map(|d| format!("{package} → {d}")));
    }
    assert!(wrong.is_empty(), "arrows that must not be: {wrong:?}");
}

#[test]
fn one_room_per_outside_system() {
    let mut wrong = Vec::new();
    for (package, dependencies) in packages() {
        for (client, may) in ONLY {
            if dependencies.contains(client) && !may.contains(&package.as_str()) {
                wrong.push(format!("{package} knows {client}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn event_expression_and_dsl_do_no_input_and_output() {
    for (package, dependencies) in packages() {
        if ["tributary-event", "tributary-expression", "tributary-dsl"].contains(&package.as_str()) {
            for runtime in ["tokio", "reqwest", "futures"] {
                assert!(!dependencies.contains(runtime), "{package} knows {runtime}");
            }
        }
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() && !name.starts_with('.') && !["target", "tests", "data"].contains(&name.as_str()) {
            sources(&entry, found);
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
            found.push(entry);
        }
    }
}

/// A rule on a metric that nobody writes never fires.
#[test]
fn alert_rules_name_metrics_that_there_are() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).expect("readable")).collect();
    for name in ["docs/alerts.yaml", "docs/monitoring.md"] {
        let told = std::fs::read_to_string(root().join(name)).expect("readable");
        let words = told.split(|c: char| !c.is_ascii_lowercase() && c != '_');
        let metrics: BTreeSet<&str> = words.filter(|word| word.starts_with("tributary_")).collect();
        assert!(metrics.len() >= 10, "{name}: {metrics:?}");
        let unknown: Vec<&&str> = metrics.iter().filter(|metric| !text.contains(&format!("\"{metric}\""))).collect();
        assert!(unknown.is_empty(), "{name} names metrics that nobody writes: {unknown:?}");
    }
}

#[test]
fn files_are_short_and_say_what_they_own() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 50, "the walk found the sources");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        // Tests at the end of a file do not count.
        let lines = text.lines().take_while(|l| *l != "#[cfg(test)]").count();
        if lines > 500 {
            wrong.push(format!("{} has {lines} lines; split it by responsibility", file.display()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{} does not open with what it owns (//!)", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
