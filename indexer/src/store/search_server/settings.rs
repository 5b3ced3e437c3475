//! The settings of an index that its guarantees rest on.
//!
//! A template, or a person, may have set others than we create an index with. What can be set while the index is open is set
//! back; what cannot be, and makes the index useless, is an error with its remedy.

use elasticsearch::http::Method;
use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::http::Server;
use crate::store::StoreError;

/// When an acknowledged write survives the loss of power. With `async` it may not, although it was refreshed: a refresh writes
/// nothing through to the disk.
const DURABILITY: &str = "index.translog.durability";
/// Of OpenSearch: the index has no primary shard.
const SEARCH_ONLY: &str = "index.blocks.search_only";
/// Of OpenSearch: whether copies repeat the writes of their primary, or copy its segments.
const REPLICATION: &str = "index.replication.type";

/// Looks at the settings of the index that `name` leads to, and sets what must be otherwise.
pub(super) async fn secure(server: &Server, name: &str) -> Result<(), StoreError> {
    let path =
        format!("/{name}/_settings/{DURABILITY},{SEARCH_ONLY},{REPLICATION}?flat_settings=true&include_defaults=true");
    let found = server.expect(Method::Get, &path, None).await?;
    let Some((concrete, index)) = found.as_object().and_then(|indexes| indexes.iter().next()) else {
        return Err(server.error(ErrorClass::Transient, format_args!("the answer to {path} names no index")));
    };
    let setting = |key: &str| {
        let set = [&index["settings"][key], &index["defaults"][key]].into_iter().find(|value| !value.is_null());
        set.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).unwrap_or_default()
    };
    if setting(SEARCH_ONLY) == "true" {
        let message = format_args!(
            "the index `{concrete}` is scaled down to search alone and takes no writes: \
             POST /{concrete}/_scale {{\"search_only\": false}}"
        );
        return Err(server.error(ErrorClass::Fatal, message));
    }
    tracing::debug!(index = name, concrete, replication = setting(REPLICATION), "settings of the index");
    let durability = setting(DURABILITY);
    if durability.is_empty() || durability.eq_ignore_ascii_case("request") {
        return Ok(());
    }
    let wanted = json!({ DURABILITY: "request" });
    let answer = server.answer(Method::Put, &format!("/{concrete}/_settings"), Some(&wanted)).await?;
    if answer.status == 200 {
        tracing::warn!(
            index = name,
            concrete,
            found = durability,
            "{DURABILITY} was set to request: with another value the server may lose writes that it has acknowledged"
        );
        return Ok(());
    }
    let failure = server.failure(&format!("PUT /{concrete}/_settings"), &answer);
    let message = format_args!(
        "{DURABILITY} of `{concrete}` is {durability}, with which acknowledged writes can be lost, and cannot be changed \
         ({failure}): PUT /{concrete}/_settings {wanted}"
    );
    Err(server.error(failure.class, message))
}

/// Settings of a new index, apart from its shards and its mapping's limits. `replicates`: with the choice of replication, which
/// OpenSearch has, and which its administrator may have taken away.
pub(super) fn of_new_index(replicates: bool) -> Json {
    let mut settings = json!({
        // The indexer refreshes by itself. This is for what it wrote before it was stopped, and keeps the servers from
        // not refreshing an index that nobody searched for a while, which they do when nothing is set.
        "refresh_interval": "1s",
        // A delete's version must outlive the longest build that may still want to write the document.
        "gc_deletes": "10m",
        // A template may say otherwise.
        "translog.durability": "request",
    });
    if replicates {
        // What is refreshed is then seen by everybody who searches, whichever copy answers.
        settings["replication.type"] = json!("DOCUMENT");
    }
    settings
}
