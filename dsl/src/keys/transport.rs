//! Keys of `transport`.

use std::time::Duration;

use crate::plan::{Compression, Durability, Oversized};
use crate::yaml::{
    Entries, Hidden, Is, Key, Keys, Limit, Line, Means, Names, Period, Required, Rule, Size, Whole, Words, key,
};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// The largest event that can be asked for. PostgreSQL's own messages are not larger.
const MAX_RECORD: u64 = 1 << 30;
/// Smaller ones leave no room for what an event has beside the row.
const RECORD: Size = Size { least: 64 << 10, most: MAX_RECORD };
/// More than this are a typing error.
const PARTITIONS: Whole<u32> = Whole { least: 1, most: 10_000 };
const REPLICAS: Whole<u32> = Whole { least: 1, most: 100 };

const PARTITIONS_MEAN: &str = "Partitions of every topic that is made.";
const MAX_RECORD_MEANS: &str = "The most bytes that key and value of an event may have together.";
const OVERSIZED: Words<Oversized> =
    Words(&[("stop", Oversized::Stop), ("set-aside", Oversized::SetAside), ("spill", Oversized::Spill)]);
const OVERSIZED_MEANS: &str = "What becomes of an event above `max_record`: the pipeline stops at it; or it is published without \
                               its largest values, the whole being kept in a file, with a dead letter (`set-aside`) or without \
                               (`spill`).";

pub(crate) static TRANSPORT: Keys = Keys { keys: &[&KAFKA, &EMBEDDED], rules: &[Rule::One] };

pub(crate) static KAFKA: Key<&Keys, Means> = key(
    "kafka",
    &kafka::KEYS,
    Means("the other"),
    "brokers: \"kafka-1:9092,kafka-2:9092\"",
    "Apache Kafka, 2.5 or later. Security, permissions, large records: [KAFKA.md](../transport/KAFKA.md).",
);

pub(crate) static EMBEDDED: Key<&Keys, Means> =
    key("embedded", &embedded::KEYS, Means("the other"), "partitions: 8", "A log in the data folder, for one process.");

pub(crate) mod kafka {
    //! Keys of `transport.kafka`.

    use super::*;

    pub(crate) static KEYS: Keys = Keys {
        keys: &[
            &BROKERS,
            &DURABILITY,
            &PARTITIONS,
            &REPLICATION,
            &MIN_INSYNC,
            &MAX_RECORD,
            &OVERSIZED,
            &COMPRESSION,
            &RETENTION,
            &PROPERTIES,
        ],
        rules: &[],
    };

    pub(crate) static BROKERS: Key<Line, Required> = key(
        "brokers",
        Line("text"),
        Required,
        "\"kafka-1:9092,kafka-2:9092\"",
        "Some of the brokers, as `host:port`, with commas between them.",
    );

    pub(crate) static DURABILITY: Key<Words<Durability>, Is<Durability>> = key(
        "durability",
        Words(&[("strict", Durability::Strict), ("relaxed", Durability::Relaxed)]),
        Is(Durability::Strict),
        "relaxed",
        "`strict`: topics whose replication or `min.insync.replicas` is not what is written here are refused. `relaxed`: topics \
         are taken as they are.",
    );

    pub(crate) static PARTITIONS: Key<Whole<u32>, Is<u32>> =
        key("partitions", super::PARTITIONS, Is(12), "24", super::PARTITIONS_MEAN);

    pub(crate) static REPLICATION: Key<Whole<u32>, Is<u32>> = key(
        "replication",
        super::REPLICAS,
        Is(3),
        "1",
        "Replicas of every topic that is made, so as many brokers at least. For a single broker, write 1.",
    );

    /// The default of `min_insync`, where that many replicas are.
    pub(crate) const IN_SYNC: u32 = 2;

    pub(crate) static MIN_INSYNC: Key<Whole<u32>, Means> = key(
        "min_insync",
        super::REPLICAS,
        Means("2, or `replication` where that is less"),
        "1",
        "Replicas that must have a record before it counts (`min.insync.replicas`). At most `replication`.",
    );

