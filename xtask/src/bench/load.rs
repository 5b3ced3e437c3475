//! The load of `x bench index`, and what is observed from outside: changes through SQL, answers through search.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;
use tokio_postgres::Client;

use crate::answers;

/// A running pipeline as its users see it.
pub(super) struct Observed {
    pub(super) http: reqwest::Client,
    pub(super) address: String,
}

const PATIENCE: Duration = Duration::from_secs(900);
/// Between two searches for a change: each is a search that the pipeline has to answer beside its work.
const POLL: Duration = Duration::from_millis(10);
/// Marks that one search asks for.
const MARKS: usize = 32;

impl Observed {
    /// How many documents a search finds now; none while the index is being created or opened.
    pub(super) async fn count(&self, query: &str) -> Result<u64> {
        Ok(self.search(query, 1).await?["total"].as_u64().unwrap_or(0))
    }

    async fn search(&self, query: &str, size: usize) -> Result<Json> {
        let url = format!("http://{}/indexes/movies/search", self.address);
        let response = self.http.get(url).query(&[("q", query), ("size", &size.to_string())]).send().await?;
        if !response.status().is_success() {
            return Ok(Json::Null);
        }
        let answer: Json = response.json().await?;
        answer["total"].as_u64().with_context(|| format!("the search for {query} answered {answer}"))?;
        Ok(answer)
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

    /// Asks for every document to be built again.
    pub(super) async fn reindex(&self) -> Result<()> {
        let url = format!("http://{}/indexes/movies/reindex", self.address);
        self.http.post(url).send().await?.error_for_status().context("asking for a reindex")?;
        Ok(())
    }

    /// Documents that the process has built for changes so far, whatever became of them: one for each change that it answers.
    pub(super) async fn built(&self) -> Result<u64> {
        self.total("tributary_documents_total").await
    }

    /// Documents that it has asked the graph for so far.
    pub(super) async fn fetched(&self) -> Result<u64> {
        self.total("tributary_graph_documents_total").await
    }

    async fn total(&self, metric: &str) -> Result<u64> {
        let text = self.http.get(format!("http://{}/metrics", self.address)).send().await?.text().await?;
        let lines = text.lines().filter(|line| line.starts_with(metric));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Waits until nothing is listed, resolved or built, twice in a row.
    pub(super) async fn at_rest(&self) -> Result<()> {
        let mut quiet = 0;
        let begin = Instant::now();
        while quiet < 3 {
            if begin.elapsed() > PATIENCE {
                bail!("the pipeline does not come to rest");
            }
            quiet = if answers::unrest(&self.address).await.is_none() { quiet + 1 } else { 0 };
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
    let (written, marks) = tokio::sync::mpsc::unbounded_channel();
    let change = make(client, what, (changes, per_second), move |mark| drop(written.send((mark, Instant::now()))));
    let ((), mut found) = tokio::try_join!(Box::pin(change), Box::pin(observed.found(what.field(), marks)))?;
    found.sort_by(f64::total_cmp);
    Ok(found)
}

/// Makes so many changes at an even rate, and tells the mark of each.
pub(super) async fn make(
    client: &Client,
    what: What,
    (changes, per_second): (u32, u32),
    mut tell: impl FnMut(String),
) -> Result<()> {
    let directors = client.query_one("SELECT count(DISTINCT talent_id) FROM movie_talent", &[]).await?.get::<_, i64>(0);
    let begin = Instant::now();
    for i in 0..changes {
        let due = begin + Duration::from_secs(1) * i / per_second;
        tokio::time::sleep_until(due.into()).await;
        let mark = format!("mark{:x}", rand_mark(i));
        client.batch_execute(&what.statement(i64::from(i), directors, &mark)).await?;
        tell(mark);
    }
    Ok(())
}

impl What {
    fn field(self) -> &'static str {
        match self {
            What::Root => "title",
            What::Leaf => "talents.name",
        }
    }

    /// The `i`th change. No row is changed twice within the hundreds of changes that can be on their way.
    fn statement(self, i: i64, directors: i64, mark: &str) -> String {
        match self {
            What::Root => format!("UPDATE movie SET title = '{mark}' WHERE id = {}", 1 + (i * 37) % 3200),
            What::Leaf => format!(
                "UPDATE talent SET name = '{mark}' WHERE id = (SELECT DISTINCT talent_id FROM movie_talent ORDER BY talent_id OFFSET {} LIMIT 1)",
                (i * 13) % directors
            ),
        }
    }
}

impl Observed {
    /// Milliseconds from the writing of each mark until a search finds it. One search asks for several marks, so that the
    /// searching is a small and even load.
    async fn found(
        &self,
        field: &str,
        mut written: tokio::sync::mpsc::UnboundedReceiver<(String, Instant)>,
    ) -> Result<Vec<f64>> {
        let (mut found, mut waiting, mut open) = (Vec::new(), Vec::<(String, Instant)>::new(), true);
        while open || !waiting.is_empty() {
            loop {
                match written.try_recv() {
                    Ok(mark) => waiting.push(mark),
                    Err(error) => {
                        open = error == tokio::sync::mpsc::error::TryRecvError::Empty;
                        break;
                    }
                }
            }
            let mut missing = Vec::new();
            for marks in waiting.chunks(MARKS) {
                let query: Vec<String> = marks.iter().map(|(mark, _)| format!("{field}:{mark}")).collect();
                let answer = self.search(&query.join(" OR "), 1000).await?.to_string();
                for (mark, at) in marks {
                    if answer.contains(mark) {
                        found.push(at.elapsed().as_secs_f64() * 1e3);
                    } else if at.elapsed() > Duration::from_secs(60) {
                        bail!("{field}:{mark} was never found");
                    } else {
                        missing.push((mark.clone(), *at));
                    }
                }
            }
            waiting = missing;
            tokio::time::sleep(POLL).await;
        }
        Ok(found)
    }
}

/// A number that no earlier call gave.
fn rand_mark(i: u32) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64);
    now.wrapping_mul(1009).wrapping_add(u64::from(i))
}
