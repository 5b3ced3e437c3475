//! `transport:`: where events travel.

use crate::keys::TRANSPORT;
use crate::keys::transport::{AGE, EMBEDDED, KAFKA, embedded, kafka};
use crate::plan::{EmbeddedSettings, KafkaSettings, RecordSettings, RetentionSettings, TransportPlan};
use crate::yaml::{Hidden, Map, Reader};

/// Left out, or wrong (which is said): the embedded log.
pub(super) fn read(r: &mut Reader, pipeline: &Map) -> TransportPlan {
    let Some(map) = r.optional(pipeline, &TRANSPORT) else { return TransportPlan::Embedded(embedded_defaults()) };
    if let Some(kafka) = r.optional(&map, &KAFKA) {
        return TransportPlan::Kafka(kafka_settings(r, &kafka));
    }
    let settings = r.optional(&map, &EMBEDDED).map(|map| embedded_settings(r, &map));
    TransportPlan::Embedded(settings.unwrap_or_else(embedded_defaults))
}

fn embedded_defaults() -> EmbeddedSettings {
    let oversized = embedded::OVERSIZED.left_out.0;
    EmbeddedSettings {
        partitions: embedded::PARTITIONS.left_out.0,
        records: RecordSettings { max: embedded::MAX_RECORD.left_out.0 as usize, oversized },
        retention: RetentionSettings { age: AGE.left_out.0, bytes: embedded::BYTES.left_out.0 },
    }
}

fn embedded_settings(r: &mut Reader, map: &Map) -> EmbeddedSettings {
    let default = embedded_defaults();
    EmbeddedSettings {
        partitions: r.value(map, &embedded::PARTITIONS),
        records: RecordSettings {
            max: r.value(map, &embedded::MAX_RECORD) as usize,
            oversized: r.value(map, &embedded::OVERSIZED),
        },
        retention: match r.optional(map, &embedded::RETENTION) {
            Some(map) => RetentionSettings { age: r.value(&map, &AGE), bytes: r.value(&map, &embedded::BYTES) },
            None => default.retention,
        },
    }
}

fn kafka_settings(r: &mut Reader, map: &Map) -> KafkaSettings {
    let brokers = r.required(map, &kafka::BROKERS);
    let replication = r.value(map, &kafka::REPLICATION);
    // A single copy can only be in sync with itself.
    let min_insync = r.optional(map, &kafka::MIN_INSYNC).unwrap_or(kafka::IN_SYNC.min(replication));
    if min_insync > replication {
        let message = format!(
            "`{}` ({min_insync}) is more than `replication` ({replication}), so nothing could be written",
            map.path_of("min_insync")
        );
        let help = format!("write `min_insync: {replication}`, or a larger `replication`");
        r.error(map.key_place(&kafka::MIN_INSYNC), message, Some(help));
    }
    let properties = r.optional(map, &kafka::PROPERTIES).map(|map| {
        let entries = map.entries().iter();
        entries.filter_map(|entry| Some((entry.0.name.clone(), r.entry(&map, entry, &Hidden, "secret")?))).collect()
    });
    KafkaSettings {
        brokers: brokers.map(|text| text.value).unwrap_or_default(),
        durability: r.value(map, &kafka::DURABILITY),
        partitions: r.value(map, &kafka::PARTITIONS),
        replication,
        min_insync,
        records: RecordSettings {
            max: r.value(map, &kafka::MAX_RECORD) as usize,
            oversized: r.value(map, &kafka::OVERSIZED),
        },
        compression: r.value(map, &kafka::COMPRESSION),
        retention: match r.optional(map, &kafka::RETENTION) {
            Some(map) => RetentionSettings { age: r.value(&map, &AGE), bytes: r.value(&map, &kafka::BYTES) },
            None => RetentionSettings { age: AGE.left_out.0, bytes: kafka::BYTES.left_out.0 },
        },
        properties: properties.unwrap_or_default(),
    }
}
