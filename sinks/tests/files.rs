//! Files of a folder: what is in them, and what is there after crashes and handovers.

mod duckdb;
mod s3;
mod turns;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tributary_dsl::plan::{FileFormat, FilesPlace, FilesPlan};
use tributary_event::{ErrorClass, Op};
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Files;
use tributary_transport::TopicId;

use crate::support::{event, place};

fn sink(folder: &Path, format: FileFormat) -> Files {
    let place = FilesPlace::Folder(folder.join("new/lake"));
    let plan = FilesPlan { place, format, size: 1 << 20, every: Duration::from_secs(60) };
    Files::new(&plan, "shipped", "lake").expect("a folder")
}

async fn commit(sink: &Files, from: Option<u64>, to: u64, events: &[OutEvent]) -> Committed {
    let place = place(0);
    sink.commit(&Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events }).await.expect("an answer")
}

fn partition(folder: &TempDir) -> PathBuf {
    folder.path().join("new/lake/films.orders/0")
}

/// The names of files that others read, in order.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(partition(folder)).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names
}

fn lines(path: &Path) -> Vec<Json> {
    let text = fs::read_to_string(path).expect("a file");
    assert!(text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// What was deleted and made again begins with lower offsets, and has files of its own beside those of before.
#[tokio::test]
async fn files_of_a_topic_that_was_made_anew_are_told_from_those_of_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(folder.path(), FileFormat::JsonLines);
    let place = place(0);
    let commit = async |from, to, events: &[OutEvent]| {
        sink.commit(&Entry { place: &place, from, to, events }).await.expect("an answer")
    };
    let [old, new] = [(); 2].map(|()| Some(TopicId::new()));
    let of = |next, topic| Mark { next, topic };
    // As a version made them that knew no identities.
    assert_eq!(commit(None, Mark::at(2), &[event(1)]).await, Committed::Done);
    assert_eq!(commit(Some(Mark::at(2)), of(4, old), &[event(3)]).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(of(4, old))));
    // Of the same topic, or one of which nothing is known, it does not go back.
    for to in [of(0, old), Mark::at(0)] {
        assert_eq!(commit(Some(of(4, old)), to, &[]).await, Committed::Fenced);
    }
    assert_eq!(commit(Some(of(4, old)), of(0, new), &[]).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(of(0, new))));
    assert_eq!(commit(Some(of(0, new)), of(2, new), &[event(5)]).await, Committed::Done);
    // Events at one offset of both, done again.
    for topic in [new, old] {
        assert_eq!(sink.redo(&place, Some(of(2, new)), of(1, topic), &[event(6)]).await, Ok(Committed::Done));
    }
    // The file is the entry, also where a crash came before the mark was written.
    fs::write(partition(&folder).join(".next"), format!("0 {} anew\n", new.expect("a topic"))).expect("written");
    assert_eq!(sink.next(&place).await, Ok(Some(of(2, new))));
    let new = new.expect("a topic");
    let [zero, two, four] = [0, 2, 4].map(|offset| format!("{offset:020}"));
    let mut expected = vec![
        format!("{zero}-{two}.jsonl"),
        format!("{two}-{four}.jsonl"),
        format!("{zero}-{two}-{new}.jsonl"),
        format!("again-{:020}-{new}.jsonl", 1),
        format!("again-{:020}-{}.jsonl", 1, old.expect("a topic")),
    ];
    expected.sort();
    assert_eq!(names(&folder), expected);
}

#[tokio::test]
async fn ranges_follow_one_another_and_hold_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(folder.path(), FileFormat::JsonLines);
    assert_eq!((sink.most().1, sink.linger()), (1 << 20, Duration::from_secs(60)));
    assert_eq!(sink.next(&place(0)).await, Ok(None));
    let odd = OutEvent {
        content: Some("{\"a\":\r\n 0.12345678901234567890}".into()),
        key: Some("no json".into()),
        committed_us: None,
        ..event(3)
    };
    let bytes = OutEvent { content: None, key: Some((&b"\xff"[..]).into()), op: Op::Delete, ..event(4) };
    assert_eq!(commit(&sink, None, 5, &[event(1), odd]).await, Committed::Done);
    assert_eq!(commit(&sink, Some(5), 9, &[]).await, Committed::Done);
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(9))));
    assert_eq!(commit(&sink, Some(9), 11, &[bytes]).await, Committed::Done);
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(11))));
    assert_eq!(sink.next(&place(1)).await, Ok(None));
    let [first, second] =
        ["00000000000000000000-00000000000000000005.jsonl", "00000000000000000009-00000000000000000011.jsonl"];
    assert_eq!(names(&folder), [first, second]);
    let line = |id: &str, op, sequence, time: Json, key: Json, data: Json| {
        json!({ "id": id, "source": "/films/main", "type": "orders.shipped", "op": op, "sequence": sequence, "time": time,
                "key": key, "data": data })
    };
    let time = json!("2021-02-25T15:02:10.250000Z");
    let found = lines(&partition(&folder).join(first));
    assert_eq!(found[0], line("1", "u", 1, time.clone(), json!({ "id": 1 }), json!({ "id": 1, "status": "shipped" })));
    assert_eq!(found[1], line("3", "u", 3, json!(null), json!("no json"), json!({ "a": 0.123_456_789_012_345_68 })));
    assert!(fs::read_to_string(partition(&folder).join(first)).expect("a file").contains("0.12345678901234567890"));
    assert_eq!(lines(&partition(&folder).join(second)), [line("4", "d", 4, time, json!("/w=="), json!(null))]);
}

