//! Random changes of a source, whose events arrive late, while a table is listed, waited for, killed and begun anew: whoever has waited for a
//! position sees no value that is older, and in the end the table is as the source is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value as Json;
use tributary_dsl::plan::Keep;
use tributary_processor::{Answer, Enricher as _};

use crate::support::{Bench, Followed, Source, emptied, event};

const IDS: i64 = 12;

type Row = Option<(u64, String)>;
type Record = (Option<String>, Option<String>);

/// What became of each row, and which events are still to be published.
struct World {
    source: Arc<Source>,
    sequence: u64,
    /// By id: from which change on a row was so.
    past: BTreeMap<i64, Vec<(u64, Row)>>,
    late: VecDeque<(u64, Record)>,
    published: u64,
    dice: fastrand::Rng,
}

impl World {
    fn set(&mut self, id: i64, row: Row, record: Option<Record>) {
        let mut rows = self.source.rows.lock().unwrap();
        match &row {
            Some(row) => drop(rows.insert(id, row.clone())),
            None => drop(rows.remove(&id)),
        }
        self.past.entry(id).or_default().push((self.sequence, row));
        self.late.extend(record.map(|record| (self.sequence, record)));
    }

    fn change(&mut self) {
        self.sequence += 1;
        let (n, id) = (self.sequence, self.dice.i64(1..=IDS));
        let now = self.source.rows.lock().unwrap().get(&id).cloned();
        let Some((_, text)) = now else {
            let text = format!("t{n}");
            self.set(id, Some((n, text.clone())), Some(event('c', id, n, Some(&text))));
            return;
        };
        match self.dice.u32(0..100) {
            0..40 => self.set(id, Some((n, text)), Some(event('u', id, n, None))),
            40..70 => {
                let text = format!("t{n}");
                self.set(id, Some((n, text.clone())), Some(event('u', id, n, Some(&text))));
            }
            70..90 => self.set(id, None, Some(event('d', id, n, None))),
            90..97 => {
                // Another key, with a text that is not sent.
                let free = (1..=IDS).find(|id| !self.source.rows.lock().unwrap().contains_key(id));
                let Some(free) = free else { return };
                self.set(id, None, Some(event('d', id, n, None)));
                self.sequence += 1;
                let n = self.sequence;
                self.set(free, Some((n, text)), Some(event('c', free, n, None)));
            }
            _ => {
                (1..=IDS).for_each(|id| self.set(id, None, None));
                self.late.push_back((n, emptied(n)));
            }
        }
    }

    async fn publish(&mut self, bench: &Bench, most: usize) {
        let count = self.dice.usize(0..=most).min(self.late.len());
        let now: Vec<(u64, Record)> = self.late.drain(..count).collect();
        if let Some((last, _)) = now.last() {
            let records: Vec<Record> = now.iter().map(|(_, record)| record.clone()).collect();
            bench.events(&records).await;
            self.published = *last;
        }
    }

    /// Whether what a table has is as it was after some change, or newer, in each value.
    fn is_not_older(&self, id: i64, found: Option<&Json>, than: u64) -> bool {
        let past = self.past.get(&id).map_or(&[][..], Vec::as_slice);
        // The state at that change, and all after it.
        let first = past.iter().rposition(|(n, _)| *n <= than);
        let states: Vec<&Row> = past[first.unwrap_or(0)..].iter().map(|(_, row)| row).collect();
        let was_absent = first.is_none() || states.iter().any(|row| row.is_none());
        match found {
            None => was_absent,
            Some(row) => {
                let has = |of: &dyn Fn(&(u64, String)) -> bool| states.iter().any(|row| row.as_ref().is_some_and(of));
                has(&|(n, _)| row["n"] == *n) && has(&|(_, text)| row["text"] == *text)
            }
        }
    }
}

async fn all(table: &Followed) -> Option<Vec<Option<Json>>> {
    let ids: Vec<String> = (1..=IDS).map(|id| id.to_string()).collect();
    let answers = table.ask(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await.ok()?;
    let row = |answer| match answer {
        Answer::Found(row) => Some(serde_json::from_slice(&row).unwrap()),
        _ => None,
    };
    Some(answers.into_iter().map(row).collect())
}

/// Whether a table has passed a position, while its listing goes on.
async fn passed(table: &Followed, source: &Source, position: Option<u64>) -> bool {
    let listing = async {
        loop {
            source.permits.add_permits(1);
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    let passed = tokio::select! {
        passed = table.table.has_passed(position) => passed.is_ok(),
        () = listing => false,
    };
    source.hold();
    passed
}

async fn run(seed: u64, keep: Keep) {
    let bench = Bench::new().await;
    let source = Source::new([]);
    let dice = fastrand::Rng::with_seed(seed);
    let (past, late) = (BTreeMap::new(), VecDeque::new());
    let mut world = World { source: source.clone(), sequence: 0, past, late, published: 0, dice };
    for _ in 0..20 {
        world.change();
    }
    source.hold();
    let mut table = bench.of_source(&source, keep);
    let mut seen = 0;
    for _ in 0..200 {
        match world.dice.u32(0..100) {
            0..45 => world.change(),
            45..72 => world.publish(&bench, 6).await,
            72..84 => {
                let position = world.published;
                if passed(&table, &source, (position > 0).then_some(position)).await
                    && let Some(rows) = all(&table).await
                {
                    seen += 1;
                    for (id, row) in (1..).zip(&rows) {
                        assert!(
                            world.is_not_older(id, row.as_ref(), position),
                            "seed {seed}: {id} is {row:?} at {position}: {:?}",
                            world.past.get(&id)
                        );
                    }
                }
            }
            84..86 => table.table.list_anew("somebody doubts").unwrap(),
            86..89 => {
                table.kill().await;
                table = bench.of_source(&source, keep);
            }
            _ => {
                let before = source.pages.load(Ordering::SeqCst);
                source.permits.add_permits(world.dice.usize(1..3));
                for _ in 0..50 {
                    if source.pages.load(Ordering::SeqCst) > before {
                        break;
                    }
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    while !world.late.is_empty() {
        world.publish(&bench, 10).await;
    }
    let rows = loop {
        if passed(&table, &source, None).await
            && let Some(rows) = all(&table).await
        {
            break rows;
        }
        tokio::task::yield_now().await;
    };
    let rows_of_source = source.rows.lock().unwrap().clone();
    let expected =
        (1..=IDS).map(|id| rows_of_source.get(&id).map(|(n, text)| serde_json::json!({ "n": n, "text": text })));
    assert_eq!(rows, expected.collect::<Vec<_>>(), "seed {seed}");
    assert!(seen > 0, "seed {seed}: nobody looked");
}

#[tokio::test]
async fn no_value_is_older_than_the_position_that_was_waited_for_in_memory() {
    for seed in 0..12 {
        run(seed, Keep::Memory).await;
    }
}

#[tokio::test]
async fn no_value_is_older_than_the_position_that_was_waited_for_on_disk() {
    for seed in 100..108 {
        run(seed, Keep::Disk).await;
    }
}
