//! Files in a bucket of a server that speaks S3: the same promises as those of a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value as Json;
use tributary_dsl::plan::{BucketPlan, FileFormat, FilesPlace, FilesPlan, S3Plan, Secret};
use tributary_event::ErrorClass;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Files;
use tributary_stack::S3;
use tributary_transport::TopicId;

use super::turns::Turns;
use super::{lines, rows};
use crate::support::{event, place};

/// A server with a bucket.
struct Lake {
    server: S3,
    bucket: PathBuf,
}

impl Lake {
    async fn start() -> Self {
        let server = S3::start().await.expect("an object store starts");
        let bucket = server.bucket("lake").expect("a bucket");
        Self { server, bucket }
    }

    fn plan(&self, format: FileFormat) -> FilesPlan {
        let s3 = S3Plan {
            endpoint: Some(self.server.endpoint()),
            region: Some("eu-central-1".into()),
            access_key: Some((Secret::new(S3::ACCESS_KEY), Secret::new(S3::SECRET_KEY))),
        };
        let place = FilesPlace::Bucket(BucketPlan { url: "s3://lake/new/orders".into(), s3 });
        FilesPlan { place, format, size: 1 << 20, every: Duration::from_secs(60) }
    }

    fn sink(&self, format: FileFormat) -> Files {
        Files::new(&self.plan(format), "shipped", "lake").expect("a store")
    }

    fn partition(&self) -> PathBuf {
        self.bucket.join("new/orders/films.orders/0")
    }

    /// The names of all objects of the partition but the mark, in order.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut open = vec![self.partition()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten() {
                let entry = entry.expect("an entry");
                let name = entry.file_name().into_string().expect("a name");
                match entry.file_type().expect("a kind").is_dir() {
                    true => open.push(entry.path()),
                    false if name == ".next" => {}
                    false => names.push(name),
                }
            }
        }
        names.sort();
        names
    }
}

async fn commit(sink: &Files, from: Option<Mark>, to: Mark, events: &[OutEvent]) -> Committed {
    let place = place(0);
    sink.commit(&Entry { place: &place, from, to, events }).await.expect("an answer")
}

/// An object like another one: the server keeps what it knows of objects in attributes of their files.
fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("--preserve=all").args([from, to]).status();
    assert!(copied.expect("cp runs").success());
}

/// The numbers of the events of all files, in the files' order.
fn events(lake: &Lake) -> Vec<u64> {
    // What a process staged that was cut off is there until another one takes the partition over.
    let names = lake.names().into_iter().filter(|name| name.ends_with(".jsonl"));
    let found = names.flat_map(|name| lines(&lake.partition().join(name)));
    found.map(|line: Json| line["sequence"].as_u64().expect("a sequence")).collect()
}

