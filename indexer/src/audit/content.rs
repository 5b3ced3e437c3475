//! One look at an index: its ids beside those of all roots, and some of its documents beside what the graph answers.
//!
//! Ids are kept as hashes, eight bytes each: an index of ten million documents is looked at within 160 MB.

use std::collections::HashSet;
use std::time::Duration;

use tributary_event::ErrorClass;
use xxhash_rust::xxh3::xxh3_64;

use super::{AuditError, Differences, EXTRA, MISSING, STALE, Subject};
use crate::documents::document::assemble;
use crate::graph::Fetched;

/// Ids of one page.
const PAGE: usize = 5_000;
/// Documents that are asked for at a time.
const TOGETHER: usize = 50;
/// How long one answer of the graph is waited for.
const ANSWER: Duration = Duration::from_secs(60);

/// Looks once.
pub(super) async fn look(
    subject: &Subject,
    changed: &[String],
    is_set_aside: &(dyn Fn(&str) -> bool + Sync),
    documents: usize,
) -> Result<Differences, AuditError> {
    subject.store.refresh().await?;
    let mut found = Differences::default();
    let count = subject.store.count().await?;
    let every = (count / (documents.max(1) as u64)).max(1);
    let (mut hashes, mut chosen) = (Vec::with_capacity(count as usize), changed.to_vec());
    scan(subject, |id| {
        if documents > 0 && found.documents % every == 0 {
            chosen.push(id.clone());
        }
        hashes.push(xxh3_64(id.as_bytes()));
        found.documents += 1;
    })
    .await?;
    hashes.sort_unstable();
    let mut matched = vec![false; hashes.len()];
    let mut after: Option<String> = None;
    loop {
        let page = subject.roots.page(after.as_deref(), PAGE).await?;
        for id in page.ids {
            found.roots += 1;
            match hashes.binary_search(&xxh3_64(id.as_bytes())) {
                Ok(at) => matched[at] = true,
                Err(_) if is_set_aside(&id) => {}
                Err(_) => found.add(MISSING, id),
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let extra: HashSet<u64> = hashes.iter().zip(&matched).filter(|(_, matched)| !**matched).map(|(h, _)| *h).collect();
    drop((hashes, matched));
    if !extra.is_empty() {
        scan(subject, |id| {
            if extra.contains(&xxh3_64(id.as_bytes())) {
                found.add(EXTRA, id);
            }
        })
        .await?;
    }
    chosen.sort_unstable();
    chosen.dedup();
    for ids in chosen.chunks(TOGETHER) {
        compare(subject, ids, is_set_aside, &mut found).await?;
    }
    Ok(found)
}

/// Hears every id of an index.
async fn scan(subject: &Subject, mut hear: impl FnMut(String)) -> Result<(), AuditError> {
    let mut after: Option<String> = None;
    loop {
        let ids = subject.store.scan(after.as_deref(), PAGE).await?;
        let Some(last) = ids.last().cloned() else { return Ok(()) };
        ids.into_iter().for_each(&mut hear);
        after = Some(last);
    }
}

/// Compares documents with what the graph answers. One that either of them does not have is looked at with the ids, and one that the
/// graph cannot answer says nothing.
async fn compare(
    subject: &Subject,
    ids: &[String],
    is_set_aside: &(dyn Fn(&str) -> bool + Sync),
    found: &mut Differences,
) -> Result<(), AuditError> {
    let heads = subject.store.heads(ids).await?;
    let Ok(fetched) = tokio::time::timeout(ANSWER, subject.graph.fetch(&subject.plan, ids)).await else {
        let message =
            format!("the graph did not answer within {ANSWER:?}, when it was asked for {} documents", ids.len());
        return Err(AuditError { class: ErrorClass::Transient, message });
    };
    for ((id, head), fetched) in ids.iter().zip(heads).zip(fetched?) {
        let (Some(head), Fetched::Found(json)) = (head, fetched) else { continue };
        let Ok(document) = assemble(&subject.plan, &json) else { continue };
        found.compared += 1;
        if document.hash != head.hash && !is_set_aside(id) {
            found.add(STALE, id.clone());
        }
    }
    Ok(())
}
