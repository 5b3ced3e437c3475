//! Which documents of an index a change affects, and how urgently they are built again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tributary_processor::{StageError, until_answered};

use super::looks::{Waiting, tell_missed};
use super::supernodes::Supernode;
use super::{Batch, Resolver};
use crate::context::IndexContext;
use crate::graph::Vertex;
use crate::request::{BuildRequest, Cause, Lane, names};
use crate::store::StoreError;

/// References of one lookup at most.
const REFERENCES: usize = 1000;
/// A vertex that more documents embed has its documents built in the bulk lane. Tests have few documents.
pub(super) const SUPERNODE: usize = if cfg!(test) { 0 } else { 1000 };
/// References that are looked up together where some of them are in many documents.
const FEW_REFERENCES: usize = 50;
/// Documents of one group that may be gathered beside those of all others. One group at a time may gather more.
const GATHERED: usize = 20_000;
/// Ids of one page of a lookup.
const PAGE: usize = 10_000;

/// The documents of one index that a change affects.
#[derive(Debug, Default)]
pub struct Affected {
    /// Those of vertices that few documents embed.
    pub documents: BTreeSet<String>,
    /// References that many documents hold, with how many those are, about.
    pub supernodes: BTreeMap<String, u64>,
}

impl Affected {
    /// How many documents there are, about.
    pub fn len(&self) -> u64 {
        self.documents.len() as u64 + self.supernodes.values().sum::<u64>()
    }
}

/// The room for the documents of one group of changes, or of one look at them. Most need little; those that need more do so one after the
/// other, so that many at a time do not need many times as much memory.
#[derive(Debug, Default)]
pub(super) struct Gathering(Option<OwnedSemaphorePermit>);

impl Gathering {
    async fn room_for(&mut self, documents: usize, waiting: &Waiting) {
        if documents > GATHERED && self.0.is_none() {
            self.0 = waiting.many.clone().acquire_owned().await.ok();
        }
    }
}

