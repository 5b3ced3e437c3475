//! An audit: whether what a source published is all in its topics, and whether an index has what the source and the graph have.
//!
//! Of topics the running numbers are looked at, of a window of time. Of an index all ids are compared with those of all roots, and the
//! content of some documents (those whose roots changed of late, and others from all over the index) with what the graph answers
//! now. While a pipeline works the two always differ a little, so only what differs twice, some seconds apart, is told.

mod content;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tributary_dsl::plan::{IndexPlan, Plan};
use tributary_event::ErrorClass;
use tributary_event::debezium::{self, Decoder};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::numbers::Numbered;
use tributary_transport::order::{Finding, Order};
use tributary_transport::{Polled, TopicPartition, Transport, TransportError, Watermarks};

use crate::graph::{Graph, GraphError};
use crate::listing::RootIdSource;
use crate::request::names;
use crate::resolve::order::{is_numbered, say};
use crate::resolve::vertices::touched;
use crate::store::{DocumentStore, StoreError};

/// Records read at a time.
const PAGE: usize = 2_000;
/// Offsets before the window that are read for the number that it begins with.
const BEFORE: u64 = 64;
/// Seconds that an end which lacks records is waited for.
const PATIENCE: u32 = 10;
/// Findings and ids that are named.
const NAMED: usize = 10;
/// Ids that are known to differ at most; more are counted, and looked at once only.
const DIFFERENT: usize = 10_000;
/// Between two looks at what differs.
const PAUSE: Duration = Duration::from_secs(10);

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The topics of tables.
    pub topics: Vec<TopicAudit>,
    /// The indexes.
    pub indexes: Vec<IndexAudit>,
}

impl Audit {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.topics.iter().all(TopicAudit::is_well) && self.indexes.iter().all(IndexAudit::is_well)
    }
}

/// What the topic of a table says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicAudit {
    /// The topic.
    pub topic: String,
    /// Records within the window.
    pub records: u64,
    /// Of these, records without a number: others than a source of this version appended them.
    pub unnumbered: u64,
    /// Records that are missing.
    pub missing: u64,
    /// Records that came twice.
    pub doubled: u64,
    /// Records that came late.
    pub reordered: u64,
    /// The first of what is wrong, in words.
    pub findings: Vec<String>,
}

impl TopicAudit {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.missing == 0 && self.doubled == 0 && self.reordered == 0
    }

    fn add(&mut self, place: &TopicPartition, offset: u64, finding: Finding) {
        match finding {
            Finding::Missing { .. } => self.missing += finding.records(),
            Finding::Doubled { .. } => self.doubled += 1,
            Finding::Reordered { .. } => self.reordered += 1,
        }
        if self.findings.len() < NAMED {
            self.findings.push(say(place, offset, finding));
        }
    }
}

/// What an index says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexAudit {
    /// The index.
    pub index: String,
    /// Roots that there are.
    pub roots: u64,
    /// Documents that it has.
    pub documents: u64,
    /// Documents that were set aside as dead letters. They are not among those that are missing.
    pub set_aside: u64,
    /// Roots without a document.
    pub missing: u64,
    /// Documents without a root.
    pub extra: u64,
    /// Documents whose content was compared with the graph.
    pub compared: u64,
    /// Of these, documents that are not what the graph says.
    pub stale: u64,
    /// Some of the ids that are missing, extra or stale, with which of it.
    pub named: Vec<String>,
}

impl IndexAudit {
    /// Whether nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.missing == 0 && self.extra == 0 && self.stale == 0
    }
}

/// An audit could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AuditError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// Place, cause, remedy.
    pub message: String,
}

impl From<TransportError> for AuditError {
    fn from(error: TransportError) -> Self {
        Self { class: error.class, message: error.message }
    }
}

impl From<StoreError> for AuditError {
    fn from(error: StoreError) -> Self {
        Self { class: error.class, message: error.message }
    }
}

impl From<GraphError> for AuditError {
    fn from(error: GraphError) -> Self {
        Self { class: error.class, message: error.message }
    }
}

