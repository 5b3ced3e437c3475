//! Reads of refreshed documents.
//!
//! Paging goes over the keyword [`KEY`] (a copy of the id) with `search_after`, without a point in time: a document that was
//! refreshed when a listing began and still belongs to it keeps its place in the order whatever is written meanwhile, so it is
//! met. That is all the contract asks for, needs no contexts kept open on the server, and is the same call on all four major
//! versions.

use std::io::Write as _;
use std::ops::Range;

use elasticsearch::http::Method;
use serde_json::{Value as Json, json};
use tributary_event::ErrorClass;

use super::SearchServerStore;
use crate::documents::mapping::{Dialect, KEY, REFS, STAMP};
use crate::store::{IdPage, Older, OlderPage, StoreError};

/// Hits of one page: the servers' `index.max_result_window`.
const PAGE: usize = 10_000;
/// Terms of one lookup: well below the servers' `index.max_terms_count` of 65,536, so that one answer stays short.
const TERMS: usize = 10_000;
/// References that are counted in one call.
const COUNTED: usize = 500;

/// A parameter of reads, so that they see what was refreshed.
pub(super) fn primary(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Elasticsearch => "",
        Dialect::OpenSearch => "&preference=_primary",
    }
}

/// Searches, and takes no partial answer.
pub(super) async fn ask(store: &SearchServerStore, body: &Json) -> Result<Json, StoreError> {
    let path = store.path(&format!("_search?allow_partial_search_results=false{}", primary(store.dialect)));
    store.server.whole(Method::Post, &path, Some(body)).await
}

/// The hits of an answer.
pub(super) fn hits(answer: &Json) -> impl Iterator<Item = &Json> {
    answer["hits"]["hits"].as_array().into_iter().flatten()
}

/// The texts of a list.
pub(super) fn texts(value: &Json) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Ids of documents, in order.
pub(super) async fn scan(
    store: &SearchServerStore,
    after: Option<&str>,
    size: usize,
) -> Result<Vec<String>, StoreError> {
    let query = json!({ "match_all": {} });
    let mut ids: Vec<String> = Vec::new();
    while ids.len() < size {
        let wanted = (size - ids.len()).min(PAGE);
        let last = ids.last().cloned();
        let answer = ask(store, &ordered(&query, last.as_deref().or(after), wanted, &[])).await?;
        let before = ids.len();
        // The ids come with the sort values: no stored field, let alone `_source`, is read.
        ids.extend(hits(&answer).filter_map(|hit| hit["sort"][0].as_str().map(str::to_owned)));
        if ids.len() - before < wanted {
            break;
        }
    }
    Ok(ids)
}

/// Ids of documents that hold any of the references.
pub(super) async fn lookup(
    store: &SearchServerStore,
    references: &[String],
    after: Option<&str>,
    size: usize,
) -> Result<IdPage, StoreError> {
    let query = |terms: &[String]| json!({ "bool": { "filter": { "terms": { REFS: terms } } } });
    let (hits, next) = page(store, references, query, after, size, &[]).await?;
    Ok(IdPage { ids: hits.into_iter().map(|(id, _)| id).collect(), next })
}

/// The same, of those with a stamp in a range.
pub(super) async fn older(
    store: &SearchServerStore,
    references: &[String],
    stamps: Range<u64>,
    after: Option<&str>,
    size: usize,
) -> Result<OlderPage, StoreError> {
    let (from, before) = (stamps.start.min(i64::MAX as u64), stamps.end.min(i64::MAX as u64));
    let query = |terms: &[String]| {
        let range = json!({ "range": { STAMP: { "gte": from, "lt": before } } });
        json!({ "bool": { "filter": [{ "terms": { REFS: terms } }, range] } })
    };
    let (hits, next) = page(store, references, query, after, size, &[STAMP, REFS]).await?;
    let document = |(id, hit): (String, Json)| {
        let stamp = hit["fields"][STAMP][0].as_u64();
        let refs = texts(&hit["fields"][REFS]);
        let stamp = stamp.ok_or_else(|| {
            store.server.error(ErrorClass::Transient, format_args!("an answer to _search has no stamp of `{id}`"))
        })?;
        Ok(Older { id, stamp, refs })
    };
    Ok(OlderPage { documents: hits.into_iter().map(document).collect::<Result<_, _>>()?, next })
}

