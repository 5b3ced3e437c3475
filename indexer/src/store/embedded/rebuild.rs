//! An index of an earlier version, made anew from its own documents.
//!
//! ```text
//!  name ──► .name.rebuilding ──► .name.rebuilt ──► name
//!           filled, committed    complete          the old one is removed first
//! ```
//!
//! The old index is untouched until the new one is complete. A start that was killed in between begins anew, or, where the new
//! one is complete, puts it in place ([`finish`]). Nothing is asked of the graph.

use std::io;
use std::path::{Path, PathBuf};

use tantivy::index::SegmentReader;
use tantivy::schema::Value as _;
use tantivy::{Index, IndexWriter, TantivyDocument, TantivyError};
use tributary_event::ErrorClass;

use super::content::{self, Source};
use super::folder;
use super::schema::{ID, Layout, SOURCE};
use crate::documents::mapping::STAMP;
use crate::store::{Document, StoreError};

/// Memory of the writers: the old index's only holds the lock.
const ARENA: usize = 15_000_000;

/// Puts in place what a killed start had completed.
pub(super) fn finish(folder: &Path) -> io::Result<()> {
    let rebuilt = beside(folder, "rebuilt");
    if !rebuilt.is_dir() {
        return Ok(());
    }
    if folder.is_dir() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::rename(&rebuilt, folder)?;
    sync_parent(folder)
}

/// Makes the index in a folder anew: `create` makes an empty one of today's layout in the folder that it is given.
pub(super) fn rebuild(
    folder: &Path,
    name: &str,
    old: &Index,
    create: impl FnOnce(&Path) -> Result<(Index, Layout), StoreError>,
) -> Result<(), StoreError> {
    let failed = |error: TantivyError| folder::error(folder, "be made anew", error);
    // Whoever else writes the index has its lock.
    let lock: IndexWriter<TantivyDocument> = old.writer_with_num_threads(1, ARENA).map_err(failed)?;
    let (rebuilding, rebuilt) = (beside(folder, "rebuilding"), beside(folder, "rebuilt"));
    if rebuilding.is_dir() {
        std::fs::remove_dir_all(&rebuilding).map_err(|e| failed(e.into()))?;
    }
    tracing::info!(index = name, "the index is of an earlier version and is made anew from its documents");
    let (new, layout) = create(&rebuilding)?;
    let documents = fill(old, &new, &layout).map_err(|error| match error {
        Failure::Tantivy(error) => failed(error),
        Failure::Unfit(reason) => {
            let message = format!(
                "the index in {} is of an earlier version and cannot be made anew: {reason}; delete the folder to have it \
                 built again",
                folder.display()
            );
            StoreError::new(ErrorClass::Fatal, message)
        }
    })?;
    drop(new);
    std::fs::rename(&rebuilding, &rebuilt)
        .and_then(|()| sync_parent(folder))
        .and_then(|()| finish(folder))
        .map_err(|e| failed(e.into()))?;
    drop(lock);
    tracing::info!(index = name, documents, "the index was made anew");
    Ok(())
}

/// Why documents could not be taken over.
enum Failure {
    Tantivy(TantivyError),
    Unfit(String),
}

impl<E: Into<TantivyError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Tantivy(error.into())
    }
}

/// Takes every document over, and commits.
fn fill(old: &Index, new: &Index, layout: &Layout) -> Result<usize, Failure> {
    let mut writer: IndexWriter<TantivyDocument> = new.writer_with_num_threads(1, ARENA)?;
    let mut documents = 0;
    for segment in old.reader()?.searcher().segment_readers() {
        for_each(segment, old, |id, stamp, document| {
            let indexed = content::indexed(layout, id, stamp, document)
                .map_err(|reason| Failure::Unfit(format!("document `{id}` is not taken: {reason}")))?;
            documents += 1;
            Ok(writer.add_document(indexed.document).map(|_| ())?)
        })?;
    }
    writer.commit()?;
    writer.wait_merging_threads()?;
    Ok(documents)
}

/// Calls `each` with the id, the stamp and the content of every document of a segment.
fn for_each(
    segment: &SegmentReader,
    index: &Index,
    mut each: impl FnMut(&str, u64, &Document) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let source = index.schema().get_field(SOURCE)?;
    let store = segment.get_store_reader(1)?;
    let stamps = segment.fast_fields().u64(STAMP)?;
    let ids = segment.fast_fields().str(ID)?.ok_or_else(|| TantivyError::FieldNotFound(ID.to_owned()))?;
    let mut id = String::new();
    for doc in segment.doc_ids_alive() {
        let stored: TantivyDocument = store.get(doc)?;
        let bytes = stored.get_first(source).and_then(|value| value.as_bytes()).unwrap_or_default();
        let Source { hash, refs, content } = crate::documents::json::read(bytes)
            .map_err(|e| Failure::Unfit(format!("a stored document cannot be read: {e}")))?;
        id.clear();
        if let Some(ordinal) = ids.term_ords(doc).next() {
            ids.ord_to_str(ordinal, &mut id)?;
        }
        each(&id, stamps.first(doc).unwrap_or(0), &Document { content, refs, hash })?;
    }
    Ok(())
}

fn beside(folder: &Path, word: &str) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(format!(".{name}.{word}"))
}

fn sync_parent(folder: &Path) -> io::Result<()> {
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
