//! Which segments can hold an id: a Bloom filter a segment, of ten bits an id.
//!
//! A document is in one segment, and looking an id up in the dictionary of a segment costs microseconds. Without filters each
//! read of a head, each comparison of versions and each deletion would cost that in every segment, documents that are new
//! above all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use fastbloom::BloomFilter;
use tantivy::index::SegmentId;
use tantivy::query::{EmptyScorer, EnableScoring, Explanation, Query, Scorer, TermQuery, Weight};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocId, Score, Searcher, SegmentReader, Term};
use xxhash_rust::xxh3::xxh3_64;

/// How often a filter is wrong about an id that its segment does not hold.
const WRONG: f64 = 0.01;

/// The filters of the segments that were asked about. Segments never change, so a filter is right for as long as it is kept.
#[derive(Debug)]
pub(super) struct Filters {
    ids: Field,
    /// Whether they pay: who looks a few ids up does not read all of them first.
    used: bool,
    known: Mutex<HashMap<SegmentId, Arc<BloomFilter>>>,
}

impl Filters {
    /// Filters over the field `ids`. Unless `used`, every segment can hold any id.
    pub fn new(ids: Field, used: bool) -> Self {
        Self { ids, used, known: Mutex::new(HashMap::new()) }
    }

    /// Whether the segment can hold the id with this hash. The first question reads all its ids.
    pub fn may_hold(&self, segment: &SegmentReader, hash: u64) -> tantivy::Result<bool> {
        if !self.used {
            return Ok(true);
        }
        let known = self.lock().get(&segment.segment_id()).cloned();
        let filter = match known {
            Some(filter) => filter,
            None => {
                let filter = Arc::new(self.read(segment)?);
                self.lock().insert(segment.segment_id(), filter.clone());
                filter
            }
        };
        Ok(filter.contains_hash(hash))
    }

    fn read(&self, segment: &SegmentReader) -> tantivy::Result<BloomFilter> {
        let index = segment.inverted_index(self.ids)?;
        let ids = index.terms();
        let mut filter = BloomFilter::with_false_pos(WRONG).seed(&0).expected_items(ids.num_terms().max(1));
        let mut stream = ids.stream()?;
        while stream.advance() {
            filter.insert_hash(xxh3_64(stream.key()));
        }
        Ok(filter)
    }

    /// Forgets segments that are no more.
    pub fn keep(&self, searcher: &Searcher) {
        let live: Vec<SegmentId> = searcher.segment_readers().iter().map(SegmentReader::segment_id).collect();
        self.lock().retain(|id, _| live.contains(id));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SegmentId, Arc<BloomFilter>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The query of one id, which looks only into segments that can hold it.
#[derive(Debug, Clone)]
pub(super) struct ById {
    filters: Arc<Filters>,
    hash: u64,
    term: TermQuery,
}

impl ById {
    /// The documents whose id is `id`.
    pub fn new(filters: &Arc<Filters>, id: &str) -> Self {
        let term = Term::from_field_text(filters.ids, id);
        let term = TermQuery::new(term, IndexRecordOption::Basic);
        Self { filters: filters.clone(), hash: xxh3_64(id.as_bytes()), term }
    }
}

impl Query for ById {
    fn weight(&self, scoring: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(ByIdWeight { filters: self.filters.clone(), hash: self.hash, term: self.term.weight(scoring)? }))
    }
}

struct ByIdWeight {
    filters: Arc<Filters>,
    hash: u64,
    term: Box<dyn Weight>,
}

impl Weight for ByIdWeight {
    fn scorer(&self, segment: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        if self.filters.may_hold(segment, self.hash)? {
            self.term.scorer(segment, boost)
        } else {
            Ok(Box::new(EmptyScorer))
        }
    }

    fn explain(&self, segment: &SegmentReader, doc: DocId) -> tantivy::Result<Explanation> {
        self.term.explain(segment, doc)
    }
}
