//! `x demo --once`: changes of every kind, then the proof that the index equals the database.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use movie_graph::truth;
use serde_json::Value as Json;
use tokio::process::Child;

use super::Demo;
use crate::answers;

const PATIENCE: Duration = Duration::from_secs(180);

/// What happens, in order: what a person would call it, and the statements.
const STEPS: [(&str, &str); 10] = [
    ("a movie is renamed", "UPDATE movie SET title = 'The Land Girls, Restored' WHERE id = 1"),
    ("a distributor of hundreds of movies is renamed", "UPDATE distributor SET name = name || ' Pictures' WHERE id =
        (SELECT distributor_id FROM movie WHERE distributor_id IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1)"),
    ("a new director joins two movies", "INSERT INTO talent VALUES (900001, 'Ada Lovelace');
        INSERT INTO movie_talent (movie_id, talent_id) VALUES (2, 900001), (3, 900001)"),
    ("one of the two is moved to another movie", "UPDATE movie_talent SET movie_id = 4 WHERE movie_id = 3 AND talent_id = 900001"),
    ("screenings are announced", "INSERT INTO venue VALUES (1, 'Odeon', 'Leeds'), (2, 'Rex', 'Paris');
        INSERT INTO screening SELECT i, i, 1 + i % 2, '2026-01-01T20:00:00Z' FROM generate_series(1, 40) i"),
    ("a screening moves to another movie, another is cancelled", "UPDATE screening SET movie_id = 50 WHERE id = 7; DELETE FROM screening WHERE id = 8"),
    ("a venue, two edges away, is renamed", "UPDATE venue SET name = 'Odeon Luxe' WHERE id = 1"),
    ("movies are deleted, and one comes back", "DELETE FROM movie WHERE id BETWEEN 30 AND 35; INSERT INTO movie (id, title) VALUES (33, 'Back again')"),
    ("a change that no document shows", "UPDATE movie_talent SET role = 'director' WHERE movie_id = 1000"),
    ("one transaction touches everything", "BEGIN; UPDATE genre SET name = upper(name); UPDATE talent SET name = name || ' Jr.' WHERE id % 100 = 0;
        UPDATE movie SET imdb_votes = imdb_votes + 1 WHERE id % 50 = 0; TRUNCATE screening; DELETE FROM movie WHERE id % 500 = 0; COMMIT"),
];

/// Runs the steps and compares. Success only if nothing differs.
pub(super) async fn run(demo: &Demo, pipeline: &Path, process: &mut Child) -> Result<ExitCode> {
    let started = Instant::now();
    let address = until_built(&demo.folder, process).await?;
    let built = started.elapsed();
    let (client, connection) = tokio_postgres::connect(&demo.database_url, tokio_postgres::NoTls).await?;
    let driving = tokio::spawn(connection);
    for (what, statements) in STEPS {
        println!("\n— {what}");
        client.batch_execute(statements).await.with_context(|| format!("{what}: {statements}"))?;
        at_rest(&address, process).await?;
    }
    let expected = truth::documents(&client).await?;
    drop(client);
    driving.await?.context("closing the connection")?;
    let times = Times { started, built, steps: STEPS.len() };
    compare(&expected, &address, pipeline, process, times).await
}

/// How long a scenario took.
pub(super) struct Times {
    pub(super) started: Instant,
    pub(super) built: Duration,
    pub(super) steps: usize,
}

/// Compares the index with what it must hold, and prints it. Success only if nothing differs.
pub(super) async fn compare(
    expected: &BTreeMap<String, Json>,
    address: &str,
    pipeline: &Path,
    process: &mut Child,
    Times { started, built, steps }: Times,
) -> Result<ExitCode> {
    let (mut differences, mut indexed);
    let compared = Instant::now();
    // At rest twice over: a step's last event may have been on its way when the pipeline was asked.
    loop {
        at_rest(address, process).await?;
        let documents = answers::documents(address).await?;
        (differences, indexed) = (truth::differences(expected, &documents), documents.len());
        if differences.is_empty() || compared.elapsed() > Duration::from_secs(15) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    println!("\n{} compared with the database, field by field, in both directions", pipeline.display());
    for difference in differences.iter().take(20) {
        println!("  {difference}");
    }
    println!(
        "documents={} differences={} first_build_s={:.1} steps={} total_s={:.1}",
        indexed,
        differences.len(),
        built.as_secs_f64(),
        steps,
        started.elapsed().as_secs_f64()
    );
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until every root's document is searchable; answers where the pipeline listens.
pub(super) async fn until_built(folder: &Path, process: &mut Child) -> Result<String> {
    let data = folder.join("data");
    let started = Instant::now();
    let address = loop {
        alive(process)?;
        if let Some(address) = answers::address(&data) {
            break address;
        }
        patient(started, "tributary listens")?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    at_rest(&address, process).await?;
    Ok(address)
}

/// Waits until nothing is listed, resolved or built, for two looks in a row.
pub(super) async fn at_rest(address: &str, process: &mut Child) -> Result<()> {
    let started = Instant::now();
    let mut looks = 0;
    while looks < 2 {
        tokio::time::sleep(Duration::from_millis(600)).await;
        alive(process)?;
        looks = if answers::unrest(address).await.is_none() { looks + 1 } else { 0 };
        patient(started, "the pipeline is at rest")?;
    }
    Ok(())
}

pub(super) fn patient(started: Instant, what: &str) -> Result<()> {
    if started.elapsed() > PATIENCE {
        bail!("waited {PATIENCE:?} until {what}; its log is above");
    }
    Ok(())
}

pub(super) fn alive(process: &mut Child) -> Result<()> {
    if let Some(status) = process.try_wait().context("looking at tributary")? {
        bail!("tributary ended ({status}); its log is above");
    }
    Ok(())
}
