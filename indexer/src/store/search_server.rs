//! Elasticsearch 8 and 9, and OpenSearch 2 and 3, as document stores.
//!
//! Both are spoken to in what they have in common, as plain `application/json`: the vendor media types of one are refused by
//! the other. The client library neither retries nor looks into answers; every status and every item of a bulk answer is
//! judged here ([`bulk`], [`http`]).
//!
//! Which copy of a shard answers matters: under OpenSearch's segment replication a `refresh` reaches the primary alone, and the
//! other copies get its segments later. So OpenSearch is asked for its primaries, always. Elasticsearch replicates documents:
//! `refresh` reaches every copy in use, and it knows no such preference.

mod bulk;
mod http;
mod prepare;
mod reading;
mod settings;

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Instant;

use async_trait::async_trait;
use elasticsearch::http::Method;
use serde_json::{Value as Json, json};
use tributary_dsl::plan::{SearchServer, Selection};
use tributary_event::ErrorClass;

use self::http::Server;
use super::{
    DocumentStore, DocumentWrite, Head, Hit, IdPage, OlderPage, Prepared, SearchRequest, SearchResponse, StoreError,
    StoredDocument, Verdict, unfit_id, unindexed::Unindexed,
};
use crate::documents::mapping::{self, Dialect, Fields, HASH, KEY, REFS, STAMP, UNINDEXED};

/// Ids of one `_mget`.
const IDS: usize = 1_000;

/// One index on a search server.
pub struct SearchServerStore {
    server: Server,
    settings: SearchServer,
    dialect: Dialect,
    name: String,
    unindexed: Unindexed,
    /// Known once prepared.
    prepared: OnceLock<PreparedIndex>,
}

/// What is known of a prepared index.
struct PreparedIndex {
    fields: Fields,
    /// What a query without a field name is asked of.
    search_fields: Vec<String>,
}

impl SearchServerStore {
    /// The index `name` on a server. Connects to nothing yet.
    pub fn new(settings: &SearchServer, dialect: Dialect, name: &str) -> Result<Self, StoreError> {
        let server = Server::new(settings)?;
        let (settings, unindexed) = (settings.clone(), Unindexed::new(name));
        Ok(Self { server, settings, dialect, name: name.to_owned(), unindexed, prepared: OnceLock::new() })
    }

    fn path(&self, call: &str) -> String {
        format!("/{}/{call}", self.name)
    }

    /// Documents by id, as last written.
    async fn documents(&self, ids: &[String], source: &str) -> Result<Vec<Option<Json>>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(IDS) {
            // An id that the server would refuse, and the whole call with it, cannot be there.
            let asked: Vec<&String> = ids.iter().filter(|id| unfit_id(id).is_none()).collect();
            let mut docs = Vec::new();
            if !asked.is_empty() {
                let path = self.path(&format!("_mget?realtime=true{}{source}", reading::primary(self.dialect)));
                let mut answer = self.server.expect(Method::Post, &path, Some(&json!({ "ids": asked }))).await?;
                if let Some(Json::Array(answered)) = answer.get_mut("docs").map(Json::take) {
                    docs = answered;
                }
            }
            let mut docs = docs.into_iter();
            for id in ids {
                if unfit_id(id).is_some() {
                    found.push(None);
                    continue;
                }
                let doc = docs.next().unwrap_or(Json::Null);
                found.push(match (&doc["error"], doc["found"].as_bool()) {
                    (Json::Null, Some(true)) => Some(doc),
                    (Json::Null, Some(false)) => None,
                    (Json::Null, None) => {
                        let message = format_args!("an answer to _mget has no entry for `{id}`");
                        return Err(self.server.error(ErrorClass::Transient, message));
                    }
                    (error, _) => return Err(self.item_error(error)),
                });
            }
        }
        Ok(found)
    }

    /// Verdicts of writes that met a newer stamp which the answer does not name. Of a deleted document it cannot be read either.
    async fn read_stored_stamps(
        &self,
        writes: &[DocumentWrite],
        conflicts: &[usize],
        verdicts: &mut [Option<Verdict>],
    ) -> Result<(), StoreError> {
        if conflicts.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = conflicts.iter().map(|position| writes[*position].id.clone()).collect();
        for (position, head) in conflicts.iter().zip(self.heads(&ids).await?) {
            verdicts[*position] = Some(match head {
                Some(head) => Verdict::Superseded { stored: head.stamp },
                None => bulk::newer_delete(),
            });
        }
        Ok(())
    }

    /// Both servers heed `require_alias` for index actions alone: a delete with an external version creates a missing index
    /// all the same. So the alias is looked for first; what may still happen in between is seen in the answer.
    async fn require_alias(&self) -> Result<(), StoreError> {
        let path = format!("/_alias/{}", self.name);
        let answer = self.server.answer(Method::Get, &path, None).await?;
        match answer.status {
            200 => Ok(()),
            404 => Err(self.missing(&bulk::reason(&answer.body["error"]))),
            _ => Err(self.server.failure(&path, &answer)),
        }
    }

    fn item_error(&self, error: &Json) -> StoreError {
        let reason = bulk::reason(error);
        match error["type"].as_str() {
            Some("index_not_found_exception") => self.missing(&reason),
            _ => self.server.error(ErrorClass::Transient, format_args!("{reason}")),
        }
    }

    fn missing(&self, reason: &str) -> StoreError {
        let message = format_args!(
            "the index behind the alias `{0}` is gone ({reason}); it is never created by a write: \
             start again to have it created and built, or point the alias `{0}` at an index",
            self.name
        );
        self.server.error(ErrorClass::Fatal, message)
    }
}