impl Resolver {
    /// Documents whose root is one of the vertices, and documents that embed one.
    pub(super) async fn look_up(
        &self,
        index: &IndexContext,
        vertices: &[Vertex],
        affected: &mut Affected,
        gathering: &mut Gathering,
    ) -> Result<(), StageError> {
        let supernode = self.settling.supernode;
        let (mut references, mut embedded) = (Vec::new(), Vec::new());
        for vertex in vertices {
            if vertex.type_name == index.plan.root_type {
                affected.documents.insert(vertex.id.clone());
            }
            if index.plan.edges.iter().any(|e| e.child_type == vertex.type_name) {
                references.push(vertex.reference());
                embedded.push(vertex);
            }
        }
        for (chunk, embedded) in references.chunks(REFERENCES).zip(embedded.chunks(REFERENCES)) {
            let page = answered(index, || index.store.lookup(chunk, None, supernode + 2 * chunk.len())).await?;
            index.looked_up(embedded, !page.ids.is_empty());
            if page.next.is_none() {
                affected.documents.extend(page.ids);
                continue;
            }
            let counts = answered(index, || index.store.frequencies(chunk)).await?;
            let mut light = Vec::new();
            for (reference, count) in chunk.iter().zip(counts) {
                if count > supernode as u64 {
                    affected.supernodes.insert(reference.clone(), count);
                } else {
                    light.push(reference.clone());
                }
            }
            for few in light.chunks(FEW_REFERENCES) {
                let mut after: Option<String> = None;
                loop {
                    gathering.room_for(affected.documents.len() + PAGE, &self.settling).await;
                    let page = answered(index, || index.store.lookup(few, after.as_deref(), PAGE)).await?;
                    affected.documents.extend(page.ids);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Asks for builds of documents that changes until `stamp` affect, and leaves supernodes to the batch that they belong to.
    pub(super) async fn request(
        &self,
        index: &IndexContext,
        affected: Affected,
        (cause, stamp): (&Cause, u64),
        batch: &mut Batch,
    ) -> Result<(), StageError> {
        let bulk = if affected.documents.is_empty() { cause.id.clone() } else { format!("{}/bulk", cause.id) };
        for (reference, documents) in affected.supernodes {
            let cause = Cause { id: bulk.clone(), ..cause.clone() };
            batch.add_supernode(&index.plan.name, reference, Supernode { cause, documents, asked: None });
        }
        let documents: Vec<String> = affected.documents.into_iter().collect();
        index.note_requested(&documents, stamp);
        let cause = Cause { affected: documents.len() as u64, ..cause.clone() };
        self.post(index, documents, &cause, (Lane::Live, stamp)).await
    }

    /// A page of the documents that hold references, and where the next one starts.
    pub(super) async fn holders(
        &self,
        index: &IndexContext,
        references: &[String],
        after: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), StageError> {
        let page = answered(index, || index.store.lookup(references, after, PAGE)).await?;
        Ok((page.ids, page.next))
    }

    /// Sends requests.
    pub(super) async fn post(
        &self,
        index: &IndexContext,
        documents: Vec<String>,
        cause: &Cause,
        (lane, stamp): (Lane, u64),
    ) -> Result<(), StageError> {
        let topic: Arc<str> = names::builds(&self.pipeline, &index.plan.name, lane).into();
        let request = |id| BuildRequest { id, cause: cause.clone(), stamp }.into_record(&topic);
        self.outbox.post(documents.into_iter().map(request)).await
    }

    /// Asks for builds of the documents of an index that missed a change of a batch: they embed what changed, their last write is of a
    /// build that began before it can have seen the change, and nobody was asked for them since. A page at a time; how many there were.
    pub(super) async fn request_missed(
        &self,
        index: &IndexContext,
        batch: &Batch,
        stamp: u64,
    ) -> Result<u64, StageError> {
        let times = index.times();
        let shown: Vec<(String, u64)> = batch
            .changed
            .iter()
            .filter(|(type_name, ..)| index.shows(type_name))
            .map(|(type_name, id, stamp)| (Vertex::new(type_name, id).reference(), stamp))
            .collect();
        // Of those that hold a supernode, only the youngest may have missed it.
        let supernode = |reference: &str| batch.supernode(&index.plan.name, reference);
        let covered = |(reference, stamp): &(String, u64)| {
            supernode(reference).and_then(|supernode| supernode.covered_before(*stamp, times)).unwrap_or_default()
        };
        let (plain, heavy): (Vec<_>, Vec<_>) = shown.into_iter().partition(|changed| covered(changed) == 0);
        let (mut all, mut pages) = (0, 0);
        for chunk in plain.chunks(REFERENCES).chain(heavy.chunks(1)) {
            let references: Vec<String> = chunk.iter().map(|(reference, _)| reference.clone()).collect();
            let newest = chunk.iter().map(|(_, stamp)| *stamp).max().unwrap_or_default();
            let stamps: HashMap<&str, u64> =
                chunk.iter().map(|(reference, stamp)| (reference.as_str(), *stamp)).collect();
            let changed = |reference: &String| stamps.get(reference.as_str()).copied();
            let range = chunk.iter().map(covered).min().unwrap_or_default()..times.seen_from(newest);
            let mut after: Option<String> = None;
            loop {
                let page =
                    answered(index, || index.store.older(&references, range.clone(), after.as_deref(), PAGE)).await?;
                let mut missed = Vec::new();
                for document in page.documents {
                    let last = document
                        .refs
                        .iter()
                        .filter_map(changed)
                        .filter(|stamp| document.stamp < times.seen_from(*stamp))
                        .max();
                    if last.is_some_and(|stamp| !index.was_requested(&document.id, times.shown_from(stamp))) {
                        missed.push(document.id);
                    }
                }
                if let Some(cause) = batch.cause.as_ref().filter(|_| !missed.is_empty()) {
                    let affected = missed.len() as u64;
                    tell_missed(index, affected);
                    let cause = Cause { id: format!("{}/{stamp}/{pages}", cause.id), affected, ..cause.clone() };
                    index.note_requested(&missed, stamp);
                    self.post(index, missed, &cause, (Lane::Live, stamp)).await?;
                    all += affected;
                }
                pages += 1;
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(all)
    }

    /// Roots of a batch that have no document, or one of a build that may not have seen their change.
    pub(super) async fn unsure_roots(&self, index: &IndexContext, batch: &Batch) -> Result<Vec<String>, StageError> {
        let roots: Vec<(&str, u64)> = batch
            .changed
            .iter()
            .filter(|(type_name, id, stamp)| {
                *type_name == index.plan.root_type && !index.was_requested(id, self.times.shown_from(*stamp))
            })
            .map(|(_, id, stamp)| (id, stamp))
            .collect();
        let ids: Vec<String> = roots.iter().map(|(id, _)| (*id).to_owned()).collect();
        let heads = answered(index, || index.store.heads(&ids)).await?;
        heads.iter().flatten().for_each(|head| index.found_stamp(head.stamp));
        let unsure = roots
            .into_iter()
            .zip(heads)
            .filter(|((_, stamp), head)| head.as_ref().is_none_or(|head| head.stamp < self.times.seen_from(*stamp)));
        Ok(unsure.map(|((id, _), _)| id.to_owned()).collect())
    }

    /// What was written before is visible.
    pub(super) async fn refresh(&self, index: &IndexContext) -> Result<(), StageError> {
        answered(index, || index.store.refresh()).await?;
        Ok(())
    }
}

/// Asks a store until it answers.
async fn answered<T, F>(index: &IndexContext, mut ask: impl FnMut() -> F) -> Result<T, StageError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    // That it can be read does not say that it can be written, so an answer at once leaves the part as it is.
    if let Ok(answer) = ask().await {
        return Ok(answer);
    }
    let failed = |message| StageError::new(format!("index {}", index.plan.name), message);
    // Who stops the stage drops this.
    let never = CancellationToken::new();
    let answer = until_answered(&index.store_health, "look documents up", &never, ask).await;
    answer.map_err(|error| failed(error.message))?.ok_or_else(|| failed("the stage is stopping".to_owned()))
}
