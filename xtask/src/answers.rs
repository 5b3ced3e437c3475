//! What a running pipeline of the demo's movies answers over HTTP, and where it listens.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value as Json;

/// Where the process with this data folder listens, once it does.
pub(crate) fn address(data: &Path) -> Option<String> {
    address_of(data, "movie-search")
}

/// The same of another pipeline.
pub(crate) fn address_of(data: &Path, pipeline: &str) -> Option<String> {
    let record = std::fs::read(data.join(format!("{pipeline}.running.json"))).ok()?;
    let record: Json = serde_json::from_slice(&record).ok()?;
    record["address"].as_str().map(str::to_owned)
}

/// Every document that a search finds, by id.
pub(crate) async fn documents(address: &str) -> Result<BTreeMap<String, Json>> {
    documents_of(address, "movies").await
}

/// The same of another index.
pub(crate) async fn documents_of(address: &str, index: &str) -> Result<BTreeMap<String, Json>> {
    let found = get(address, &format!("/indexes/{index}/search?q=*&size=10000")).await?;
    let hits = found["hits"].as_array().context("the search answered no hits")?;
    Ok(hits.iter().map(|h| (h["id"].as_str().unwrap_or_default().to_owned(), h["document"].clone())).collect())
}

/// What a process is still at: none if nothing is listed, resolved or built.
pub(crate) async fn unrest(address: &str) -> Option<String> {
    let status = match get(address, "/indexes/movies").await {
        Ok(status) => status,
        Err(error) => return Some(format!("{address} does not answer: {error:#}")),
    };
    let [listing, builds, changes] = ["listing", "builds_waiting", "changes_waiting"].map(|name| &status[name]);
    if *listing == false && *builds == 0 && *changes == 0 {
        return None;
    }
    let health = get(address, "/health").await.unwrap_or_default();
    let parts = health["parts"].as_object().into_iter().flatten();
    let down: Vec<String> =
        parts.filter(|(_, part)| part["up"] != true).map(|(name, part)| format!("{name}: {}", part["why"])).collect();
    Some(format!(
        "{address}: listing={listing} builds_waiting={builds} changes_waiting={changes} not up: [{}]",
        down.join("; ")
    ))
}

/// The JSON at a path.
pub(crate) async fn get(address: &str, path: &str) -> Result<Json> {
    Ok(reqwest::get(format!("http://{address}{path}")).await?.json().await?)
}
