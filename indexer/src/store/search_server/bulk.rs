//! Bulk bodies and the verdicts of their answers. Pure.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};

use super::http::Answer;
use crate::documents::indexable::{Indexable, indexable};
use crate::documents::mapping::{Fields, HASH, KEPT, KEY, REFS, STAMP, UNINDEXED};
use crate::store::{Document, DocumentWrite, Verdict, WriteAction, unfit_id};

/// Bytes of one request. The servers refuse 100 MiB; a few MiB use a connection well without filling the server's heap.
const MAX_BYTES: usize = 8 << 20;
/// Writes of one request.
const MAX_WRITES: usize = 5_000;
/// Pause where the server asks for one without saying how long.
const PAUSE: Duration = Duration::from_millis(500);

/// A part of a write, as one request.
pub(super) struct Chunk {
    /// Newline-delimited JSON.
    pub body: Vec<u8>,
    /// The positions of its writes.
    pub positions: Vec<usize>,
}

impl Chunk {
    /// Whether any of its writes is a delete.
    pub fn deletes(&self, writes: &[DocumentWrite]) -> bool {
        self.positions.iter().any(|position| matches!(writes[*position].action, WriteAction::Delete))
    }

    /// The same as two requests, the second half first (a stack's order).
    pub fn halves(&self, items: &[Result<Item<'_>, String>]) -> Vec<Self> {
        let (first, second) = self.positions.split_at(self.positions.len() / 2);
        let chunk = |positions: &[usize]| {
            let mut chunk = Self { body: Vec::new(), positions: positions.to_vec() };
            let items = positions.iter().filter_map(|position| items[*position].as_ref().ok());
            items.for_each(|item| item.encode(&mut chunk.body));
            chunk
        };
        vec![chunk(second), chunk(first)]
    }
}

/// A write that the server may take.
pub(super) struct Item<'a> {
    write: &'a DocumentWrite,
    put: Option<(&'a Document, Indexable<'a>)>,
}

impl<'a> Item<'a> {
    /// The error is why no store takes it.
    pub fn new(fields: &Fields, write: &'a DocumentWrite) -> Result<Self, String> {
        if let Some(reason) = unfit_id(&write.id) {
            return Err(reason);
        }
        let put = match &write.action {
            WriteAction::Delete => None,
            WriteAction::Put(document) => Some((document.as_ref(), indexable(fields, &document.content)?)),
        };
        Ok(Self { write, put })
    }

    /// The fields with values that cannot be searched.
    pub fn unindexed(&self) -> &[String] {
        self.put.as_ref().map_or(&[], |(_, indexable)| &indexable.unindexed)
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let DocumentWrite { id, stamp, .. } = self.write;
        let action = if self.put.is_some() { "index" } else { "delete" };
        let line = json!({ action: { "_id": id, "version": stamp, "version_type": "external" } });
        // Writing to memory does not fail.
        let _ = writeln!(into, "{line}");
        if let Some((document, indexable)) = &self.put {
            let mut ours = Map::new();
            ours.insert(KEY.to_owned(), json!(id));
            ours.insert(REFS.to_owned(), json!(document.refs));
            ours.insert(STAMP.to_owned(), json!(stamp));
            ours.insert(HASH.to_owned(), json!(document.hash));
            if !indexable.kept.is_empty() {
                // As text: the server's reader has limits of its own for names and depths.
                ours.insert(KEPT.to_owned(), Json::String(Json::Object(indexable.kept.clone()).to_string()));
            }
            if !indexable.unindexed.is_empty() {
                ours.insert(UNINDEXED.to_owned(), json!(indexable.unindexed));
            }
            let ours = Json::Object(ours).to_string();
            let content = indexable.content.to_string();
            let _ = match content.as_str() {
                "{}" => writeln!(into, "{ours}"),
                content => writeln!(into, "{},{}", &ours[..ours.len() - 1], &content[1..]),
            };
        }
    }
}

/// Takes ours out of a document's source, and gives its content back as it was written.
pub(super) fn content(source: Json) -> (Json, Map<String, Json>) {
    let Json::Object(mut content) = source else { return (source, Map::new()) };
    let mut ours = Map::new();
    for name in [REFS, STAMP, HASH, KEY, KEPT, UNINDEXED] {
        if let Some(value) = content.remove(name) {
            ours.insert(name.to_owned(), value);
        }
    }
    let kept = ours
        .get(KEPT)
        .and_then(Json::as_str)
        .map(|text| crate::documents::json::read::<Map<String, Json>>(text.as_bytes()));
    if let Some(Ok(kept)) = kept {
        content.extend(kept);
    }
    (Json::Object(content), ours)
}

/// What an answer says.
pub(super) enum Judgement {
    /// One verdict per write; none where the store holds a newer stamp and the answer does not say which.
    Verdicts(Vec<Option<Verdict>>),
    /// The request was too large, and has more than one write.
    TooLarge,
    /// There is no index, or no alias.
    IndexMissing(String),
    /// The request failed as a whole.
    Failed,
}

