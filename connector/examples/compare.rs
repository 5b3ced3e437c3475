//! Compares the messages of two captures of the same changes: the second half of `x bench peers`.
//!
//! `compare postgres|mysql|mariadb <brokers> <our prefix> <their prefix> <topic,topic,…>`
//!
//! `compare wait <brokers> <topic> <messages>` waits until a topic's first partition has so many messages.
//!
//! `compare print <brokers> <topic>` prints the messages of a topic's first partition, a line each.
//!
//! Prints every member whose values differ, once, with both values and the reason where one is known, and ends with
//! 1 if one is not.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use serde_json::Value as Json;
use tributary_transport::{Kafka, KafkaSettings, TopicPartition, Transport};

/// Members that tell of the capture, not of the change: never compared.
const VOLATILE: &[&str] = &[
    "/ts_ms",
    "/ts_us",
    "/ts_ns",
    "/source/version",
    "/source/name",
    "/source/ts_ms",
    "/source/ts_us",
    "/source/ts_ns",
];

/// Differences that are meant: the reason, and the paths. `connector/DEBEZIUM.md` tells users. Then those with other options for
/// values, whose name ends the prefixes.
const MEANT: &[(&str, &[&str])] = &[
    ("ours alone: strictly rising per source, also across restarts and failovers", &["/sequence"]),
    ("the commit of the transaction itself, not of the one before", &["/source/sequence"]),
    ("the same for all events of a transaction, which theirs is not", &["/transaction/id"]),
    ("not there and listed under `unchanged`, instead of a text in its place", &["/after/body", "/unchanged"]),
    ("NaN and infinities arrive, instead of null", &["/after/numeric_v2", "/after/numeric_v3"]),
    ("theirs reads the negative scale as 2046", &["/after/numeric_tens"]),
    ("theirs wraps around to a date next to that of -infinity", &["/after/date_v3"]),
    ("as the type of its elements, instead of the bytes of a text", &["/after/positive_array", "/after/box_array"]),
    ("the inner arrays arrive, instead of nulls", &["/after/int4_array_array", "/after/int4_array_v4"]),
    (
        "text, instead of the bytes of a text as a type that is not known",
        &[
            "/after/line",
            "/after/box",
            "/after/circle",
            "/after/cube",
            "/after/regclass",
            "/after/tsquery",
            "/after/int4multirange",
            "/after/txid_snapshot",
            "/after/jsonpath",
            "/after/pair",
            "/after/int2vector",
            "/after/pg_lsn",
        ],
    ),
];
const MEANT_WITH: &[(&str, &str, &[&str])] = &[
    (
        "texts",
        "by name, instead of the date furthest away",
        &["/after/date_v4", "/after/timestamp_v2", "/after/timestamp_v3"],
    ),
    ("texts", "the end of a day, instead of its beginning", &["/after/time_v2"]),
    ("texts", "always base64: who reads it needs no settings", &["/message/content"]),
    ("milliseconds", "always base64: who reads it needs no settings", &["/message/content"]),
];

/// The same of MySQL and MariaDB.
const MEANT_OF_BINLOG: &[(&str, &[&str])] = &[
    ("ours alone: strictly rising per source, also across restarts and failovers", &["/sequence"]),
    ("as the server writes the document, in the log as in a SELECT", &["/after/t_json", "/after/t_json_v3"]),
    ("the number, instead of one that wrapped around", &["/after/t_bigint_unsigned_v2"]),
    (
        "what is stored, instead of null: it is no date of the calendar, and no null",
        &["/after/t_date_v3", "/after/t_date_v4", "/after/t_datetime_v3", "/after/t_timestamp_v2"],
    ),
    ("the year that is stored: none is guessed", &["/after/t_date_v5", "/after/t_year_v2"]),
    ("the shortest digits of the FLOAT that is stored, instead of those of a double", &["/after/t_float_7_3"]),
    ("a TRUNCATE has its transaction too", &["/transaction"]),
];
const MEANT_OF_MARIADB: &[(&str, &[&str])] = &[(
    "the server leaves offsets out of a transaction's events: ours rises within it, theirs stays where the transaction begins",
    &["/source/pos"],
)];
const MEANT_OF_BINLOG_WITH: &[(&str, &str, &[&str])] = &[
    ("texts", "the time, instead of null: it is no time of a day", &["/after/t_time", "/after/t_time_3"]),
    ("milliseconds", "the time, instead of null: it is no time of a day", &["/after/t_time", "/after/t_time_3"]),
    ("milliseconds", "the digits that are stored: the scale is 0", &["/after/t_decimal_5_0"]),
    (
        "nanoseconds",
        "the text, instead of null: nanoseconds in 64 bits do not reach that far",
        &["/after/t_datetime_v2"],
    ),
];