/// An index to look at.
#[derive(Clone)]
pub struct Subject {
    /// Its plan.
    pub plan: IndexPlan,
    /// Its documents.
    pub store: Arc<dyn DocumentStore>,
    /// The ids of its roots.
    pub roots: Arc<dyn RootIdSource>,
    /// The graph that they are built from.
    pub graph: Arc<dyn Graph>,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Records from this moment on, milliseconds since the Unix epoch.
    pub since_ms: i64,
    /// Documents of each index whose content is compared: so many from all over it, and so many whose root changed.
    pub documents: usize,
}

/// Audits a pipeline.
///
/// # Errors
/// The transport, a store, a source or the graph did not answer.
pub async fn audit(
    plan: &Plan,
    transport: &Arc<dyn Transport>,
    subjects: &[Subject],
    scope: Scope,
) -> Result<Audit, AuditError> {
    let mut audit = Audit::default();
    let mut changed = Changed::new(subjects, scope.documents);
    for source in &plan.sources {
        for table in source.tables() {
            let topic = debezium::topic(&source.name, &table.schema, &table.name);
            let found =
                look_at(transport.as_ref(), &topic, scope.since_ms, |record| changed.take(plan, record)).await?;
            audit.topics.push(found);
        }
    }
    let letters = DeadLetters::new(transport.clone(), names::dead_letters(&plan.pipeline)).list().await?;
    let letters: HashSet<String> = letters.into_iter().map(|letter| letter.subject).collect();
    for subject in subjects {
        let roots = changed.roots.remove(&subject.plan.name).unwrap_or_default();
        audit.indexes.push(compare(subject, roots.into(), &letters, scope.documents).await?);
    }
    Ok(audit)
}

/// Roots of indexes that changed of late, the newest last.
struct Changed {
    decoder: Decoder,
    /// By index.
    roots: HashMap<String, VecDeque<String>>,
    types: Vec<(String, String)>,
    most: usize,
}

impl Changed {
    fn new(subjects: &[Subject], most: usize) -> Self {
        let types = subjects.iter().map(|s| (s.plan.name.clone(), s.plan.root_type.clone())).collect();
        Self { decoder: Decoder::new(), roots: HashMap::new(), types, most }
    }

    fn take(&mut self, plan: &Plan, record: &Polled) {
        let decoded = self.decoder.decode(record.key.as_deref(), record.value.as_deref());
        let Ok(Some(event)) = decoded else { return };
        for vertex in touched(&event, &plan.graph.vertices).vertices {
            for (index, _) in self.types.iter().filter(|(_, root)| *root == vertex.type_name) {
                let roots = self.roots.entry(index.clone()).or_default();
                if roots.len() >= self.most {
                    roots.pop_front();
                }
                if self.most > 0 && roots.back() != Some(&vertex.id) {
                    roots.push_back(vertex.id.clone());
                }
            }
        }
    }
}

/// Looks at the numbers of a topic's records.
async fn look_at(
    transport: &dyn Transport,
    topic: &str,
    since_ms: i64,
    mut hear: impl FnMut(&Polled),
) -> Result<TopicAudit, AuditError> {
    let mut audit = TopicAudit { topic: topic.to_owned(), ..TopicAudit::default() };
    if transport.partitions(topic).await? == 0 {
        return Ok(audit);
    }
    // First the numbers: what has got them is in its partition by now, or will be in a moment.
    let given = transport.numbers().await?;
    let given: Vec<&Numbered> = given.iter().filter(|(of, _)| of == topic).map(|(_, numbered)| numbered).collect();
    for (partition, ends) in transport.watermarks(topic).await?.into_iter().enumerate() {
        let place = TopicPartition { topic: topic.into(), partition: partition as u32 };
        let mut from = beginning(transport, &place, ends, since_ms).await?;
        let mut order = Order::default();
        // What stands before the window tells nothing but the number that the window begins with.
        let mut earlier = transport.read(&place, from.saturating_sub(BEFORE), BEFORE as usize).await?;
        earlier.retain(|record| record.offset < from);
        order.before(&earlier);
        let (mut high, mut patience) = (ends.high, PATIENCE);
        loop {
            while from < high {
                let records = transport.read(&place, from, PAGE).await?;
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                for record in &records {
                    audit.records += 1;
                    audit.unnumbered += u64::from(!is_numbered(record));
                    hear(record);
                    if let Some(finding) = order.take(record) {
                        audit.add(&place, record.offset, finding);
                    }
                }
            }
            let last = given.iter().filter_map(|numbered| numbered.last(place.partition));
            let lacking: Vec<_> = last.filter(|last| order.lacks(*last).is_some()).collect();
            if lacking.is_empty() {
                break;
            }
            if patience == 0 {
                lacking.into_iter().filter_map(|last| order.lost(last)).for_each(|f| audit.add(&place, from, f));
                break;
            }
            // The end of a transaction may be told by one broker and not yet by another.
            patience -= 1;
            tokio::time::sleep(Duration::from_secs(1)).await;
            high = transport.watermarks(topic).await?.get(place.partition as usize).map_or(high, |ends| ends.high);
        }
    }
    Ok(audit)
}