/// The hits of a page by their ids, and where the next page starts.
async fn page(
    store: &SearchServerStore,
    references: &[String],
    query: impl Fn(&[String]) -> Json,
    after: Option<&str>,
    size: usize,
    columns: &[&str],
) -> Result<(Vec<(String, Json)>, Option<String>), StoreError> {
    let size = size.clamp(1, PAGE);
    let mut found: Vec<(String, Json)> = Vec::new();
    let mut full = false;
    for terms in references.chunks(TERMS) {
        let query = query(terms);
        if after.is_none() {
            // Most lookups find a handful: one page in index order costs the least. A full page may not be all.
            let columns: Vec<&str> = columns.iter().copied().chain([KEY]).collect();
            let body = json!({
                "size": size, "track_total_hits": false, "query": query, "sort": ["_doc"],
                "stored_fields": "_none_", "_source": false, "docvalue_fields": columns,
            });
            let hits = take_hits(ask(store, &body).await?);
            if hits.len() < size {
                found.extend(by_id(hits, |hit| &hit["fields"][KEY][0]));
                continue;
            }
        }
        let hits = take_hits(ask(store, &ordered(&query, after, size, columns)).await?);
        full |= hits.len() >= size;
        found.extend(by_id(hits, |hit| &hit["sort"][0]));
    }
    if references.len() > TERMS {
        // Of every part the least ids are here: so are the least of all.
        found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        found.dedup_by(|(one, _), (other, _)| one == other);
        full |= found.len() > size;
        if full {
            found.truncate(size);
        }
    }
    let next = found.last().filter(|_| full).map(|(id, _)| id.clone());
    Ok((found, next))
}

/// A search for the documents behind an id, in id order.
fn ordered(query: &Json, after: Option<&str>, size: usize, columns: &[&str]) -> Json {
    let mut body = json!({
        "size": size, "track_total_hits": false, "query": query, "sort": [{ KEY: "asc" }],
        "stored_fields": "_none_", "_source": false,
    });
    if !columns.is_empty() {
        body["docvalue_fields"] = json!(columns);
    }
    if let Some(after) = after {
        body["search_after"] = json!([after]);
    }
    body
}

fn take_hits(mut answer: Json) -> Vec<Json> {
    match answer["hits"]["hits"].take() {
        Json::Array(hits) => hits,
        _ => Vec::new(),
    }
}

fn by_id(hits: Vec<Json>, id: impl Fn(&Json) -> &Json) -> impl Iterator<Item = (String, Json)> {
    hits.into_iter().filter_map(move |hit| Some((id(&hit).as_str()?.to_owned(), hit)))
}

/// How many documents hold each reference: a small search each, whose answer the server has mostly counted already.
pub(super) async fn frequencies(store: &SearchServerStore, references: &[String]) -> Result<Vec<u64>, StoreError> {
    let path = store.path("_msearch");
    let mut header = json!({ "allow_partial_search_results": false });
    if store.dialect == Dialect::OpenSearch {
        header["preference"] = json!("_primary");
    }
    let mut frequencies = Vec::with_capacity(references.len());
    for references in references.chunks(COUNTED) {
        let mut body = Vec::new();
        for reference in references {
            let query = json!({ "bool": { "filter": { "term": { REFS: reference } } } });
            // Writing to memory does not fail.
            let _ = writeln!(body, "{header}\n{}", json!({ "size": 0, "track_total_hits": true, "query": query }));
        }
        let answer = store.server.ask_many(&path, body).await?;
        let answers = answer["responses"].as_array().map(Vec::as_slice).unwrap_or_default();
        for place in 0..references.len() {
            let answer = answers.get(place).unwrap_or(&Json::Null);
            if !answer["error"].is_null() {
                return Err(store.item_error(&answer["error"]));
            }
            store.server.check_whole(&path, answer)?;
            frequencies.push(answer["hits"]["total"]["value"].as_u64().ok_or_else(|| {
                store.server.error(ErrorClass::Transient, format_args!("an answer to _msearch has no count"))
            })?);
        }
    }
    Ok(frequencies)
}

/// The newest stamp. Sorted for, because an aggregation answers in floating point, which a stamp does not fit.
pub(super) async fn newest_stamp(store: &SearchServerStore) -> Result<u64, StoreError> {
    let body = json!({
        "size": 1, "track_total_hits": false, "query": { "match_all": {} }, "sort": [{ STAMP: "desc" }],
        "stored_fields": "_none_", "_source": false,
    });
    Ok(hits(&ask(store, &body).await?).filter_map(|hit| hit["sort"][0].as_u64()).next().unwrap_or(0))
}