type Message = (Option<Json>, Option<Json>);

async fn messages(kafka: &dyn Transport, topic: &str) -> anyhow::Result<Vec<Message>> {
    let mut out = Vec::new();
    if kafka.partitions(topic).await? == 0 {
        return Ok(out);
    }
    let place = TopicPartition { topic: topic.into(), partition: 0 };
    let mut offset = 0;
    loop {
        let records = kafka.read(&place, offset, 1000).await?;
        let Some(last) = records.last() else { return Ok(out) };
        offset = last.offset + 1;
        for record in &records {
            let parse = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map(|b| serde_json::from_slice(b)).transpose();
            let key: Option<Json> = parse(&record.key)?;
            // Only there to make the other confirm what it has passed on.
            let is_end = key.as_ref().and_then(|k| k.get("prefix")).is_some_and(|prefix| prefix == "end");
            // Nobody can compact by a tombstone without a key; theirs are left out.
            if is_end || record.key.is_none() && record.value.is_none() {
                continue;
            }
            out.push((key, parse(&record.value)?));
        }
    }
}

/// Collects the leaves that differ.
fn differences(path: &str, ours: Option<&Json>, theirs: Option<&Json>, out: &mut BTreeMap<String, (String, String)>) {
    match (ours, theirs) {
        (Some(Json::Object(a)), Some(Json::Object(b))) => {
            for name in a.keys().chain(b.keys().filter(|k| !a.contains_key(*k))) {
                differences(&format!("{path}/{name}"), a.get(name), b.get(name), out);
            }
        }
        (a, b) if a == b || VOLATILE.contains(&path) => {}
        (a, b) => {
            let text = |json: Option<&Json>| {
                json.map_or("absent".to_owned(), |json| json.to_string().chars().take(300).collect())
            };
            out.entry(path.to_owned()).or_insert_with(|| (text(a), text(b)));
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [action, brokers, topic] = &arguments[..]
        && action == "print"
    {
        let kafka = Kafka::connect(KafkaSettings::single_broker(brokers))?;
        for (_, value) in messages(&kafka, topic).await? {
            if let Some(value) = value {
                writeln!(std::io::stdout(), "{value}")?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let [action, brokers, topic, wanted] = &arguments[..]
        && action == "wait"
    {
        let kafka = Kafka::connect(KafkaSettings::single_broker(brokers))?;
        let wanted: usize = wanted.parse()?;
        while messages(&kafka, topic).await?.len() < wanted {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let [kind, brokers, ours, theirs, topics] = &arguments[..] else {
        bail!("usage: compare postgres|mysql|mariadb <brokers> <our prefix> <their prefix> <topic,topic,…>");
    };
    let (everywhere, of_product, with) = match kind.as_str() {
        "postgres" => (MEANT, &[][..], MEANT_WITH),
        "mysql" => (MEANT_OF_BINLOG, &[][..], MEANT_OF_BINLOG_WITH),
        _ => (MEANT_OF_BINLOG, MEANT_OF_MARIADB, MEANT_OF_BINLOG_WITH),
    };
    let kafka: Arc<dyn Transport> = Arc::new(Kafka::connect(KafkaSettings::single_broker(brokers))?);
    let mut unexplained = 0;
    let mut out = std::io::stdout();
    for topic in topics.split(',') {
        let a = messages(kafka.as_ref(), &format!("{ours}.{topic}")).await?;
        let b = messages(kafka.as_ref(), &format!("{theirs}.{topic}")).await?;
        writeln!(out, "{topic}: {} messages of ours, {} of theirs", a.len(), b.len())?;
        unexplained += a.len().abs_diff(b.len()) + usize::from(a.is_empty());
        let mut found = BTreeMap::new();
        for ((key, value), (their_key, their_value)) in a.iter().zip(&b) {
            differences("/key", key.as_ref(), their_key.as_ref(), &mut found);
            differences("", value.as_ref(), their_value.as_ref(), &mut found);
        }
        for (path, (a, b)) in found {
            let here =
                with.iter().filter(|(options, ..)| ours.ends_with(options)).map(|(_, reason, paths)| (reason, paths));
            let everywhere = everywhere.iter().chain(of_product).map(|(reason, paths)| (reason, paths));
            let mut meant = everywhere.chain(here);
            let reason = meant.find(|(_, paths)| paths.contains(&path.as_str())).map(|(reason, _)| *reason);
            unexplained += usize::from(reason.is_none());
            writeln!(out, "  {path}: {a}, theirs {b} ({})", reason.unwrap_or("NOT EXPLAINED"))?;
        }
    }
    writeln!(out, "unexplained={unexplained}")?;
    Ok(if unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