#[tokio::test]
async fn of_two_owners_one_is_fenced() {
    let folder = tempfile::tempdir().expect("a folder");
    let [old, new] = [(); 2].map(|()| sink(folder.path(), FileFormat::JsonLines));
    assert_eq!(commit(&old, None, 2, &[event(1), event(2)]).await, Committed::Done);
    // The same beginning, and another end.
    assert_eq!(commit(&new, None, 1, &[event(1)]).await, Committed::Fenced);
    assert_eq!(commit(&new, None, 2, &[event(1), event(2)]).await, Committed::Fenced);
    assert_eq!(commit(&new, Some(1), 3, &[event(2), event(3)]).await, Committed::Fenced);
    assert_eq!(commit(&new, Some(2), 3, &[event(3)]).await, Committed::Done);
    assert_eq!(commit(&old, Some(2), 4, &[event(3), event(4)]).await, Committed::Fenced);
    assert_eq!(commit(&old, Some(2), 4, &[]).await, Committed::Fenced);
    assert_eq!(names(&folder).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn owners_that_write_at_the_same_time_write_each_event_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let owners = (0..4u64).map(|seed| {
        let sink = sink(folder.path(), FileFormat::JsonLines);
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut from, place) = (None, place(0));
            let (mut done, mut other) = (0, 0);
            while from < Some(100) {
                let begin = from.unwrap_or(0);
                let to = (begin + random.u64(1..5)).min(100);
                let events: Vec<OutEvent> = (begin..to).map(event).collect();
                // While another one writes, the mark is not known, which is said and passes.
                match sink
                    .commit(&Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events: &events })
                    .await
                {
                    Ok(Committed::Done) => (from, done) = (Some(to), done + 1),
                    Ok(Committed::Fenced) => {
                        other += 1;
                        if let Ok(next) = sink.next(&place).await {
                            from = next.map(|mark| mark.next);
                        }
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
                }
            }
            (done, other)
        })
    });
    let counts = futures::future::join_all(owners).await.into_iter().map(|count| count.expect("joined"));
    let (done, fenced) = counts.fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    let names = names(&folder);
    assert!(done == names.len() && fenced > 0, "{done} {fenced} {names:?}");
    let found = names.iter().flat_map(|name| lines(&partition(&folder).join(name)));
    let found: Vec<u64> = found.map(|line| line["sequence"].as_u64().expect("a sequence")).collect();
    assert_eq!(found, (0..100).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_crash_leaves_nothing_that_counts_or_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(folder.path(), FileFormat::JsonLines);
    assert_eq!(commit(&sink, None, 1, &[event(1)]).await, Committed::Done);
    let at = partition(&folder);
    let unfinished = at.join(".unfinished-00000000000000000001-00000000000000000007.jsonl");
    fs::write(&unfinished, "{\"half").expect("written");
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(1))));
    assert_eq!(commit(&sink, Some(1), 2, &[event(2)]).await, Committed::Done);
    assert!(!unfinished.exists());
    // The file has its name, and the mark beside it has not moved yet.
    fs::write(at.join(".next"), "1\n").expect("written");
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(2))));
    assert_eq!(commit(&sink, Some(1), 3, &[event(2), event(3)]).await, Committed::Fenced);
    assert_eq!(commit(&sink, Some(2), 3, &[event(3)]).await, Committed::Done);
    assert_eq!(names(&folder).len(), 3);
    // Files that were read are moved away.
    for name in names(&folder) {
        fs::remove_file(at.join(name)).expect("removed");
    }
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(3))));
    fs::write(at.join(".next"), "").expect("written");
    let error = sink.next(&place(0)).await.expect_err("damaged");
    assert!(error.class == ErrorClass::Fatal && error.message.contains(".next"), "{error}");
}