/// The first offset of a window of time, about. Times of records rise, but for a little.
async fn beginning(
    transport: &dyn Transport,
    place: &TopicPartition,
    ends: Watermarks,
    since_ms: i64,
) -> Result<u64, AuditError> {
    let (mut low, mut high) = (ends.low, ends.high);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = transport.read(place, middle, 1).await?;
        match found.first() {
            Some(record) if record.timestamp_ms < since_ms => low = record.offset + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// What differs between an index and its roots.
#[derive(Debug, Default)]
struct Differences {
    roots: u64,
    documents: u64,
    compared: u64,
    /// All that are missing, extra and stale, and of these those that are known by name.
    counts: [u64; 3],
    known: [BTreeSet<String>; 3],
}

const MISSING: usize = 0;
const EXTRA: usize = 1;
const STALE: usize = 2;

impl Differences {
    fn add(&mut self, kind: usize, id: String) {
        self.counts[kind] += 1;
        if self.known[kind].len() < DIFFERENT {
            self.known[kind].insert(id);
        }
    }

    fn are_none(&self) -> bool {
        self.counts == [0; 3]
    }

    /// Takes out what did not differ before.
    fn stay(&mut self, before: &Self) {
        for kind in [MISSING, EXTRA, STALE] {
            if self.counts[kind] as usize <= DIFFERENT && before.counts[kind] as usize <= DIFFERENT {
                self.known[kind].retain(|id| before.known[kind].contains(id));
                self.counts[kind] = self.known[kind].len() as u64;
            }
        }
    }
}

/// Compares an index with its roots and with the graph.
async fn compare(
    subject: &Subject,
    changed: Vec<String>,
    letters: &HashSet<String>,
    documents: usize,
) -> Result<IndexAudit, AuditError> {
    let name = &subject.plan.name;
    let is_set_aside = |id: &str| letters.contains(&format!("{name}/{id}"));
    let mut differences = content::look(subject, &changed, &is_set_aside, documents).await?;
    if !differences.are_none() {
        tokio::time::sleep(PAUSE).await;
        let before =
            std::mem::replace(&mut differences, content::look(subject, &changed, &is_set_aside, documents).await?);
        differences.stay(&before);
    }
    let prefix = format!("{name}/");
    let mut named = Vec::new();
    for (kind, what) in [(MISSING, "missing"), (EXTRA, "extra"), (STALE, "stale")] {
        named.extend(differences.known[kind].iter().take(NAMED).map(|id| format!("{id}: {what}")));
    }
    Ok(IndexAudit {
        index: name.clone(),
        roots: differences.roots,
        documents: differences.documents,
        set_aside: letters.iter().filter(|subject| subject.starts_with(&prefix)).count() as u64,
        missing: differences.counts[MISSING],
        extra: differences.counts[EXTRA],
        compared: differences.compared,
        stale: differences.counts[STALE],
        named,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_twice_is_told() {
        let of = |ids: &[&str]| {
            let mut differences = Differences::default();
            ids.iter().for_each(|id| differences.add(STALE, (*id).to_owned()));
            differences
        };
        let mut now = of(&["2", "3", "4"]);
        now.stay(&of(&["1", "3"]));
        assert_eq!((now.counts, now.known[STALE].clone()), ([0, 0, 1], BTreeSet::from(["3".to_owned()])));
        now.stay(&of(&[]));
        assert!(now.are_none());
    }
}
