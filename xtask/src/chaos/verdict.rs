//! Whether the index is what the database says, document by document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use movie_graph::truth;
use serde_json::Value as Json;
use tokio_postgres::NoTls;

use super::site::Site;
use crate::answers;

/// How long the pipeline may take until it is at rest, after the last harm.
const PATIENCE: Duration = Duration::from_secs(300);
/// Comparisons in a row that must find nothing: what is written late would be seen.
const COMPARISONS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    documents: usize,
    missing: usize,
    extra: usize,
    stale: usize,
    /// The first differences.
    examples: Vec<String>,
    /// What the processes that could be asked were still at.
    unrest: Vec<String>,
}

impl Verdict {
    /// Waits until the index is right and stays so, or [`PATIENCE`] is over: the last comparison, and how long it took.
    pub(super) async fn at_rest(site: &Site) -> Result<(Self, Duration)> {
        let begin = Instant::now();
        let mut right = 0;
        let mut first = None;
        loop {
            let verdict = Self::now(site).await;
            match &verdict {
                Ok(verdict) if verdict.is_right() && verdict.is_at_rest() => {
                    right += 1;
                    first = first.or_else(|| Some(begin.elapsed()));
                }
                _ => (right, first) = (0, None),
            }
            if right == COMPARISONS || begin.elapsed() > PATIENCE {
                return Ok((verdict?, first.unwrap_or_else(|| begin.elapsed())));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn now(site: &Site) -> Result<Self> {
        let addresses = site.addresses();
        let mut unrest = Vec::new();
        for address in &addresses {
            unrest.extend(answers::unrest(address).await);
        }
        let address = addresses.first().context("no process can be asked")?;
        let (client, connection) = tokio_postgres::connect(&site.database_url(), NoTls).await?;
        tokio::spawn(connection);
        let expected = truth::documents(&client).await?;
        Ok(Self { unrest, ..Self::of(&expected, &answers::documents(address).await?) })
    }

    fn of(expected: &BTreeMap<String, Json>, actual: &BTreeMap<String, Json>) -> Self {
        let ids = |documents: &BTreeMap<String, Json>| documents.keys().cloned().collect::<BTreeSet<String>>();
        let (must, is) = (ids(expected), ids(actual));
        let differs = |id: &String| expected.get(id) != actual.get(id) && !differences(id, expected, actual).is_empty();
        let examples = truth::differences(expected, actual);
        Self {
            documents: actual.len(),
            missing: must.difference(&is).count(),
            extra: is.difference(&must).count(),
            stale: must.intersection(&is).filter(|id| differs(id)).count(),
            examples: examples.into_iter().take(20).collect(),
            unrest: Vec::new(),
        }
    }

    /// Whether nothing differs.
    pub(super) fn is_right(&self) -> bool {
        (self.missing, self.extra, self.stale) == (0, 0, 0)
    }

    /// Whether nobody was at work any more.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unrest.is_empty()
    }

    /// The first differences, and what was still done.
    pub(super) fn examples(&self) -> impl Iterator<Item = &String> {
        self.examples.iter().chain(&self.unrest)
    }
}

/// The differences of one document.
fn differences(id: &String, expected: &BTreeMap<String, Json>, actual: &BTreeMap<String, Json>) -> Vec<String> {
    let one = |documents: &BTreeMap<String, Json>| {
        documents.get(id).map(|document| (id.clone(), document.clone())).into_iter().collect()
    };
    truth::differences(&one(expected), &one(actual))
}

impl fmt::Display for Verdict {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { documents, missing, extra, stale, .. } = self;
        let at_rest = self.is_at_rest();
        write!(to, "documents={documents} missing={missing} extra={extra} stale={stale} at_rest={at_rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_are_counted_not_fields() {
        let documents = |of: &[(&str, Json)]| of.iter().map(|(id, json)| ((*id).to_owned(), json.clone())).collect();
        let expected = documents(&[("1", json!({ "a": 1, "b": 2 })), ("2", json!({})), ("3", json!({ "a": 1 }))]);
        let actual = documents(&[("1", json!({ "a": 2, "b": 3 })), ("3", json!({ "a": 1.0 })), ("4", json!({}))]);
        let verdict = Verdict::of(&expected, &actual);
        assert_eq!((verdict.missing, verdict.extra, verdict.stale), (1, 1, 1));
        assert_eq!(verdict.examples.len(), 4);
        assert!(Verdict::of(&expected, &expected).is_right() && !verdict.is_right());
    }
}