    pub(crate) static MAX_RECORD: Key<Size, Is<u64>> =
        key("max_record", super::RECORD, Is(16 << 20), "32MiB", super::MAX_RECORD_MEANS);

    pub(crate) static OVERSIZED: Key<Words<Oversized>, Is<Oversized>> =
        key("oversized", super::OVERSIZED, Is(Oversized::Stop), "spill", super::OVERSIZED_MEANS);

    pub(crate) static COMPRESSION: Key<Words<Compression>, Is<Compression>> = key(
        "compression",
        Words(&[("lz4", Compression::Lz4), ("zstd", Compression::Zstd)]),
        Is(Compression::Lz4),
        "zstd",
        "How batches are compressed: fast, or small.",
    );

    pub(crate) static RETENTION: Key<&Keys, Means> = key(
        "retention",
        &RETENTION_KEYS,
        Means("its defaults"),
        "{ age: 14d, bytes: unlimited }",
        "What tables' topics keep, read or not. Both limits hold. If records go before this pipeline has read them, every document \
         that they may concern is built again.",
    );

    static RETENTION_KEYS: Keys = Keys { keys: &[&super::AGE, &BYTES], rules: &[] };

    pub(crate) static BYTES: Key<Limit<Size>, Is<Option<u64>>> = super::bytes(None);

    pub(crate) static PROPERTIES: Key<Entries, Means> = key(
        "properties",
        Entries {
            names: &Names { mark: "<property>", pattern: None, example: "security.protocol" },
            value: &Hidden,
            some: false,
        },
        Means("none"),
        "{ security.protocol: sasl_ssl, sasl.mechanism: PLAIN, sasl.username: app, sasl.password: secret }",
        "Further properties of the client, by librdkafka's names.",
    );
}

pub(crate) mod embedded {
    //! Keys of `transport.embedded`.

    use super::*;

    pub(crate) static KEYS: Keys = Keys { keys: &[&PARTITIONS, &MAX_RECORD, &OVERSIZED, &RETENTION], rules: &[] };

    pub(crate) static PARTITIONS: Key<Whole<u32>, Is<u32>> =
        key("partitions", super::PARTITIONS, Is(4), "8", super::PARTITIONS_MEAN);

    pub(crate) static MAX_RECORD: Key<Size, Is<u64>> =
        key("max_record", super::RECORD, Is(super::MAX_RECORD), "32MiB", super::MAX_RECORD_MEANS);

    pub(crate) static OVERSIZED: Key<Words<Oversized>, Is<Oversized>> =
        key("oversized", super::OVERSIZED, Is(Oversized::Stop), "spill", super::OVERSIZED_MEANS);

    pub(crate) static RETENTION: Key<&Keys, Means> = key(
        "retention",
        &RETENTION_KEYS,
        Means("its defaults"),
        "{ age: 14d, bytes: unlimited }",
        "What tables' topics keep of what was read. Both limits hold. Records that this pipeline has not read yet stay, whatever their \
         age and size, while 2 GiB of the disk are free.",
    );

    static RETENTION_KEYS: Keys = Keys { keys: &[&super::AGE, &BYTES], rules: &[] };

    pub(crate) static BYTES: Key<Limit<Size>, Is<Option<u64>>> = super::bytes(Some(10 << 30));
}

pub(crate) static AGE: Key<Limit<Period>, Is<Option<Duration>>> =
    key("age", Limit(Period { least: Duration::from_secs(1) }), Is(Some(WEEK)), "14d", "Older records are removed.");

const fn bytes(default: Option<u64>) -> Key<Limit<Size>, Is<Option<u64>>> {
    let kind = Limit(Size { least: 0, most: u64::MAX });
    key("bytes", kind, Is(default), "100GiB", "The oldest records of a partition that has more bytes are removed.")
}
