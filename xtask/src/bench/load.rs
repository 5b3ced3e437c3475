//! The load of `x bench index`, and what is observed from outside: changes through SQL, answers through search.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tokio_postgres::Client;

/// A running pipeline as its users see it.
pub(super) struct Observed {
    pub(super) http: reqwest::Client,
    pub(super) address: String,
}

const PATIENCE: Duration = Duration::from_secs(900);
/// Between two searches for a change: each is a search that the pipeline has to answer beside its work.
const POLL: Duration = Duration::from_millis(10);

impl Observed {
    /// How many documents a search finds now; none while the index is being created or opened.
    pub(super) async fn count(&self, query: &str) -> Result<u64> {
        let url = format!("http://{}/indexes/movies/search", self.address);
        let response = self.http.get(url).query(&[("q", query), ("size", "1")]).send().await?;
        if !response.status().is_success() {
            return Ok(0);
        }
        let answer: Json = response.json().await?;
        answer["total"].as_u64().with_context(|| format!("the search for {query} answered {answer}"))
    }

    /// Seconds until a search finds so many documents.
    pub(super) async fn until(&self, query: &str, count: u64) -> Result<f64> {
        let begin = Instant::now();
        while self.count(query).await? != count {
            if begin.elapsed() > PATIENCE {
                bail!("{query} never found {count} documents (but {})", self.count(query).await?);
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Waits until nothing is listed, resolved or built, twice in a row.
    pub(super) async fn at_rest(&self) -> Result<()> {
        let mut quiet = 0;
        let begin = Instant::now();
        while quiet < 3 {
            if begin.elapsed() > PATIENCE {
                bail!("the pipeline does not come to rest");
            }
            let url = format!("http://{}/indexes/movies", self.address);
            let status: Json = self.http.get(url).send().await?.json().await?;
            let rest = status["listing"] == false && status["builds_waiting"] == 0 && status["changes_waiting"] == 0;
            quiet = if rest { quiet + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A column of a movie.
    Root,
    /// The name of a director.
    Leaf,
}

/// Makes `changes` changes at an even rate, each with a mark of its own, and observes by search when each is found:
/// milliseconds from the statement's return to the first answer that has it, sorted.
pub(super) async fn latencies(
    observed: &Observed,
    client: &Client,
    what: What,
    changes: u32,
    per_second: u32,
) -> Result<Vec<f64>> {
    let mut tasks = tokio::task::JoinSet::new();
    let begin = Instant::now();
    for i in 0..changes {
        let due = begin + Duration::from_secs(1) * i / per_second;
        tokio::time::sleep_until(due.into()).await;
        let mark = format!("mark{:x}", rand_mark(i));
        let (statement, query) = match what {
            What::Root => {
                let id = 1 + (i * 37) % 3200;
                (format!("UPDATE movie SET title = '{mark}' WHERE id = {id}"), format!("title:{mark}"))
            }
            What::Leaf => (
                format!(
                    "UPDATE talent SET name = '{mark}' WHERE id = (SELECT talent_id FROM movie_talent ORDER BY talent_id OFFSET {} LIMIT 1)",
                    (i * 13) % 900
                ),
                format!("talents.name:{mark}"),
            ),
        };
        client.batch_execute(&statement).await?;
        let written = Instant::now();
        let (http, address) = (observed.http.clone(), observed.address.clone());
        tasks.spawn(async move {
            let observed = Observed { http, address };
            while observed.count(&query).await? == 0 {
                if written.elapsed() > Duration::from_secs(60) {
                    bail!("{query} was never found");
                }
                tokio::time::sleep(POLL).await;
            }
            Ok(written.elapsed().as_secs_f64() * 1e3)
        });
    }
    let mut found = Vec::new();
    while let Some(latency) = tasks.join_next().await {
        found.push(latency??);
    }
    found.sort_by(f64::total_cmp);
    Ok(found)
}

/// A number that no earlier call gave.
fn rand_mark(i: u32) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    now.wrapping_mul(1009).wrapping_add(u64::from(i))
}
