//! What a running pipeline of the demo's movies answers over HTTP, and where it listens.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value as Json;

/// Where the process with this data folder listens, once it does.
pub(crate) fn address(data: &Path) -> Option<String> {
    let record = std::fs::read(data.join("movie-search.running.json")).ok()?;
    let record: Json = serde_json::from_slice(&record).ok()?;
    record["address"].as_str().map(str::to_owned)
}

/// Every document that a search finds, by id.
pub(crate) async fn documents(address: &str) -> Result<BTreeMap<String, Json>> {
    let found = get(address, "/indexes/movies/search?q=*&size=10000").await?;
    let hits = found["hits"].as_array().context("the search answered no hits")?;
    Ok(hits.iter().map(|h| (h["id"].as_str().unwrap_or_default().to_owned(), h["document"].clone())).collect())
}

/// Whether nothing is listed, resolved or built.
pub(crate) async fn is_quiet(address: &str) -> bool {
    let status = get(address, "/indexes/movies").await.unwrap_or_default();
    status["listing"] == false && status["builds_waiting"] == 0 && status["changes_waiting"] == 0
}

/// The JSON at a path.
pub(crate) async fn get(address: &str, path: &str) -> Result<Json> {
    Ok(reqwest::get(format!("http://{address}{path}")).await?.json().await?)
}