#[tokio::test]
async fn a_bucket_has_the_files_that_a_folder_would_have() {
    let lake = Lake::start().await;
    let sink = lake.sink(FileFormat::JsonLines);
    let place = place(0);
    assert_eq!(sink.next(&place).await, Ok(None));
    assert_eq!(commit(&sink, None, Mark::at(5), &[event(1), event(3)]).await, Committed::Done);
    assert_eq!(commit(&sink, Some(Mark::at(5)), Mark::at(9), &[]).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(Mark::at(9))));
    for (from, to) in [(None, 2), (Some(5), 7), (Some(9), 8)] {
        assert_eq!(commit(&sink, from.map(Mark::at), Mark::at(to), &[event(9)]).await, Committed::Fenced);
    }
    // What was set aside and is done again is there once.
    for _ in 0..2 {
        assert_eq!(sink.redo(&place, Some(Mark::at(9)), Mark::at(2), &[event(2)]).await, Ok(Committed::Done));
    }
    assert_eq!(sink.redo(&place, Some(Mark::at(5)), Mark::at(4), &[event(4)]).await, Ok(Committed::Fenced));
    let [one, new] = [(); 2].map(|()| TopicId::new());
    let of = |next, topic| Mark { next, topic: Some(topic) };
    assert_eq!(commit(&sink, Some(Mark::at(9)), of(10, one), &[event(10)]).await, Committed::Done);
    assert_eq!(commit(&sink, Some(of(10, one)), of(0, new), &[]).await, Committed::Done);
    assert_eq!(commit(&sink, Some(of(0, new)), of(2, new), &[event(11)]).await, Committed::Done);
    let range = |from: u64, to: u64| format!("{from:020}-{to:020}");
    let mut expected = vec![
        format!("{}.jsonl", range(0, 5)),
        format!("{}.jsonl", range(9, 10)),
        format!("{}-{new}.jsonl", range(0, 2)),
        format!("again-{:020}.jsonl", 2),
    ];
    expected.sort();
    assert_eq!(lake.names(), expected);
    assert_eq!(lines(&lake.partition().join(format!("{}.jsonl", range(0, 5)))).len(), 2);
    // Files that were read are moved away; where the mark is lost too, nothing tells of them.
    assert_eq!(sink.next(&place).await, Ok(Some(of(2, new))));
    fs::write(lake.partition().join(".next"), "x\n").expect("written");
    let error = sink.next(&place).await.expect_err("damaged");
    assert!(error.class == ErrorClass::Fatal && error.message.contains(".next"), "{error}");
    fs::remove_file(lake.partition().join(".next")).expect("removed");
    assert_eq!(sink.next(&place).await, Ok(Some(Mark::at(10))));
    let parquet = lake.sink(FileFormat::Parquet);
    assert_eq!(commit(&parquet, Some(Mark::at(10)), Mark::at(12), &[event(12)]).await, Committed::Done);
    let found = rows(&lake.partition().join(format!("{}.parquet", range(10, 12))));
    assert!(found.len() == 1 && found[0].contains("_seq=12"), "{found:?}");
}