#[async_trait]
impl DocumentStore for SearchServerStore {
    async fn prepare(&self, shape: &Selection) -> Result<Prepared, StoreError> {
        let fields = mapping::fields(shape).map_err(|e| StoreError::caused(ErrorClass::Fatal, e.to_string(), e))?;
        let prepared = prepare::prepare(&self.server, &self.settings, self.dialect, &self.name, shape).await?;
        self.prepared.get_or_init(|| {
            let search_fields = mapping::default_search_fields(&fields);
            PreparedIndex { fields, search_fields }
        });
        Ok(prepared)
    }

    async fn write(&self, writes: &[DocumentWrite]) -> Result<Vec<Verdict>, StoreError> {
        let Some(PreparedIndex { fields, .. }) = self.prepared.get() else {
            let message = format_args!("the index `{}` is not prepared yet: the pipeline is starting", self.name);
            return Err(self.server.error(ErrorClass::Transient, message));
        };
        let mut verdicts = vec![None; writes.len()];
        let mut conflicts = Vec::new();
        let items: Vec<_> = writes.iter().map(|write| bulk::Item::new(fields, write)).collect();
        let mut chunks = bulk::encode(&items, &mut verdicts);
        chunks.reverse();
        while let Some(chunk) = chunks.pop() {
            if chunk.deletes(writes) {
                self.require_alias().await?;
            }
            let started = Instant::now();
            let answer = self.server.bulk(&self.path("_bulk?require_alias=true"), chunk.body.clone()).await?;
            metrics::histogram!("tributary_store_bulk_seconds", "index" => self.name.clone()).record(started.elapsed());
            match bulk::judge(&answer, &chunk, writes, &self.name) {
                bulk::Judgement::Verdicts(judged) => {
                    for (position, verdict) in chunk.positions.iter().zip(judged) {
                        match verdict {
                            Some(verdict) => verdicts[*position] = Some(verdict),
                            None => conflicts.push(*position),
                        }
                    }
                }
                bulk::Judgement::TooLarge => chunks.extend(chunk.halves(&items)),
                bulk::Judgement::IndexMissing(reason) => return Err(self.missing(&reason)),
                bulk::Judgement::Failed => return Err(self.server.failure("_bulk", &answer)),
            }
        }
        self.read_stored_stamps(writes, &conflicts, &mut verdicts).await?;
        for ((write, item), verdict) in writes.iter().zip(&items).zip(&verdicts) {
            if let (Ok(item), Some(Verdict::Written)) = (item, verdict) {
                self.unindexed.count(&write.id, item.unindexed());
            }
        }
        verdicts.into_iter().collect::<Option<Vec<_>>>().ok_or_else(|| {
            self.server.error(ErrorClass::Transient, format_args!("the answer to _bulk has too few items"))
        })
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        self.server.whole(Method::Post, &self.path("_refresh"), None).await.map(|_| ())
    }

