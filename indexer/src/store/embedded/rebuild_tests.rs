//! Tests of indexes of an earlier version.

use serde_json::json;
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::time::OffsetDateTime;
use tantivy::{DateTime, IndexSettings};
use tributary_dsl::plan::{FieldKind, IndexPlan, LeafType, SelectedField};

use super::super::{EmbeddedStore, analyzers};
use super::*;
use crate::graph::tests::{index, leaf};
use crate::store::{DocumentStore as _, DocumentWrite, Prepared, SearchRequest, Verdict, WriteAction};

fn plan() -> IndexPlan {
    let day = SelectedField { kind: FieldKind::Leaf(LeafType::Date), ..leaf("day") };
    index(true, vec![leaf("id"), day])
}

/// An index as it was made before values could be left out of it and dates could lie beyond 2262, with three documents.
fn earlier(folder: &Path) -> Index {
    std::fs::create_dir_all(folder).unwrap();
    let mut schema = Schema::builder();
    let exact = || {
        let indexing = TextFieldIndexing::default().set_tokenizer(analyzers::EXACT);
        TextOptions::default()
            .set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic).set_fieldnorms(false))
    };
    let id = schema.add_text_field(ID, exact().set_fast("raw"));
    let refs = schema.add_text_field("_refs", exact());
    let stamp = schema.add_u64_field(STAMP, FAST);
    let source = schema.add_bytes_field(SOURCE, STORED);
    let precision = DateOptions::default().set_fast().set_precision(DateTimePrecision::Milliseconds);
    let day = schema.add_date_field("day", precision);
    schema.add_text_field("id", exact().set_fast("raw"));
    let directory = tantivy::directory::MmapDirectory::open(folder).unwrap();
    let index = Index::create(directory, schema.build(), IndexSettings::default()).unwrap();
    index.tokenizers().register(analyzers::EXACT, tantivy::tokenizer::RawTokenizer::default());
    let mut writer: IndexWriter<TantivyDocument> = index.writer_with_num_threads(1, ARENA).unwrap();
    for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut document = TantivyDocument::new();
        document.add_text(id, name);
        document.add_text(refs, format!("Movie:{name}"));
        document.add_u64(stamp, 5 + n as u64);
        document.add_date(day, DateTime::from_utc(OffsetDateTime::UNIX_EPOCH));
        let content = json!({ "id": name, "day": if n == 0 { "9999-12-31" } else { "1970-01-01" } });
        let stored = json!({ "hash": "h", "refs": [format!("Movie:{name}")], "content": content });
        document.add_bytes(source, stored.to_string().as_bytes());
        writer.add_document(document).unwrap();
        writer.commit().unwrap();
    }
    writer.delete_term(tantivy::Term::from_field_text(id, "c"));
    writer.commit().unwrap();
    drop(writer);
    let mapping = json!({ "dynamic": "strict", "properties": {
        "id": { "type": "keyword", "ignore_above": 8191 },
        "day": { "type": "date", "format": "strict_date_optional_time||epoch_millis" },
        "_refs": { "type": "keyword" }, "_stamp": { "type": "long" }, "_key": { "type": "keyword" },
        "_hash": { "type": "keyword", "index": false, "doc_values": false },
    } });
    std::fs::write(folder.join("mapping.json"), mapping.to_string()).unwrap();
    index
}

async fn found(store: &EmbeddedStore, query: &str) -> Vec<String> {
    let request = SearchRequest { query: query.to_owned(), from: 0, size: 10 };
    store.search(&request).await.unwrap().hits.into_iter().map(|hit| hit.id).collect()
}

#[tokio::test]
async fn an_index_of_an_earlier_version_is_made_anew_from_its_documents() {
    let data = tempfile::tempdir().unwrap();
    let folder = folder::of(data.path(), "movies");
    drop(earlier(&folder));
    let reader = EmbeddedStore::read_only(data.path(), "movies");
    let error = reader.count().await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("`tributary run` makes it anew"), "{error}");

    let store = EmbeddedStore::new(data.path(), "movies");
    assert_eq!(store.prepare(&plan().selection).await.unwrap(), Prepared::Existing);
    assert_eq!(store.scan(None, 10).await.unwrap(), ["a", "b"], "the deleted one is not back");
    assert_eq!(found(&store, "day:[2300 TO *]").await, ["a"]);
    let document = store.get("a").await.unwrap().unwrap();
    assert_eq!((document.stamp, document.hash.as_str(), &document.refs[0][..]), (5, "h", "Movie:a"));
    assert_eq!(document.content, json!({ "id": "a", "day": "9999-12-31" }));
    assert_eq!(store.lookup(&["Movie:b".to_owned()], None, 10).await.unwrap().ids, ["b"]);
    let content = json!({ "id": "d", "day": "infinity" });
    let put = Document { content: content.clone(), refs: Vec::new(), hash: "h".to_owned() };
    let write = DocumentWrite { id: "d".to_owned(), stamp: 9, action: WriteAction::Put(put.into()) };
    assert_eq!(store.write(&[write]).await.unwrap(), [Verdict::Written]);
    store.refresh().await.unwrap();
    assert_eq!(found(&store, "_unindexed:day").await, ["d"]);
    drop(store);

    let unchanged = std::fs::metadata(folder.join("mapping.json")).unwrap().modified().unwrap();
    let again = EmbeddedStore::new(data.path(), "movies");
    again.prepare(&plan().selection).await.unwrap();
    assert_eq!(again.get("d").await.unwrap().unwrap().content, content);
    assert_eq!(
        std::fs::metadata(folder.join("mapping.json")).unwrap().modified().unwrap(),
        unchanged,
        "once is enough"
    );
    assert_eq!(reader.count().await.unwrap(), 3);
}

#[tokio::test]
async fn a_start_that_was_killed_while_it_made_an_index_anew_is_made_up_for() {
    let data = tempfile::tempdir().unwrap();
    let folder = folder::of(data.path(), "movies");
    drop(earlier(&folder));
    std::fs::create_dir_all(beside(&folder, "rebuilding")).unwrap();
    std::fs::write(beside(&folder, "rebuilding").join("half"), "of a file").unwrap();
    let store = EmbeddedStore::new(data.path(), "movies");
    store.prepare(&plan().selection).await.unwrap();
    assert_eq!(store.count().await.unwrap(), 2);
    drop(store);
    // Killed between the two renames, with the old index half removed.
    std::fs::rename(&folder, beside(&folder, "rebuilt")).unwrap();
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("mapping.json"), "{}").unwrap();
    let store = EmbeddedStore::new(data.path(), "movies");
    assert_eq!(store.prepare(&plan().selection).await.unwrap(), Prepared::Existing);
    assert_eq!(store.count().await.unwrap(), 2);
    assert!(!beside(&folder, "rebuilt").exists() && !beside(&folder, "rebuilding").exists());
}

#[tokio::test]
async fn an_index_that_another_process_writes_is_left_alone() {
    let data = tempfile::tempdir().unwrap();
    let folder = folder::of(data.path(), "movies");
    let index = earlier(&folder);
    let writer: IndexWriter<TantivyDocument> = index.writer_with_num_threads(1, ARENA).unwrap();
    let error = EmbeddedStore::new(data.path(), "movies").prepare(&plan().selection).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("another process"), "{error}");
    drop(writer);
    EmbeddedStore::new(data.path(), "movies").prepare(&plan().selection).await.unwrap();
}
