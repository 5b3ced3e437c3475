//! What a test asks a running pipeline over HTTP.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// GET of a running pipeline; `None` if it does not answer or refuses.
pub async fn get(address: &str, path: &str) -> Option<Json> {
    let response = reqwest::get(format!("http://{address}{path}")).await.ok()?;
    response.json().await.ok()
}

/// GET of a running pipeline, as text.
pub async fn text(address: &str, path: &str) -> Option<String> {
    let response = reqwest::get(format!("http://{address}{path}")).await.ok()?;
    response.text().await.ok()
}

/// Every document of an index that search can see.
pub async fn documents(address: &str, index: &str) -> Option<BTreeMap<String, Json>> {
    let found = get(address, &format!("/indexes/{index}/search?q=*&size=10000")).await?;
    let hits = found["hits"].as_array()?;
    Some(hits.iter().map(|h| (h["id"].as_str().unwrap_or_default().to_owned(), h["document"].clone())).collect())
}

/// Whether nothing is listed, resolved or built any more.
pub async fn is_quiet(address: &str, index: &str) -> bool {
    let Some(status) = get(address, &format!("/indexes/{index}")).await else { return false };
    status["listing"] == false && status["builds_waiting"] == 0 && status["changes_waiting"] == 0
}

/// All dead letters of a running pipeline, which may take a moment to answer.
pub async fn letters(address: &str) -> Vec<Json> {
    for _ in 0..300 {
        if let Some(Json::Array(letters)) = get(address, "/dead-letters").await {
            return letters;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{address} does not tell its dead letters");
}
