//! Which documents embed a vertex, a page at a time.
//!
//! A page holds the least ids behind the page before. Every page goes through all postings of its references and keeps as many
//! as it may hold, so that memory follows from the page and not from the number of documents.

use std::ops::{Bound, Range};

use serde::de::IgnoredAny;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocAddress, DocId, DocSet as _, Searcher, SegmentReader, TERMINATED, TantivyError, Term};

use super::content::Source;
use super::reading;
use super::schema::{ID, Layout};
use crate::documents::mapping::STAMP;
use crate::store::{IdPage, Older, OlderPage};

/// What a page is asked for.
pub(super) struct Wanted {
    references: Vec<String>,
    /// Only documents with a stamp in this range.
    stamps: Option<Range<u64>>,
    after: Option<String>,
    size: usize,
}

impl Wanted {
    pub fn new(references: &[String], stamps: Option<Range<u64>>, after: Option<&str>, size: usize) -> Self {
        Self { references: references.to_vec(), stamps, after: after.map(str::to_owned), size: size.max(1) }
    }
}

/// Ids of documents.
pub(super) fn ids(layout: &Layout, searcher: &Searcher, wanted: &Wanted) -> tantivy::Result<IdPage> {
    let (found, next) = page(layout, searcher, wanted)?;
    Ok(IdPage { ids: found.into_iter().map(|(id, _)| id).collect(), next })
}

/// Documents with stamps and references, which are read from what is stored of each.
pub(super) fn older(layout: &Layout, searcher: &Searcher, wanted: &Wanted) -> tantivy::Result<OlderPage> {
    let (found, next) = page(layout, searcher, wanted)?;
    let document = |(id, address)| {
        let source: Source<IgnoredAny, Vec<String>> = reading::source(layout, searcher, address)?;
        Ok(Older { id, stamp: reading::stamp_at(searcher, address)?, refs: source.refs })
    };
    Ok(OlderPage { documents: found.into_iter().map(document).collect::<tantivy::Result<_>>()?, next })
}

/// Documents of each reference: what the dictionaries say, which counts deleted ones until they are merged away.
pub(super) fn frequencies(layout: &Layout, searcher: &Searcher, references: &[String]) -> tantivy::Result<Vec<u64>> {
    references.iter().map(|reference| searcher.doc_freq(&Term::from_field_text(layout.refs, reference))).collect()
}

type Found = (String, DocAddress);

/// The documents of a page, by id, and where the next page starts.
fn page(layout: &Layout, searcher: &Searcher, wanted: &Wanted) -> tantivy::Result<(Vec<Found>, Option<String>)> {
    let mut terms: Vec<Term> = wanted.references.iter().map(|r| Term::from_field_text(layout.refs, r)).collect();
    terms.sort();
    terms.dedup();
    let mut found: Vec<Found> = Vec::new();
    for (ordinal, segment) in searcher.segment_readers().iter().enumerate() {
        let least = least(layout, segment, &terms, wanted)?;
        let column = segment.fast_fields().str(ID)?.ok_or_else(|| TantivyError::FieldNotFound(ID.to_owned()))?;
        let ordinals: Vec<u64> = least.iter().map(|(ordinal, _)| *ordinal).collect();
        let mut docs = least.iter().map(|(_, doc)| DocAddress::new(ordinal as u32, *doc));
        column.dictionary().sorted_ords_to_term_cb(&ordinals, |id| {
            found.extend(docs.next().map(|address| (String::from_utf8_lossy(id).into_owned(), address)));
        })?;
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let more = found.len() > wanted.size;
    found.truncate(wanted.size);
    let next = found.last().filter(|_| more).map(|(id, _)| id.clone());
    Ok((found, next))
}

/// One more of a segment's documents than a page holds: those with the least ids, as ordinals of the ids.
fn least(
    layout: &Layout,
    segment: &SegmentReader,
    terms: &[Term],
    wanted: &Wanted,
) -> tantivy::Result<Vec<(u64, DocId)>> {
    let mut least = Least { size: wanted.size + 1, kept: Vec::new(), bound: None };
    let index = segment.inverted_index(layout.refs)?;
    let column = segment.fast_fields().str(ID)?.ok_or_else(|| TantivyError::FieldNotFound(ID.to_owned()))?;
    let stamps = wanted.stamps.as_ref();
    let stamps = stamps.map(|wanted| Ok::<_, TantivyError>((segment.fast_fields().u64(STAMP)?, wanted)));
    let stamps = stamps.transpose()?;
    let after = match &wanted.after {
        None => Bound::Unbounded,
        Some(after) => column.dictionary().term_bounds_to_ord(Bound::Excluded(after), Bound::Unbounded)?.0,
    };
    for term in terms {
        let Some(mut postings) = index.read_postings(term, IndexRecordOption::Basic)? else { continue };
        let mut doc = postings.doc();
        while doc != TERMINATED {
            let fits =
                stamps.as_ref().is_none_or(|(stamps, range)| stamps.first(doc).is_some_and(|s| range.contains(&s)));
            if fits && !segment.is_deleted(doc) {
                let behind = |ordinal: &u64| match after {
                    Bound::Unbounded => true,
                    Bound::Included(from) => *ordinal >= from,
                    Bound::Excluded(last) => *ordinal > last,
                };
                column.term_ords(doc).filter(behind).for_each(|ordinal| least.add(ordinal, doc));
            }
            doc = postings.advance();
        }
    }
    Ok(least.done())
}

/// The least of many ordinals, in little more memory than they need.
struct Least {
    size: usize,
    kept: Vec<(u64, DocId)>,
    /// Nothing above it is among the least.
    bound: Option<u64>,
}

impl Least {
    fn add(&mut self, ordinal: u64, doc: DocId) {
        if self.bound.is_some_and(|bound| ordinal > bound) {
            return;
        }
        self.kept.push((ordinal, doc));
        if self.kept.len() >= self.size.saturating_mul(2) {
            self.reduce();
        }
    }

    fn reduce(&mut self) {
        self.kept.sort_unstable();
        self.kept.dedup();
        self.kept.truncate(self.size);
        self.bound = self.kept.last().filter(|_| self.kept.len() == self.size).map(|(ordinal, _)| *ordinal);
    }

    fn done(mut self) -> Vec<(u64, DocId)> {
        self.reduce();
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_least_are_kept(ordinals in proptest::collection::vec(0..200_u64, 0..300), size in 1..40_usize) {
            let mut least = Least { size, kept: Vec::new(), bound: None };
            ordinals.iter().for_each(|ordinal| least.add(*ordinal, *ordinal as u32));
            prop_assert!(least.kept.len() < 2 * size.max(1));
            let kept: Vec<u64> = least.done().into_iter().map(|(ordinal, _)| ordinal).collect();
            let mut expected = ordinals;
            expected.sort_unstable();
            expected.dedup();
            expected.truncate(size);
            prop_assert_eq!(kept, expected);
        }
    }
}