/// Bodies of at most [`MAX_BYTES`] (or one write); writes that no store takes get their verdict at once.
pub(super) fn encode(items: &[Result<Item<'_>, String>], verdicts: &mut [Option<Verdict>]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut line = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let item = match item {
            Ok(item) => item,
            Err(reason) => {
                verdicts[position] = Some(Verdict::Rejected { reason: reason.clone() });
                continue;
            }
        };
        line.clear();
        item.encode(&mut line);
        match chunks.last_mut() {
            Some(chunk) if chunk.body.len() + line.len() <= MAX_BYTES && chunk.positions.len() < MAX_WRITES => {
                chunk.body.extend_from_slice(&line);
                chunk.positions.push(position);
            }
            _ => chunks.push(Chunk { body: line.clone(), positions: vec![position] }),
        }
    }
    chunks
}

/// The verdicts that an answer to a chunk gives; `alias` is what it was sent to.
pub(super) fn judge(answer: &Answer, chunk: &Chunk, writes: &[DocumentWrite], alias: &str) -> Judgement {
    match answer.status {
        200..300 => {}
        413 if chunk.positions.len() > 1 => return Judgement::TooLarge,
        413 => {
            let reason = "the document alone is more than the server takes in one request".to_owned();
            return Judgement::Verdicts(vec![Some(Verdict::Rejected { reason })]);
        }
        429 => {
            let reason = reason(&answer.body["error"]);
            let after = answer.retry_after.unwrap_or(PAUSE);
            return Judgement::Verdicts(vec![Some(Verdict::Retry { after, reason }); chunk.positions.len()]);
        }
        404 => return Judgement::IndexMissing(reason(&answer.body["error"])),
        _ => return Judgement::Failed,
    }
    let items = answer.body["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.len() != chunk.positions.len() {
        return Judgement::Failed;
    }
    let mut verdicts = Vec::with_capacity(items.len());
    for (item, position) in items.iter().zip(&chunk.positions) {
        let Some(outcome) = item.as_object().and_then(|o| o.values().next()) else { return Judgement::Failed };
        if outcome["error"].is_null() && outcome["_index"] == alias {
            return Judgement::IndexMissing(format!("an index `{alias}` took the alias's place: delete it"));
        }
        match judge_item(outcome, &writes[*position]) {
            Ok(verdict) => verdicts.push(verdict),
            Err(reason) => return Judgement::IndexMissing(reason),
        }
    }
    Judgement::Verdicts(verdicts)
}

/// The verdict of one item, as in [`Judgement::Verdicts`]; `Err` if there is no index.
fn judge_item(outcome: &Json, write: &DocumentWrite) -> Result<Option<Verdict>, String> {
    let status = outcome["status"].as_u64().unwrap_or(0);
    let error = &outcome["error"];
    let delete = matches!(write.action, WriteAction::Delete);
    Ok(Some(match (status, error["type"].as_str()) {
        (200..300, None) => Verdict::Written,
        // There was nothing to delete; the version is remembered all the same.
        (404, None) if delete => Verdict::Written,
        (409, _) => {
            let stored = stored_version(error["reason"].as_str().unwrap_or_default());
            return Ok(stored.map(|stored| Verdict::Superseded { stored }));
        }
        (_, Some("index_not_found_exception" | "alias_not_found_exception")) => return Err(reason(error)),
        // A block by a full disk is lifted by itself.
        (_, Some("cluster_block_exception")) | (0 | 408 | 429 | 500.., _) => {
            Verdict::Retry { after: PAUSE, reason: reason(error) }
        }
        _ => Verdict::Rejected { reason: reason(error) },
    }))
}

/// The verdict of a write that met the version of a delete which nobody can read. It passes with the server's memory of it.
pub(super) fn newer_delete() -> Verdict {
    let reason = "the document was deleted with a newer stamp, and the server does not say which".to_owned();
    Verdict::Retry { after: PAUSE, reason }
}

/// The version in `[id]: version conflict, current version [5] is higher or equal to the one provided [4]`. The id may hold
/// the same words, so the last ones count.
fn stored_version(reason: &str) -> Option<u64> {
    let (_, tail) = reason.rsplit_once("current version [")?;
    tail.split_once(']')?.0.parse().ok()
}

/// The reason of an error and of its innermost cause, which is where both servers say what was wrong with the value.
pub(super) fn reason(error: &Json) -> String {
    if let Some(text) = error.as_str() {
        return text.to_owned();
    }
    // A failed search says "all shards failed" and has the reason in its first shard.
    let shard = &error["failed_shards"][0]["reason"];
    let error = if shard.is_object() { shard } else { error };
    let text = |error: &Json| match error["reason"].as_str() {
        Some(reason) => reason.to_owned(),
        None => error["type"].as_str().unwrap_or("no reason was given").to_owned(),
    };
    let mut inner = error;
    while inner["caused_by"].is_object() {
        inner = &inner["caused_by"];
    }
    let (outer, inner) = (text(error), text(inner));
    if outer.contains(&inner) { outer } else { format!("{outer}: {inner}") }
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