#[tokio::test]
async fn a_folder_that_another_process_writes_to_is_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(folder.path(), FileFormat::JsonLines);
    assert_eq!(commit(&sink, None, 1, &[event(1)]).await, Committed::Done);
    let lock = File::open(partition(&folder).join(".lock")).expect("a file");
    lock.lock().expect("locked");
    assert_eq!(sink.next(&place(0)).await.expect_err("locked").class, ErrorClass::Transient);
    let (place, events) = (place(0), [event(2)]);
    let entry = Entry { place: &place, from: Some(Mark::at(1)), to: Mark::at(2), events: &events };
    assert_eq!(sink.commit(&entry).await.expect_err("locked").class, ErrorClass::Transient);
    drop(lock);
    assert_eq!(sink.commit(&entry).await, Ok(Committed::Done));
}

#[tokio::test]
async fn what_stands_in_the_way_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("new"), "a file").expect("written");
    let sink = sink(folder.path(), FileFormat::JsonLines);
    let (place, events) = (place(0), [event(1)]);
    let error = sink
        .commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events })
        .await
        .expect_err("in the way");
    assert!(error.class == ErrorClass::Fatal && error.message.contains("in the way"), "{error}");
}

/// Rows of a Parquet file, each value as its type prints it.
fn rows(path: &Path) -> Vec<String> {
    let reader = SerializedFileReader::new(File::open(path).expect("a file")).expect("a Parquet file");
    let rows = reader.get_row_iter(None).expect("rows");
    let row = |row: parquet::record::Row| {
        let columns = row.get_column_iter().map(|(name, field)| format!("{name}={field}"));
        columns.collect::<Vec<_>>().join(" ")
    };
    rows.map(|r| row(r.expect("a row"))).collect()
}

#[tokio::test]
async fn a_parquet_file_has_a_column_for_each_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = sink(folder.path(), FileFormat::Parquet);
    let of = |n, content: &'static str| OutEvent { content: Some(content.into()), ..event(n) };
    let events = [
        of(
            1,
            r#"{"b":true,"d":1.5,"exact":1.234567890123456789,"i":9007199254740993,"l":[1, 2],"mixed":1,"n":null,"t":"ü\n"}"#,
        ),
        of(2, r#"{"b":false,"d":2,"exact":1,"i":-1,"l":{"a":1},"mixed":"one","t":""}"#),
        OutEvent { content: None, committed_us: None, op: Op::Delete, ..event(3) },
    ];
    assert_eq!(commit(&sink, None, 3, &events).await, Committed::Done);
    assert_eq!(names(&folder), ["00000000000000000000-00000000000000000003.parquet"]);
    let path = partition(&folder).join(&names(&folder)[0]);
    let own = |n, op, time| format!("_id=\"{n}\" _source=\"/films/main\" _op=\"{op}\" _seq={n} _time={time}");
    let time = "2021-02-25 15:02:10.250000 +00:00";
    assert_eq!(
        rows(&path),
        [
            format!(
                "{} b=true d=1.5 exact=\"1.234567890123456789\" i=9007199254740993 l=\"[1, 2]\" mixed=\"1\" n=null t=\"ü\n\"",
                own(1, "u", time)
            ),
            format!(
                "{} b=false d=2.0 exact=\"1\" i=-1 l=\"{{\"a\":1}}\" mixed=\"\"one\"\" n=null t=\"\"",
                own(2, "u", time)
            ),
            format!("{} b=null d=null exact=null i=null l=null mixed=null n=null t=null", own(3, "d", "null")),
        ]
    );
    let (event, why) = match commit(&sink, Some(3), 5, &[of(4, "{}"), of(5, r#"{"_seq":1}"#)]).await {
        Committed::Rejected { event, why } => (event, why),
        other => panic!("{other:?}"),
    };
    assert!(event == 1 && why.contains("_seq"), "{event}: {why}");
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(3))));
    assert_eq!(commit(&sink, Some(3), 5, &[of(4, "{}"), of(5, "[1]")]).await, Committed::Done);
    let path = partition(&folder).join(&names(&folder)[1]);
    assert_eq!(
        rows(&path),
        [format!("{} _data=null", own(4, "u", time)), format!("{} _data=\"[1]\"", own(5, "u", time))]
    );
}
