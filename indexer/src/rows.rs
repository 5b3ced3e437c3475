//! Documents of rows: what a stream leaves becomes documents of an index, without a graph. The number of the change is the external
//! version, so an older event never replaces what a newer one left, however often it comes.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};
use tokio::sync::OnceCell;
use tributary_dsl::plan::{FieldKind, IndexSinkPlan, SelectedField, Selection};
use tributary_event::{ErrorClass, Op};
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};

use crate::documents::document::content_hash;
use crate::store::{Document, DocumentStore, DocumentWrite, StoreError, Verdict as Stored, WriteAction};

/// Events of one write at most.
const MOST: usize = 500;

/// An index that a stream fills.
pub struct RowIndex {
    store: Arc<dyn DocumentStore>,
    shape: Selection,
    /// The names of its fields.
    fields: Vec<String>,
    /// Whether events are as they were captured, so that a column that a row lacks did not change.
    merges: bool,
    prepared: OnceCell<()>,
}

/// The shape of documents with these fields.
pub fn shape(plan: &IndexSinkPlan) -> Selection {
    let field = |(name, leaf): &(String, _)| {
        let kind = FieldKind::Leaf(Clone::clone(leaf));
        SelectedField { list: true, ..SelectedField::new(name.clone(), kind) }
    };
    Selection { fields: plan.fields.iter().map(field).collect() }
}

/// The id of a row's document: its key, or the values of its key as a list.
pub fn document_id(row_key: &[u8], columns: &[String]) -> Option<String> {
    let key: Map<String, Json> = serde_json::from_slice(row_key).ok()?;
    let values: Vec<&Json> = columns.iter().map(|column| key.get(column)).collect::<Option<_>>()?;
    Some(match values.as_slice() {
        [Json::String(text)] => text.clone(),
        [only] => only.to_string(),
        several => serde_json::to_string(several).unwrap_or_default(),
    })
}

impl RowIndex {
    /// An index in a store.
    pub fn new(store: Arc<dyn DocumentStore>, plan: &IndexSinkPlan) -> Self {
        let fields = plan.fields.iter().map(|(name, _)| name.clone()).collect();
        let merges = plan.row.is_envelope && plan.row.row.is_none();
        Self { store, shape: shape(plan), fields, merges, prepared: OnceCell::new() }
    }

    /// Its documents.
    pub fn store(&self) -> &Arc<dyn DocumentStore> {
        &self.store
    }

    async fn prepared(&self) -> Result<(), StoreError> {
        let prepare = || async { self.store.prepare(&self.shape).await.map(drop) };
        self.prepared.get_or_try_init(prepare).await.map(drop)
    }

    /// What an event writes. `Err`: it is no row.
    async fn write(&self, event: &OutEvent, columns: &[String]) -> Result<Result<DocumentWrite, String>, StoreError> {
        let key = event.row_key.as_deref().unwrap_or_default();
        let Some(id) = document_id(key, columns) else { return Ok(Err("it has no key".to_owned())) };
        let stamp = event.sequence.min(i64::MAX as u64);
        let Some(content) = &event.content else {
            return Ok(Ok(DocumentWrite { id, stamp, action: WriteAction::Delete }));
        };
        let row: Map<String, Json> = match serde_json::from_slice(content) {
            Ok(row) => row,
            Err(error) => return Ok(Err(format!("its row is no object: {error}"))),
        };
        let lacks = self.merges && self.fields.iter().any(|field| !row.contains_key(field));
        let kept = if lacks { self.store.get(&id).await? } else { None };
        let field = |name: &String| {
            let value = row.get(name).or_else(|| kept.as_ref()?.content.get(name))?;
            Some((name.clone(), value.clone()))
        };
        let content = Json::Object(self.fields.iter().filter_map(field).collect());
        let hash = content_hash(&content, &[]);
        let action = WriteAction::Put(Arc::new(Document { content, refs: Vec::new(), hash }));
        Ok(Ok(DocumentWrite { id, stamp, action }))
    }
}

/// A [`RowIndex`] with the columns of its key.
pub struct RowSink {
    /// The index.
    pub index: Arc<RowIndex>,
    /// The columns that are a row's key.
    pub key: Vec<String>,
}

#[async_trait]
impl DeliverySink for RowSink {
    fn most(&self) -> usize {
        MOST
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let away = |error: StoreError| OutsideError {
            class: if error.class == ErrorClass::Definite { ErrorClass::Fatal } else { error.class },
            message: error.message,
        };
        self.index.prepared().await.map_err(away)?;
        let mut verdicts: Vec<Option<Verdict>> = vec![None; events.len()];
        let (mut writes, mut places) = (Vec::new(), Vec::new());
        for (place, event) in events.iter().enumerate() {
            if event.op == Op::Truncate {
                let why = "the table was emptied, and an index cannot be told so: delete its documents, and leave `t` out of `ops`";
                verdicts[place] = Some(Verdict::Rejected(why.to_owned()));
                continue;
            }
            match self.index.write(event, &self.key).await.map_err(away)? {
                Ok(write) => {
                    writes.push(write);
                    places.push(place);
                }
                Err(why) => verdicts[place] = Some(Verdict::Rejected(why)),
            }
        }
        if !writes.is_empty() {
            let stored = self.index.store.write(&writes).await.map_err(away)?;
            // What was written is durable and searchable when an event counts as delivered.
            self.index.store.refresh().await.map_err(away)?;
            for (place, stored) in places.into_iter().zip(stored) {
                verdicts[place] = Some(match stored {
                    Stored::Written => Verdict::Delivered,
                    Stored::Superseded { .. } => Verdict::Superseded,
                    Stored::Retry { after, reason } => Verdict::Retry { after: Some(after), why: reason },
                    Stored::Rejected { reason } => Verdict::Rejected(reason),
                });
            }
        }
        let unsaid = || Verdict::Retry { after: None, why: "the store did not say what became of it".to_owned() };
        Ok(verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(unsaid)).collect())
    }
}
