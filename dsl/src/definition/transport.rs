//! `transport:`: where events travel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::{
    Compression, Durability, EmbeddedSettings, KafkaSettings, Oversized, RecordSettings, RetentionSettings,
    TransportPlan,
};
use crate::yaml::{Map, Node, Reader};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const EMBEDDED_RETENTION: RetentionSettings = RetentionSettings { age: Some(WEEK), bytes: Some(10 << 30) };
const KAFKA_RETENTION: RetentionSettings = RetentionSettings { age: Some(WEEK), bytes: None };
/// Kafka's brokers take requests of 100 MiB at most, if they are not told otherwise, and none likes large ones.
const KAFKA_RECORD: u64 = 16 << 20;
/// The largest event that can be asked for. PostgreSQL's own messages are not larger.
const MAX_RECORD: u64 = 1 << 30;
/// Smaller ones leave no room for what an event has beside the row.
const LEAST_RECORD: u64 = 64 << 10;
/// More partitions than this are a typing error.
const MAX_PARTITIONS: u32 = 10_000;

pub(super) fn read(r: &mut Reader, node: Option<&Arc<Node>>) -> TransportPlan {
    let default = || {
        let records = RecordSettings { max: MAX_RECORD as usize, oversized: Oversized::Stop };
        TransportPlan::Embedded(EmbeddedSettings { partitions: 4, records, retention: EMBEDDED_RETENTION })
    };
    let Some(map) = node.and_then(|node| r.map(node, "transport", &["kafka", "embedded"])) else { return default() };
    match (map.get("kafka"), map.get("embedded")) {
        (Some(kafka), None) => kafka_settings(r, kafka).map_or_else(default, TransportPlan::Kafka),
        (None, Some(embedded)) => embedded_settings(r, embedded).map_or_else(default, TransportPlan::Embedded),
        (Some(_), Some(_)) => {
            let place = map.key_place("embedded");
            r.error(
                place,
                "events travel either through `kafka` or through `embedded`",
                Some("remove one of them".into()),
            );
            default()
        }
        (None, None) => {
            if map.entries().is_empty() {
                r.error(
                    map.place,
                    "`transport` is empty",
                    Some("write `kafka:` or `embedded:`, or leave it out".into()),
                );
            }
            default()
        }
    }
}

fn embedded_settings(r: &mut Reader, node: &Arc<Node>) -> Option<EmbeddedSettings> {
    let map = r.map(node, "transport.embedded", &["partitions", "max_record", "oversized", "retention"])?;
    let partitions = number(r, &map, "partitions", 4, MAX_PARTITIONS);
    let records = records(r, &map, MAX_RECORD);
    Some(EmbeddedSettings { partitions, records, retention: retention(r, &map, EMBEDDED_RETENTION) })
}

fn kafka_settings(r: &mut Reader, node: &Arc<Node>) -> Option<KafkaSettings> {
    const KEYS: [&str; 10] = [
        "brokers",
        "durability",
        "partitions",
        "replication",
        "min_insync",
        "max_record",
        "oversized",
        "compression",
        "retention",
        "properties",
    ];
    let map = r.map(node, "transport.kafka", &KEYS)?;
    let brokers = r.required(&map, "brokers").cloned().and_then(|node| r.text(&node, &map.path_of("brokers")));
    let words = [("strict", Durability::Strict), ("relaxed", Durability::Relaxed)];
    let durability = map.get("durability").and_then(|node| r.choice(node, &map.path_of("durability"), &words));
    let words = [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)];
    let compression = map.get("compression").and_then(|node| r.choice(node, &map.path_of("compression"), &words));
    let replication = number(r, &map, "replication", 3, 100);
    // A single copy can only be in sync with itself.
    let min_insync = number(r, &map, "min_insync", 2.min(replication), 100);
    if min_insync > replication {
        let message =
            format!("`min_insync` ({min_insync}) is more than `replication` ({replication}): nothing could be written");
        r.error(map.key_place("min_insync"), message, None);
    }
    let mut properties = BTreeMap::new();
    let path = map.path_of("properties");
    if let Some(entries) = map.get("properties").and_then(|node| r.entries(node, &path)) {
        for (key, node) in entries.entries() {
            if let Some(value) = r.secret(node, &entries.path_of(&key.name)) {
                properties.insert(key.name.clone(), value);
            }
        }
    }
    Some(KafkaSettings {
        brokers: brokers.map(|text| text.value).unwrap_or_default(),
        durability: durability.unwrap_or_default(),
        partitions: number(r, &map, "partitions", 12, MAX_PARTITIONS),
        replication,
        min_insync,
        records: records(r, &map, KAFKA_RECORD),
        compression: compression.unwrap_or_default(),
        retention: retention(r, &map, KAFKA_RETENTION),
        properties,
    })
}

fn number(r: &mut Reader, map: &Map, key: &str, default: u32, most: u32) -> u32 {
    map.get(key).and_then(|node| r.number(node, &map.path_of(key), 1..=most)).unwrap_or(default)
}

fn records(r: &mut Reader, map: &Map, default: u64) -> RecordSettings {
    let path = map.path_of("max_record");
    let max = map.get("max_record").and_then(|node| {
        let bytes = r.bytes(node, &path)?;
        let fits = (LEAST_RECORD..=MAX_RECORD).contains(&bytes);
        if !fits {
            r.error(node.place, format!("`{path}` must be from 64KiB to 1GiB"), None);
        }
        fits.then_some(bytes)
    });
    let words = [("stop", Oversized::Stop), ("set-aside", Oversized::SetAside), ("spill", Oversized::Spill)];
    let oversized = map.get("oversized").and_then(|node| r.choice(node, &map.path_of("oversized"), &words));
    RecordSettings { max: max.unwrap_or(default) as usize, oversized: oversized.unwrap_or_default() }
}

fn retention(r: &mut Reader, map: &Map, default: RetentionSettings) -> RetentionSettings {
    let path = map.path_of("retention");
    let Some(map) = map.get("retention").and_then(|node| r.map(node, &path, &["age", "bytes"])) else { return default };
    let unlimited = |node: &Node| matches!(&node.kind, crate::yaml::Kind::Scalar(text) if text == "unlimited");
    let age = match map.get("age") {
        None => default.age,
        Some(node) if unlimited(node) => None,
        Some(node) => r.duration(node, &map.path_of("age"), Duration::from_secs(1)).or(default.age),
    };
    let bytes = match map.get("bytes") {
        None => default.bytes,
        Some(node) if unlimited(node) => None,
        Some(node) => r.bytes(node, &map.path_of("bytes")).or(default.bytes),
    };
    RetentionSettings { age, bytes }
}