    async fn heads(&self, ids: &[String]) -> Result<Vec<Option<Head>>, StoreError> {
        let found = self.documents(ids, "&_source_includes=_stamp,_hash").await?;
        let head = |doc: Json| Head {
            stamp: doc["_source"][STAMP].as_u64().unwrap_or(0),
            hash: doc["_source"][HASH].as_str().unwrap_or_default().to_owned(),
        };
        Ok(found.into_iter().map(|doc| doc.map(head)).collect())
    }

    async fn lookup(&self, references: &[String], after: Option<&str>, size: usize) -> Result<IdPage, StoreError> {
        reading::lookup(self, references, after, size).await
    }

    async fn older(
        &self,
        references: &[String],
        stamps: Range<u64>,
        after: Option<&str>,
        size: usize,
    ) -> Result<OlderPage, StoreError> {
        reading::older(self, references, stamps, after, size).await
    }

    async fn frequencies(&self, references: &[String]) -> Result<Vec<u64>, StoreError> {
        reading::frequencies(self, references).await
    }

    async fn newest_stamp(&self) -> Result<u64, StoreError> {
        reading::newest_stamp(self).await
    }

    async fn scan(&self, after: Option<&str>, size: usize) -> Result<Vec<String>, StoreError> {
        reading::scan(self, after, size).await
    }

    async fn get(&self, id: &str) -> Result<Option<StoredDocument>, StoreError> {
        let found = self.documents(&[id.to_owned()], "").await?.pop().flatten();
        let Some(mut doc) = found else { return Ok(None) };
        let (content, ours) = bulk::content(doc["_source"].take());
        let ours = |name| ours.get(name).unwrap_or(&Json::Null);
        let hash = ours(HASH).as_str().unwrap_or_default().to_owned();
        let (refs, stamp) = (reading::texts(ours(REFS)), ours(STAMP).as_u64().unwrap_or(0));
        Ok(Some(StoredDocument { id: id.to_owned(), content, refs, stamp, hash }))
    }

    async fn search(&self, request: &SearchRequest) -> Result<SearchResponse, StoreError> {
        super::check_window(request)?;
        let query = match request.query.trim() {
            "" | "*" => json!({ "match_all": {} }),
            text => match self.prepared.get().map(|prepared| &prepared.search_fields) {
                Some(fields) if !fields.is_empty() => {
                    json!({ "query_string": { "query": text, "fields": fields } })
                }
                _ => json!({ "query_string": { "query": text } }),
            },
        };
        let body = json!({
            "query": query, "from": request.from, "size": request.size, "track_total_hits": true,
            "_source": { "excludes": [REFS, STAMP, HASH, KEY, UNINDEXED] },
        });
        let answer = reading::ask(self, &body).await?;
        let hit = |hit: &Json| Hit {
            id: hit["_id"].as_str().unwrap_or_default().to_owned(),
            score: hit["_score"].as_f64().unwrap_or(0.0) as f32,
            content: bulk::content(hit["_source"].clone()).0,
        };
        let total = answer["hits"]["total"]["value"].as_u64().unwrap_or(0);
        Ok(SearchResponse { total, hits: reading::hits(&answer).map(hit).collect() })
    }

    async fn count(&self) -> Result<u64, StoreError> {
        let path = self.path(&format!("_count?{}", reading::primary(self.dialect)));
        let answer = self.server.whole(Method::Post, &path, None).await?;
        answer["count"]
            .as_u64()
            .ok_or_else(|| self.server.error(ErrorClass::Transient, format_args!("the answer to _count has no count")))
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let path = format!("/_cluster/health/{}?timeout=1s", self.name);
        let answer = self.server.answer(Method::Get, &path, None).await?;
        match answer.body["status"].as_str() {
            Some("green" | "yellow") if self.prepared.get().is_some() => {
                settings::secure(&self.server, &self.name).await
            }
            Some("green" | "yellow") => Ok(()),
            Some(status) => Err(self.server.error(
                ErrorClass::Transient,
                format_args!(
                    "index `{}` is {status}: a primary shard is not available, or the index is gone",
                    self.name
                ),
            )),
            None => Err(self.server.failure(&path, &answer)),
        }
    }
}