/// What an end at any moment of a commit leaves behind is done by whoever comes next, or removed.
#[tokio::test]
async fn s3_has_all_of_an_entry_or_nothing_that_counts_after_a_crash() {
    let lake = Lake::start().await;
    let [old, new] = [(); 2].map(|()| lake.sink(FileFormat::JsonLines));
    assert_eq!(commit(&old, None, Mark::at(1), &[event(1)]).await, Committed::Done);
    let (partition, [first, second]) = (lake.partition(), [0u64, 1].map(|n| format!("{n:020}-{:020}.jsonl", n + 1)));
    // Ended behind the first step: the content was staged for a mark that never came.
    fs::create_dir_all(partition.join(".staged")).expect("made");
    copy(&partition.join(&first), &partition.join(".staged/2-gone"));
    // One that is of a later mark may still be named by a process that lives.
    copy(&partition.join(&first), &partition.join(".staged/9-lives"));
    assert_eq!(new.next(&place(0)).await, Ok(Some(Mark::at(1))));
    assert_eq!(commit(&new, Some(Mark::at(1)), Mark::at(2), &[event(2)]).await, Committed::Done);
    assert_eq!(lake.names(), [first.clone(), second.clone(), "9-lives".into()]);
    // Ended behind the second step: the mark names a file that is still where it was staged.
    let third = format!("{:020}-{:020}.jsonl", 2, 3);
    fs::rename(partition.join(".staged/9-lives"), partition.join(".staged/3-mine")).expect("moved");
    fs::write(partition.join(".next"), format!("3\n3 mine {third}\n")).expect("written");
    assert_eq!(new.next(&place(0)).await, Ok(Some(Mark::at(3))));
    assert_eq!(lake.names(), [first.clone(), second.clone(), third.clone()]);
    // Ended behind the third: nothing is left to do, and what was moved away does not come back.
    fs::remove_file(partition.join(&third)).expect("removed");
    assert_eq!(new.next(&place(0)).await, Ok(Some(Mark::at(3))));
    assert_eq!(commit(&old, Some(Mark::at(3)), Mark::at(4), &[event(4)]).await, Committed::Done);
    assert_eq!(lake.names(), [first, second, format!("{:020}-{:020}.jsonl", 3, 4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn owners_that_write_to_s3_at_the_same_time_write_each_event_once() {
    let lake = Lake::start().await;
    let turns = Turns::before(lake.server.endpoint()).await;
    let owners = (0..4u64).map(|seed| {
        let mut plan = lake.plan(FileFormat::JsonLines);
        if let FilesPlace::Bucket(bucket) = &mut plan.place {
            bucket.s3.endpoint = Some(turns.url.clone());
        }
        let sink = Files::new(&plan, "shipped", "lake").expect("a store");
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut from, place) = (None, place(0));
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            while from < Some(60) {
                let begin = from.unwrap_or(0);
                let to = (begin + random.u64(1..5)).min(60);
                let events: Vec<OutEvent> = (begin..to).map(event).collect();
                let entry = Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events: &events };
                // A process that is killed in the middle of it is one that does not come to its end.
                let patience = Duration::from_millis(if random.u8(..4) == 0 { random.u64(1..60) } else { 60_000 });
                let ended = tokio::time::timeout(patience, sink.commit(&entry)).await;
                match ended {
                    Ok(Ok(Committed::Done)) => {
                        from = Some(to);
                        *counts.entry("done").or_default() += 1;
                        continue;
                    }
                    Ok(Ok(Committed::Fenced)) => *counts.entry("fenced").or_default() += 1,
                    Ok(Ok(other)) => panic!("{other:?}"),
                    Ok(Err(error)) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
                    Err(_) => *counts.entry("cut").or_default() += 1,
                }
                if let Ok(next) = sink.next(&place).await {
                    from = next.map(|mark| mark.next);
                }
            }
            counts
        })
    });
    let counts: Vec<_> = futures::future::join_all(owners).await.into_iter().map(|c| c.expect("joined")).collect();
    assert_eq!(events(&lake), (0..60).collect::<Vec<u64>>(), "{counts:?} {:?}", lake.names());
    assert!(counts.iter().any(|counts| counts.contains_key("fenced")), "{counts:?}");
}

#[tokio::test]
async fn s3_that_is_away_is_waited_for_and_one_that_refuses_is_told() {
    let lake = Lake::start().await;
    let sink = lake.sink(FileFormat::JsonLines);
    assert_eq!(commit(&sink, None, Mark::at(1), &[event(1)]).await, Committed::Done);
    lake.server.kill().await.expect("killed");
    let (place, events) = (place(0), [event(2)]);
    let entry = Entry { place: &place, from: Some(Mark::at(1)), to: Mark::at(2), events: &events };
    assert_eq!(sink.commit(&entry).await.expect_err("away").class, ErrorClass::Transient);
    lake.server.start_again().await.expect("started");
    assert_eq!(sink.commit(&entry).await, Ok(Committed::Done));
    let with = |change: fn(&mut BucketPlan)| {
        let mut plan = lake.plan(FileFormat::JsonLines);
        if let FilesPlace::Bucket(bucket) = &mut plan.place {
            change(bucket);
        }
        Files::new(&plan, "shipped", "lake").expect("a store")
    };
    let stranger = with(|bucket| bucket.s3.access_key = Some((Secret::new(S3::ACCESS_KEY), Secret::new("wrong"))));
    let nowhere = with(|bucket| bucket.url = "s3://nowhere/orders".into());
    for (sink, word) in [(stranger, "key"), (nowhere, "bucket")] {
        let error = sink.commit(&Entry { from: None, ..entry }).await.expect_err("refused");
        assert!(error.class == ErrorClass::Fatal && error.message.contains(word), "{error}");
        assert!(!error.message.contains("wrong"), "{error}");
    }
    assert!(Path::new(&lake.partition()).is_dir());
}
