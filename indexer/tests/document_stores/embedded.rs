//! What only the embedded index does: one folder, one writer, surviving a kill and a full disk.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tributary_dsl::plan::StorePlan;
use tributary_event::ErrorClass;
use tributary_indexer::store::{self, DocumentStore, SearchRequest, Verdict};

use super::plans::{self, put, small};
use super::subject::{Subject, lookup, written};

/// Set for a child process: the data folder it works in.
const FOLDER: &str = "TRIBUTARY_TEST_CHILD_FOLDER";
const NAME: &str = "movies";

/// This test binary again, running one of the children below.
fn child(case: &str, folder: &Path, prefix: &str) -> Child {
    let binary = std::env::current_exe().unwrap();
    let case = format!("document_stores::embedded::{case}");
    Command::new("sh")
        .args(["-c", &format!("{prefix} exec \"$0\" \"$@\"")])
        .arg(binary)
        .args([case.as_str(), "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn say(word: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{word}").unwrap();
    out.flush().unwrap();
}

/// Waits until the child says the word. The pipe stays open as long as the answer is kept.
fn wait_for(child: &mut Child, word: &str) -> impl Sized + use<> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.trim() == word), "the child ended without saying {word}");
    lines
}

async fn open(folder: &Path) -> std::sync::Arc<dyn DocumentStore> {
    let store = store::open(&StorePlan::Embedded, NAME, folder).unwrap();
    store.prepare(&plans::movies(NAME, StorePlan::Embedded).selection).await.unwrap();
    store
}

#[tokio::test]
#[ignore = "runs in a child process"]
async fn child_that_writes_until_it_is_killed() {
    let folder = std::env::var(FOLDER).unwrap();
    let store = open(folder.as_ref()).await;
    written(&*store, &(0..500).map(|n| small(&format!("kept-{n}"), 7)).collect::<Vec<_>>()).await;
    store.refresh().await.unwrap();
    say("refreshed");
    for round in 0.. {
        written(&*store, &(0..100).map(|n| small(&format!("{round}-{n}"), 7)).collect::<Vec<_>>()).await;
        if round % 2 == 0 {
            store.refresh().await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_refreshed_survives_a_kill() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut child = child("child_that_writes_until_it_is_killed", &data.path().join(round.to_string()), "");
        let _pipe = wait_for(&mut child, "refreshed");
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open(&data.path().join(round.to_string())).await;
        let kept: Vec<String> = (0..500).map(|n| format!("kept-{n}")).collect();
        assert!(store.heads(&kept).await.unwrap().iter().all(|head| head.as_ref().is_some_and(|h| h.stamp == 7)));
        let verdicts = store.write(&[small("kept-1", 7), small("kept-1", 8)]).await.unwrap();
        assert_eq!(verdicts, [Verdict::Superseded { stored: 7 }, Verdict::Written]);
        store.refresh().await.unwrap();
        assert_eq!(store.get("kept-1").await.unwrap().unwrap().stamp, 8);
    }
}

#[tokio::test]
#[ignore = "runs in a child process"]
async fn child_with_a_full_disk() {
    let folder = std::env::var(FOLDER).unwrap();
    let store = open(folder.as_ref()).await;
    written(&*store, &[small("before", 1)]).await;
    store.refresh().await.unwrap();
    // Words that compress badly: files beyond the limit that the parent set.
    let noise = |n: u64| {
        (0..400u64).map(|i| format!("{:x} ", (n * 1000 + i).wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect::<String>()
    };
    let writes: Vec<_> =
        (0..200).map(|n| put(&format!("m{n}"), 5, json!({ "tagline": noise(n) }), &["Genre:x"])).collect();
    written(&*store, &writes).await;
    for _ in 0..2 {
        let error = store.refresh().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert_eq!(store.probe().await.unwrap_err().class, ErrorClass::Transient);
        assert_eq!(store.count().await.unwrap(), 1, "readers keep the last commit");
        assert_eq!(store.heads(&["m7".to_owned()]).await.unwrap()[0].as_ref().unwrap().stamp, 5);
    }
    let limit = Command::new("prlimit").args(["--pid", &std::process::id().to_string(), "--fsize=unlimited"]).status();
    assert!(limit.unwrap().success());
    store.refresh().await.unwrap();
    store.probe().await.unwrap();
    assert_eq!(lookup(&*store, &["Genre:x".to_owned()]).await.len(), 200);
    drop(store);
    let store = open(folder.as_ref()).await;
    assert_eq!(store.count().await.unwrap(), 201);
    assert_eq!(store.get("m7").await.unwrap().unwrap().content, json!({ "tagline": noise(7) }));
    say("done");
}

#[tokio::test]
async fn a_full_disk_stops_commits_and_loses_nothing() {
    let data = tempfile::tempdir().unwrap();
    // A limit on the size of files stands in for the full disk: writes fail in the same places. 64 blocks of 512 bytes.
    let mut child = child("child_with_a_full_disk", data.path(), "trap '' XFSZ; ulimit -S -f 64;");
    let pipe = wait_for(&mut child, "done");
    assert!(child.wait().unwrap().success());
    drop(pipe);
}

#[tokio::test]
async fn a_second_writer_is_refused_and_readers_are_not() {
    let subject = Subject::embedded();
    let (name, plan) = (&subject.plan.name, &subject.plan);
    let reader = store::open_read_only(&plan.store, name, subject.folder()).unwrap();
    let error = reader.count().await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("there is no index in"), "{error}");
    let writer = subject.prepared().await;
    let error = subject.open().prepare(&plan.selection).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("another process"), "{error}");
    for round in 1..=3 {
        written(&*writer, &[small("a", round), small(&round.to_string(), round)]).await;
        writer.refresh().await.unwrap();
        assert_eq!(reader.count().await.unwrap(), round + 1);
        assert_eq!(reader.get("a").await.unwrap().unwrap().stamp, round);
    }
    let request = SearchRequest { query: "title:movie".to_owned(), from: 0, size: 10 };
    assert_eq!(reader.search(&request).await.unwrap().total, 4);
    assert_eq!(reader.write(&[small("b", 1)]).await.unwrap_err().class, ErrorClass::Fatal);
    drop(writer);
    subject.prepared().await;
}

#[tokio::test]
async fn an_unknown_field_or_analyzer_is_named() {
    let mut subject = Subject::embedded();
    let store = subject.prepared().await;
    let request = SearchRequest { query: "titel:alien".to_owned(), from: 0, size: 10 };
    let error = store.search(&request).await.unwrap_err();
    assert!(
        error.message.contains("there is no field `titel`; there are") && error.message.contains("title"),
        "{error}"
    );
    subject.plan.name = "other".to_owned();
    let klingon = tributary_dsl::plan::LeafType::Text { analyzer: "klingon".to_owned() };
    subject.plan.selection.fields.push(plans::leaf("speech", klingon));
    let error = subject.open().prepare(&subject.plan.selection).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("`klingon`"), "{error}");
    let problem = store::check(&subject.plan).unwrap_err();
    assert!(problem.contains("field `speech`") && problem.contains("`klingon`"), "{problem}");
    subject.plan.selection.fields.pop();
    store::check(&subject.plan).unwrap();
    subject.plan.selection.fields.push(plans::leaf("_kept", tributary_dsl::plan::LeafType::Keyword));
    let problem = store::check(&subject.plan).unwrap_err();
    assert!(problem.contains("`_kept`") && problem.contains("alias"), "{problem}");
}
