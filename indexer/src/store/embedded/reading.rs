//! Reads over one commit.

use serde::de::IgnoredAny;
use serde_json::Value as Json;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::Query;
use tantivy::schema::{IndexRecordOption, Value as _};
use tantivy::{
    DocAddress, DocId, DocSet as _, Searcher, SegmentReader, TERMINATED, TantivyDocument, TantivyError, Term,
};
use xxhash_rust::xxh3::xxh3_64;

use super::Shared;
use super::content::Source;
use super::schema::{ID, Layout};
use crate::documents::mapping::STAMP;
use crate::store::{Head, Hit, SearchResponse, StoredDocument};

/// Where a document is.
fn find(shared: &Shared, searcher: &Searcher, id: &str) -> tantivy::Result<Option<DocAddress>> {
    let layout = &shared.layout;
    let term = Term::from_field_text(layout.id, id);
    let hash = xxh3_64(id.as_bytes());
    for (ordinal, segment) in searcher.segment_readers().iter().enumerate() {
        if !shared.filters.may_hold(segment, hash)? {
            continue;
        }
        let index = segment.inverted_index(layout.id)?;
        let Some(mut postings) = index.read_postings(&term, IndexRecordOption::Basic)? else { continue };
        let mut doc = postings.doc();
        while doc != TERMINATED {
            if !segment.is_deleted(doc) {
                return Ok(Some(DocAddress::new(ordinal as u32, doc)));
            }
            doc = postings.advance();
        }
    }
    Ok(None)
}

pub(super) fn stamp_at(searcher: &Searcher, address: DocAddress) -> tantivy::Result<u64> {
    let column = searcher.segment_reader(address.segment_ord).fast_fields().u64(STAMP)?;
    Ok(column.first(address.doc_id).unwrap_or(0))
}

/// The committed stamp of an id.
pub(super) fn stamp(shared: &Shared, searcher: &Searcher, id: &str) -> tantivy::Result<Option<u64>> {
    find(shared, searcher, id)?.map(|address| stamp_at(searcher, address)).transpose()
}

pub(super) fn source<C, R>(layout: &Layout, searcher: &Searcher, address: DocAddress) -> tantivy::Result<Source<C, R>>
where
    Source<C, R>: serde::de::DeserializeOwned,
{
    let document: TantivyDocument = searcher.doc(address)?;
    let bytes = document.get_first(layout.source).and_then(|value| value.as_bytes()).unwrap_or_default();
    crate::documents::json::read(bytes)
        .map_err(|e| TantivyError::InternalError(format!("a stored document cannot be read: {e}")))
}

pub(super) fn head(shared: &Shared, searcher: &Searcher, id: &str) -> tantivy::Result<Option<Head>> {
    let Some(address) = find(shared, searcher, id)? else { return Ok(None) };
    let source: Source<IgnoredAny, IgnoredAny> = source(&shared.layout, searcher, address)?;
    Ok(Some(Head { stamp: stamp_at(searcher, address)?, hash: source.hash }))
}

pub(super) fn get(shared: &Shared, searcher: &Searcher, id: &str) -> tantivy::Result<Option<StoredDocument>> {
    let Some(address) = find(shared, searcher, id)? else { return Ok(None) };
    let source: Source<Json, Vec<String>> = source(&shared.layout, searcher, address)?;
    let stamp = stamp_at(searcher, address)?;
    Ok(Some(StoredDocument { id: id.to_owned(), content: source.content, refs: source.refs, stamp, hash: source.hash }))
}

/// The newest stamp of all segments with a document: also of documents that are deleted and not merged away yet.
pub(super) fn newest_stamp(searcher: &Searcher) -> tantivy::Result<u64> {
    let mut newest = 0;
    for segment in searcher.segment_readers().iter().filter(|segment| segment.num_docs() > 0) {
        newest = newest.max(segment.fast_fields().u64(STAMP)?.max_value());
    }
    Ok(newest)
}

fn id(segment: &SegmentReader, doc: DocId) -> tantivy::Result<String> {
    let column = segment.fast_fields().str(ID)?.ok_or_else(|| TantivyError::FieldNotFound(ID.to_owned()))?;
    let mut id = String::new();
    if let Some(ordinal) = column.term_ords(doc).next() {
        column.ord_to_str(ordinal, &mut id)?;
    }
    Ok(id)
}

/// Ids in order. Every segment gives its first `size` live ones; the least of them all are the answer.
pub(super) fn scan(
    layout: &Layout,
    searcher: &Searcher,
    after: Option<&str>,
    size: usize,
) -> tantivy::Result<Vec<String>> {
    let mut found = Vec::new();
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(layout.id)?;
        let range = index.terms().range();
        let mut stream =
            after.map_or_else(|| index.terms().range(), |after| range.gt(after.as_bytes())).into_stream()?;
        let mut taken = 0;
        while taken < size && stream.advance() {
            let postings = index.read_postings_from_terminfo(stream.value(), IndexRecordOption::Basic)?;
            if live(segment, postings) {
                found.push(String::from_utf8_lossy(stream.key()).into_owned());
                taken += 1;
            }
        }
    }
    found.sort_unstable();
    found.truncate(size);
    Ok(found)
}

fn live(segment: &SegmentReader, mut postings: impl tantivy::DocSet) -> bool {
    let mut doc = postings.doc();
    while doc != TERMINATED {
        if !segment.is_deleted(doc) {
            return true;
        }
        doc = postings.advance();
    }
    false
}

pub(super) fn search(
    layout: &Layout,
    searcher: &Searcher,
    query: &dyn Query,
    from: usize,
    size: usize,
) -> tantivy::Result<SearchResponse> {
    if size == 0 {
        return Ok(SearchResponse { total: searcher.search(query, &Count)? as u64, hits: Vec::new() });
    }
    let best = TopDocs::with_limit(size).and_offset(from).order_by_score();
    let (total, best) = searcher.search(query, &(Count, best))?;
    let mut hits = Vec::with_capacity(best.len());
    for (score, address) in best {
        let document: TantivyDocument = searcher.doc(address)?;
        let bytes = document.get_first(layout.source).and_then(|value| value.as_bytes()).unwrap_or_default();
        let source: Source<Json, IgnoredAny> =
            crate::documents::json::read(bytes).map_err(|e| TantivyError::InternalError(e.to_string()))?;
        let segment = searcher.segment_reader(address.segment_ord);
        hits.push(Hit { id: id(segment, address.doc_id)?, score, content: source.content });
    }
    Ok(SearchResponse { total: total as u64, hits })
}
