//! Commands that read an index: from the running pipeline where there is one, else from the store itself. Neither needs the graph.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tributary_dsl::Definition;
use tributary_indexer::store::{DocumentStore, SearchRequest, open_read_only};

use crate::backends;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::{Draft, PipelineFile, read};
use crate::run::http::document_json;
use crate::run::record::{self, expect_ok};
use crate::streams::row_indexes;

/// `get`.
pub async fn get(file: &PipelineFile, index: &str, id: &str) -> Result<(), Failure> {
    let draft = text(file).await?;
    let definition = draft.definition();
    let document = match record::find(definition.data(), definition.pipeline()).await {
        Some(running) => {
            let path = format!("/indexes/{index}/documents/{}", backends::percent_encode(id));
            expect_ok(running.get(&path).await?)?
        }
        None => {
            let found = store(definition, index)?.get(id).await.map_err(|e| Failure::of(e.class, e.message))?;
            let found = found.ok_or_else(|| Failure::NotFound(format!("index {index} has no document {id:?}")))?;
            document_json(&found)
        }
    };
    line(&serde_json::to_string_pretty(&document).unwrap_or_default());
    Ok(())
}

/// `search`.
pub async fn search(file: &PipelineFile, index: &str, query: String, from: usize, size: usize) -> Result<(), Failure> {
    let draft = text(file).await?;
    let definition = draft.definition();
    let answer = match record::find(definition.data(), definition.pipeline()).await {
        Some(running) => {
            let parameters = [("q", query), ("from", from.to_string()), ("size", size.to_string())];
            expect_ok(running.get_with(&format!("/indexes/{index}/search"), &parameters).await?)?
        }
        None => {
            let found = store(definition, index)?.search(&SearchRequest { query, from, size }).await;
            let found = found.map_err(|e| Failure::of(e.class, e.message))?;
            let hits: Vec<_> =
                found.hits.iter().map(|h| json!({ "id": h.id, "score": h.score, "document": h.content })).collect();
            json!({ "total": found.total, "hits": hits })
        }
    };
    let none = Vec::new();
    let hits = answer["hits"].as_array().unwrap_or(&none);
    line(&format!("{} found", answer["total"]));
    for hit in hits {
        let id = hit["id"].as_str().unwrap_or_default();
        line(&format!("{id}  {:.2}  {}", hit["score"].as_f64().unwrap_or(0.0), compact(&hit["document"])));
    }
    Ok(())
}

fn compact(document: &Json) -> String {
    serde_json::to_string(document).unwrap_or_default()
}

/// The pipeline as it is written, if nothing is wrong with that.
async fn text(file: &PipelineFile) -> Result<Draft, Failure> {
    let draft = read(file).await?;
    draft.text_is_right()?;
    Ok(draft)
}

fn store(definition: &Definition, index: &str) -> Result<Arc<dyn DocumentStore>, Failure> {
    let rows = row_indexes(definition.streams()).find(|rows| rows.name == index).map(|rows| &rows.store);
    let Some(store) = rows.or_else(|| definition.store(index)) else {
        let of_rows = row_indexes(definition.streams()).map(|rows| rows.name.as_str());
        let known: Vec<&str> = definition.indexes().chain(of_rows).collect();
        return Err(Failure::NotFound(format!("no index {index:?} in this pipeline (it has: {})", known.join(", "))));
    };
    open_read_only(store, index, definition.data()).map_err(|e| Failure::of(e.class, e.message))
}
