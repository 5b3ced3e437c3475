//! Random events, written in random entries by two owners and again from older offsets: the table is what the events say.

use std::collections::BTreeMap;

use tributary_event::Op;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Sql;

use super::database::{Database, on_every_database};
use super::plan;
use crate::support::{place, row, truncate};

on_every_database!(whatever_happens_the_table_is_what_the_events_say);

const COLUMNS: [&str; 3] = ["a", "b", "c"];

type Values = BTreeMap<&'static str, Option<u32>>;

/// An event and what it says.
#[derive(Debug, Clone)]
struct Told {
    event: OutEvent,
    key: u32,
    values: Option<Values>,
}

fn told(random: &mut fastrand::Rng, sequence: u64, partition: u32) -> Told {
    let key = random.u32(0..3) * 2 + partition;
    let text = format!("{{\"id\":{key}}}");
    if random.u32(0..6) == 0 {
        return Told { event: row(sequence, &text, None), key, values: None };
    }
    let mut values = Values::new();
    for name in COLUMNS {
        if random.u32(0..3) > 0 {
            values.insert(name, (random.u32(0..5) > 0).then(|| random.u32(0..100)));
        }
    }
    let columns: Vec<String> =
        values.iter().map(|(n, v)| format!("\"{n}\":{}", v.map_or("null".to_owned(), |v| v.to_string()))).collect();
    Told { event: row(sequence, &text, Some(&format!("{{{}}}", columns.join(",")))), key, values: Some(values) }
}

/// What events say of rows, one after the other: the sequence of each, and its values.
fn fold(events: &[Told], rows: &mut BTreeMap<u32, (u64, Option<Values>)>) {
    for Told { event, key, values } in events {
        let sequence = event.sequence;
        if event.op == Op::Truncate {
            for (seq, values) in rows.values_mut().filter(|(seq, values)| *seq < sequence && values.is_some()) {
                (*seq, *values) = (sequence, None);
            }
            continue;
        }
        let (seq, old) = rows.entry(*key).or_insert((0, None));
        if *seq < sequence {
            *seq = sequence;
            *old = values.as_ref().map(|new| {
                let mut all = old.take().unwrap_or_default();
                all.extend(new.clone());
                all
            });
        }
    }
}

/// A process with its own opinion of where the marks are.
struct Owner {
    sink: Sql,
    marks: [Option<u64>; 2],
}

async fn step(owner: &mut Owner, random: &mut fastrand::Rng, log: &[Vec<Told>; 2]) -> Committed {
    let partition = random.usize(0..2);
    let place = place(partition as u32);
    let from = owner.marks[partition];
    let begin = from.unwrap_or_default() as usize;
    let end = (begin + random.usize(1..8)).min(log[partition].len());
    let events: Vec<OutEvent> = log[partition][begin..end].iter().map(|told| told.event.clone()).collect();
    let entry = Entry { place: &place, from: from.map(Mark::at), to: Mark::at(end as u64), events: &events };
    let committed = owner.sink.commit(&entry).await.expect("an answer");
    owner.marks[partition] = match committed {
        Committed::Done => Some(end as u64),
        _ => owner.sink.next(&place).await.expect("a mark").map(|mark| mark.next),
    };
    committed
}

async fn whatever_happens_the_table_is_what_the_events_say(database: Database) {
    let (mut fenced, mut replays) = (0, 0);
    for seed in 0..12u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        // A truncate that is told after events of before it would be right in no order.
        let truncates = seed % 2 == 1;
        let mut log = [Vec::new(), Vec::new()];
        let mut sequence = 0;
        for _ in 0..60 {
            let partition = random.u32(0..2);
            sequence += random.u64(1..3);
            let late = !truncates && random.u32(0..6) == 0;
            let at = if late { sequence.saturating_sub(random.u64(1..12)).max(1) } else { sequence };
            if truncates && random.u32(0..15) == 0 {
                let all = Told { event: truncate(at), key: 0, values: None };
                log.iter_mut().for_each(|log| log.push(all.clone()));
            } else {
                log[partition as usize].push(told(&mut random, at, partition));
            }
        }
        let name = format!("orders{seed}");
        let plan = plan(&database, &name, &["id"]);
        // Some runs write to a table that wants a value in each row, with an update before the insert.
        let strict = seed % 3 == 0;
        let create = format!(
            "create table orders{seed} (id bigint primary key, a bigint, b bigint, c bigint{})",
            if strict { ", d varchar(9) not null default 'd', _seq bigint, _deleted boolean" } else { "" }
        );
        database.run(&create).await;
        let owner = || Owner {
            sink: Sql::new(&plan, &format!("shipped {seed}"), "warehouse").expect("a sink"),
            marks: [None, None],
        };
        let mut owners = [owner(), owner()];
        while (0..2).any(|p| owners.iter().all(|owner| owner.marks[p] != Some(log[p].len() as u64))) {
            let n = random.usize(0..2);
            let committed = step(&mut owners[n], &mut random, &log).await;
            fenced += usize::from(committed == Committed::Fenced);
            assert!(!matches!(committed, Committed::Rejected { .. }), "{committed:?}");
            if random.u32(0..4) == 0 {
                // Somebody begins anew, under another name: never beyond what the owners have done.
                let other = Sql::new(&plan, &format!("again {seed} {replays}"), "warehouse").expect("a sink");
                let p = random.usize(0..2);
                let place = place(p as u32);
                let done = owners[n].sink.next(&place).await.expect("a mark").map_or(0, |mark| mark.next) as usize;
                let begin = random.usize(0..=done);
                let events: Vec<OutEvent> = log[p][begin..done].iter().map(|told| told.event.clone()).collect();
                let entry = Entry { place: &place, from: None, to: Mark::at(done as u64), events: &events };
                assert_eq!(other.commit(&entry).await, Ok(Committed::Done));
                replays += 1;
            }
        }
        let mut rows = BTreeMap::new();
        if truncates {
            // Truncates are in both partitions, so rows of one are folded apart from those of the other.
            for (log, partition) in log.iter().zip(0..) {
                let mut of = BTreeMap::new();
                fold(log, &mut of);
                rows.extend(of.into_iter().filter(|(key, _)| key % 2 == partition));
            }
        } else {
            log.iter().for_each(|log| fold(log, &mut rows));
        }
        let expected: Vec<String> = rows
            .iter()
            .map(|(key, (sequence, values))| match values {
                None => format!("{key}|deleted"),
                Some(values) => {
                    let value =
                        |name| values.get(name).copied().flatten().map_or("-".to_owned(), |v: u32| v.to_string());
                    format!("{key}|{sequence}|{}", COLUMNS.map(value).join("|"))
                }
            })
            .collect();
        let live =
            format!("select * from (select id, _seq, a, b, c from orders{seed} where _deleted is not true) live");
        let deleted = format!("select id, 'deleted' from orders{seed} where _deleted");
        let mut found = database.rows(&live).await;
        found.extend(database.rows(&deleted).await);
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(found, expected, "seed {seed}: {log:#?}");
    }
    assert!(fenced > 20 && replays > 20, "{fenced} {replays}");
}
