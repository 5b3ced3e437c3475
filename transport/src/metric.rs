//! The counters of this room, by topic.

use std::sync::Arc;

use crate::contract::{Batch, Polled};

/// Counts what was appended.
pub(crate) fn appended(batch: &Batch) {
    let count = |topic: &Arc<str>, records: u64, bytes: u64| {
        if records > 0 {
            let topic = topic.to_string();
            metrics::counter!("tributary_topic_appended_records_total", "topic" => topic.clone()).increment(records);
            metrics::counter!("tributary_topic_appended_bytes_total", "topic" => topic).increment(bytes);
        }
    };
    runs(batch.records().map(|record| (record.topic, record.size())), count);
}

/// Counts what was read by a group.
pub(crate) fn polled(group: &str, records: &[Polled]) {
    let size = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    let count = |topic: &Arc<str>, records: u64, bytes: u64| {
        let (topic, group) = (topic.to_string(), group.to_owned());
        metrics::counter!("tributary_topic_polled_records_total", "topic" => topic.clone(), "group" => group.clone())
            .increment(records);
        metrics::counter!("tributary_topic_polled_bytes_total", "topic" => topic, "group" => group).increment(bytes);
    };
    runs(records.iter().map(|r| (&r.place.topic, size(&r.key) + size(&r.value) + r.headers.view().size())), count);
}

/// Sums up per run of equal topics, so that a counter is looked up once a run.
fn runs<'a>(items: impl Iterator<Item = (&'a Arc<str>, usize)>, mut count: impl FnMut(&Arc<str>, u64, u64)) {
    let mut run: Option<(&Arc<str>, u64, u64)> = None;
    for (topic, size) in items {
        match &mut run {
            Some((of, records, bytes)) if Arc::ptr_eq(of, topic) => {
                *records += 1;
                *bytes += size as u64;
            }
            _ => {
                if let Some((topic, records, bytes)) = run.replace((topic, 1, size as u64)) {
                    count(topic, records, bytes);
                }
            }
        }
    }
    if let Some((topic, records, bytes)) = run {
        count(topic, records, bytes);
    }
}
