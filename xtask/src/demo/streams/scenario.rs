//! `x demo --streams --once`: budgets change while `tributary` is killed and started again, then the proof that every receiver has every
//! rise: topic and files once, the webhook at least once and in order, table and index the last of each movie.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_postgres::Client;

use super::event::{ByMovie, Changes, Raised};
use super::{Site, found};
use crate::answers;
use crate::demo::scenario::{alive, patient};

/// Statements in all; after which of them `tributary` is killed, and started again.
const STATEMENTS: u64 = 400;
const KILLED_AFTER: u64 = 220;
const STARTED_AFTER: u64 = 260;
/// Between two statements.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the last event may take to come everywhere; afterwards what is there is compared.
const ARRIVAL: Duration = Duration::from_secs(25);
const LOOK: Duration = Duration::from_millis(100);

/// Runs it. Success only if nothing differs.
pub(super) async fn run(site: &mut Site) -> Result<ExitCode> {
    let (client, connection) = tokio_postgres::connect(&site.demo.database_url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    until_captured(&client, site).await?;
    println!("\n— budgets rise and fall, in {STATEMENTS} transactions");
    let began = Instant::now();
    let mut changes = Changes::new(&client).await?;
    for number in 1..=STATEMENTS {
        changes.next(&client).await?;
        if number == KILLED_AFTER {
            println!("— kill -9");
            site.process.kill().await.context("killing tributary")?;
        }
        if number == STARTED_AFTER {
            println!("— started again");
            site.start()?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    println!("— the last change was made; waiting until it is everywhere");
    let expected = changes.expected();
    let last = last(&expected);
    let indexed = until_arrived(site, &client, &expected, &last).await?;
    let seconds = began.elapsed().as_secs_f64();
    site.stop().await?;

    let mut differences = Vec::new();
    compare("the topic", &expected, &found::topic(&site.data().join("log"), "movies.raised").await?, &mut differences);
    let told = found::told(&site.outside.arrived())?;
    compare("the webhook", &expected, &told.events, &mut differences);
    differences.extend(told.unequal.iter().map(|id| format!("the webhook: {id} came with another body")));
    let unsigned = site.outside.unsigned();
    if unsigned > 0 {
        differences.push(format!("the webhook: the signatures of {unsigned} requests were wrong"));
    }
    let (filed, files) = found::files(&site.files())?;
    compare("the files", &expected, &filed, &mut differences);
    compare("the table derived.raised", &last, &found::table(&client).await?, &mut differences);
    compare("the index raised", &last, &indexed, &mut differences);
    drop(client);
    driving.await?.context("closing the connection")?;

    println!("\ntopic, webhook, files, table and index compared with the changes, field by field, in both directions");
    for difference in differences.iter().take(20) {
        println!("  {difference}");
    }
    println!(
        "differences={} events={} webhook_duplicates={} movies={} files={files} kills=1 seconds={seconds:.1}",
        differences.len(),
        expected.values().map(Vec::len).sum::<usize>(),
        told.duplicates,
        expected.len(),
    );
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until changes are captured: none that comes later is missed.
pub(super) async fn until_captured(client: &Client, site: &mut Site) -> Result<()> {
    const SQL: &str =
        "SELECT count(*) FROM pg_replication_slots WHERE active AND confirmed_flush_lsn >= pg_current_wal_lsn()";
    let started = Instant::now();
    loop {
        let captured: i64 = client.query_one(SQL, &[]).await.context("looking at the slot")?.try_get(0)?;
        if captured > 0 && answers::address_of(&site.data(), super::PIPELINE).is_some() {
            return Ok(());
        }
        alive(&mut site.process)?;
        patient(started, "changes are captured")?;
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until everything has come everywhere, or long enough; answers what the index holds, which its process alone can say.
async fn until_arrived(
    site: &mut Site,
    client: &Client,
    expected: &ByMovie,
    last: &BTreeMap<i64, Raised>,
) -> Result<BTreeMap<i64, Raised>> {
    let started = Instant::now();
    loop {
        alive(&mut site.process)?;
        let indexed = match answers::address_of(&site.data(), super::PIPELINE) {
            // A process that just started may not answer yet.
            Some(address) => found::index(&address).await.unwrap_or_default(),
            None => BTreeMap::new(),
        };
        // The topic is written first, and cannot be read while the process has the log.
        let complete = indexed == *last
            && found::table(client).await? == *last
            && found::told(&site.outside.arrived())?.events == *expected
            && found::files(&site.files())?.0 == *expected;
        if complete || started.elapsed() > ARRIVAL {
            return Ok(indexed);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The last event of each movie.
fn last(events: &ByMovie) -> BTreeMap<i64, Raised> {
    events.iter().filter_map(|(id, events)| Some((*id, events.last()?.clone()))).collect()
}

/// Notes movies of which a receiver holds something else.
fn compare<T: PartialEq + Debug>(
    place: &str,
    expected: &BTreeMap<i64, T>,
    found: &BTreeMap<i64, T>,
    differences: &mut Vec<String>,
) {
    for (id, events) in expected {
        match found.get(id) {
            Some(other) if other == events => {}
            Some(other) => differences.push(format!("{place}: movie {id}: expected {events:?}, found {other:?}")),
            None => differences.push(format!("{place}: movie {id}: nothing is there, expected {events:?}")),
        }
    }
    let unknown = found.iter().filter(|(id, _)| !expected.contains_key(id));
    differences.extend(unknown.map(|(id, other)| format!("{place}: movie {id}: nothing is expected, found {other:?}")));
}
