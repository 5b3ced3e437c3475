//! Bulk bodies and the verdicts of their answers. Pure.

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::http::Answer;
use crate::mapping::{HASH, KEY, REFS, STAMP};
use crate::store::{DocumentWrite, Verdict, WriteAction, unfit_id};

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
    pub fn halves(&self, writes: &[DocumentWrite]) -> Vec<Self> {
        let (first, second) = self.positions.split_at(self.positions.len() / 2);
        let chunk = |positions: &[usize]| {
            let mut chunk = Self { body: Vec::new(), positions: positions.to_vec() };
            positions.iter().for_each(|position| encode_write(&writes[*position], &mut chunk.body));
            chunk
        };
        vec![chunk(second), chunk(first)]
    }
}

/// What an answer says.
pub(super) enum Judgement {
    /// One verdict per write.
    Verdicts(Vec<Verdict>),
    /// The request was too large, and has more than one write.
    TooLarge,
    /// There is no index, or no alias.
    IndexMissing(String),
    /// The request failed as a whole.
    Failed,
}

/// Bodies of at most [`MAX_BYTES`] (or one write); writes that no server takes get their verdict at once.
pub(super) fn encode(writes: &[DocumentWrite], verdicts: &mut [Option<Verdict>]) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut line = Vec::new();
    for (position, write) in writes.iter().enumerate() {
        let unfit = unfit_id(&write.id).or_else(|| match &write.action {
            WriteAction::Put(document) if !document.content.is_object() => Some("its content is no object".to_owned()),
            _ => None,
        });
        if let Some(reason) = unfit {
            verdicts[position] = Some(Verdict::Rejected { reason });
            continue;
        }
        line.clear();
        encode_write(write, &mut line);
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

fn encode_write(write: &DocumentWrite, into: &mut Vec<u8>) {
    let action = if matches!(write.action, WriteAction::Delete) { "delete" } else { "index" };
    let line = json!({ action: { "_id": write.id, "version": write.stamp, "version_type": "external" } });
    // Writing to memory does not fail.
    let _ = writeln!(into, "{line}");
    if let WriteAction::Put(document) = &write.action {
        let ours = json!({ KEY: write.id, REFS: document.refs, STAMP: write.stamp, HASH: document.hash }).to_string();
        let content = document.content.to_string();
        let _ = match content.as_str() {
            "{}" => writeln!(into, "{ours}"),
            content => writeln!(into, "{},{}", &ours[..ours.len() - 1], &content[1..]),
        };
    }
}

/// The verdicts that an answer to a chunk gives; `alias` is what it was sent to.
pub(super) fn judge(answer: &Answer, chunk: &Chunk, writes: &[DocumentWrite], alias: &str) -> Judgement {
    match answer.status {
        200..300 => {}
        413 if chunk.positions.len() > 1 => return Judgement::TooLarge,
        413 => {
            let reason = "the document alone is more than the server takes in one request".to_owned();
            return Judgement::Verdicts(vec![Verdict::Rejected { reason }]);
        }
        429 => {
            let reason = reason(&answer.body["error"]);
            let after = answer.retry_after.unwrap_or(PAUSE);
            return Judgement::Verdicts(vec![Verdict::Retry { after, reason }; chunk.positions.len()]);
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

/// The verdict of one item; `Err` if there is no index.
fn judge_item(outcome: &Json, write: &DocumentWrite) -> Result<Verdict, String> {
    let status = outcome["status"].as_u64().unwrap_or(0);
    let error = &outcome["error"];
    let delete = matches!(write.action, WriteAction::Delete);
    Ok(match (status, error["type"].as_str()) {
        (200..300, None) => Verdict::Written,
        // There was nothing to delete; the version is remembered all the same.
        (404, None) if delete => Verdict::Written,
        (409, _) => Verdict::Superseded { stored: stored_version(error["reason"].as_str().unwrap_or_default()) },
        (_, Some("index_not_found_exception" | "alias_not_found_exception")) => return Err(reason(error)),
        // A block by a full disk is lifted by itself.
        (_, Some("cluster_block_exception")) | (0 | 408 | 429 | 500.., _) => {
            Verdict::Retry { after: PAUSE, reason: reason(error) }
        }
        _ => Verdict::Rejected { reason: reason(error) },
    })
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
