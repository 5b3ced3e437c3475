//! Creating topics, and checking those that exist.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tributary_event::ErrorClass;

use super::client::{Durability, KafkaSettings, Quiet};
use super::wire::Cluster;
use crate::contract::{Retention, TopicSpec, TransportError, as_setting};

const LIMIT: Duration = Duration::from_secs(30);
/// What a request with one record has beside it, and more.
const REQUEST: usize = 4096;

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub name: String,
    pub partitions: u32,
    /// The lowest number of replicas of a partition.
    pub replication: u32,
}

/// Its configuration, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Properties {
    pub cleanup: String,
    pub min_insync: u32,
    pub unclean_election: bool,
    /// `max.message.bytes`: the most that a record may have, with what wraps it and after compression.
    pub max_message: usize,
}

/// Whether the cluster has as many brokers as copies are asked for. Those that are missing may come back, so it is waited for.
pub(super) fn check_count(settings: &KafkaSettings, brokers: usize) -> Result<(), TransportError> {
    if settings.replication as usize <= brokers {
        return Ok(());
    }
    let count = brokers_of(brokers);
    let text = format!(
        "topics cannot be created at Kafka {address}: it has {count} now, and each topic is to have {wanted} copies \
         (`replication`). If there are no more brokers, write in the pipeline: transport: {{ kafka: {{ brokers: \"{address}\", \
         replication: {brokers} }} }}; else start those that are away. It is tried again",
        address = settings.brokers,
        wanted = settings.replication,
    );
    Err(TransportError::new(ErrorClass::Transient, text))
}

fn brokers_of(count: usize) -> String {
    if count == 1 { "1 broker".to_owned() } else { format!("{count} brokers") }
}

/// Creates topics.
pub(super) async fn create(
    admin: &AdminClient<Quiet>,
    settings: &KafkaSettings,
    specs: &[&TopicSpec],
) -> Result<(), TransportError> {
    if specs.is_empty() {
        return Ok(());
    }
    let insync = settings.min_insync.to_string();
    let largest = settings.wire_limit().to_string();
    let limits: Vec<Vec<(&str, String)>> = specs.iter().map(|spec| retention(&spec.retention)).collect();
    let topics: Vec<NewTopic<'_>> = specs
        .iter()
        .zip(&limits)
        .map(|(spec, limits)| {
            let replication = TopicReplication::Fixed(settings.replication as i32);
            let mut topic = NewTopic::new(&spec.name, spec.partitions.max(1) as i32, replication)
                .set("min.insync.replicas", &insync)
                .set("max.message.bytes", &largest)
                .set("unclean.leader.election.enable", "false");
            for (name, value) in limits {
                topic = topic.set(name, value);
            }
            topic
        })
        .collect();
    let options = AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT));
    let results =
        admin.create_topics(&topics, &options).await.map_err(|error| settings.failed("creating topics", error))?;
    for result in results {
        match result {
            Ok(name) => tracing::info!(topic = name, "created a topic"),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(settings.failed(&format!("creating topic {name}"), KafkaError::AdminOp(code)));
            }
        }
    }
    Ok(())
}

fn retention(retention: &Retention) -> Vec<(&'static str, String)> {
    match retention {
        Retention::Delete { age, bytes } => vec![
            ("cleanup.policy", "delete".into()),
            ("retention.ms", age.map_or("-1".into(), |age| age.as_millis().to_string())),
            ("retention.bytes", bytes.map_or("-1".into(), |bytes| bytes.to_string())),
        ],
        // Small segments, since the one being written to is never compacted.
        Retention::Compact => vec![
            ("cleanup.policy", "compact".into()),
            ("segment.bytes", (32 << 20).to_string()),
            ("segment.ms", (3_600_000).to_string()),
            ("min.cleanable.dirty.ratio", "0.2".into()),
        ],
    }
}

/// The configuration of a topic.
pub(super) async fn properties(
    admin: &AdminClient<Quiet>,
    settings: &KafkaSettings,
    names: &[String],
) -> Result<Vec<Properties>, TransportError> {
    let asked: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    let start = Instant::now();
    loop {
        let answer = admin
            .describe_configs(&asked, &options)
            .await
            .map_err(|error| settings.failed("asking for the configuration of topics", error))?;
        let found: Result<Vec<Properties>, RDKafkaErrorCode> =
            answer.into_iter().map(|one| one.map(|resource| parse(&resource))).collect();
        match found {
            Ok(found) if found.iter().all(|found| !found.cleanup.is_empty()) => return Ok(found),
            // A topic that was created just now may be unknown to the broker that was asked, which some versions tell by
            // leaving its configuration empty.
            Ok(_) | Err(RDKafkaErrorCode::UnknownTopicOrPartition) if start.elapsed() < LIMIT => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(_) | Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {
                let text = format!("brokers of Kafka {} do not know new topics after {LIMIT:?}", settings.brokers);
                return Err(TransportError::new(ErrorClass::Transient, text));
            }
            Err(code) => {
                return Err(settings.failed("asking for the configuration of topics", KafkaError::AdminOp(code)));
            }
        }
    }
}

fn parse(resource: &ConfigResource) -> Properties {
    let value = |name| resource.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    Properties {
        cleanup: value("cleanup.policy").to_owned(),
        min_insync: value("min.insync.replicas").parse().unwrap_or(1),
        unclean_election: value("unclean.leader.election.enable") == "true",
        max_message: value("max.message.bytes").parse().unwrap_or(usize::MAX),
    }
}

/// Lets topics take the largest record, as far as we may: those that still do not are told by [`check`].
pub(super) async fn enlarge(
    admin: &AdminClient<Quiet>,
    settings: &KafkaSettings,
    names: &[String],
    properties: Vec<Properties>,
) -> Result<Vec<Properties>, TransportError> {
    let limit = settings.wire_limit();
    let small = |properties: &[Properties]| -> Vec<usize> {
        properties.iter().enumerate().filter(|(_, p)| p.max_message < limit).map(|(at, _)| at).collect()
    };
    let too_small = small(&properties);
    if too_small.is_empty() {
        return Ok(properties);
    }
    let topics: Vec<&str> = too_small.iter().map(|at| names[*at].as_str()).collect();
    let raised = match Cluster::new(settings) {
        Ok(mut cluster) => cluster.set_property(&topics, "max.message.bytes", &limit.to_string()).await,
        Err(refusal) => Err(refusal.into()),
    };
    match raised {
        Ok(()) => tracing::info!(?topics, bytes = limit, "topics take larger records now, as max_record says"),
        Err(fault) if fault.class == ErrorClass::Transient => {
            let what = "raising max.message.bytes of topics";
            return Err(settings.answered(what, fault.class, fault.code, &fault.text));
        }
        Err(fault) => {
            tracing::info!(cause = fault.text, "max.message.bytes of topics may not be raised by us");
            return Ok(properties);
        }
    }
    // Until the brokers know.
    let start = Instant::now();
    loop {
        let properties = self::properties(admin, settings, names).await?;
        if small(&properties).is_empty() || start.elapsed() > LIMIT {
            return Ok(properties);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The brokers that are there, and which of the topics that Kafka keeps for itself have been made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Members {
    pub ids: Vec<i32>,
    /// `__consumer_offsets`: without it there are no groups.
    pub offsets: bool,
    /// `__transaction_state`: without it there are no transactions.
    pub transactions: bool,
}

/// Compares what is needed with what brokers say of themselves: the largest record (who sends one more gets no answer, for ever),
/// and Kafka's own topics (which, where they cannot be made, are waited for without a word). A broker that does not tell is not
/// asked again.
pub(super) async fn check_brokers(
    admin: &AdminClient<Quiet>,
    settings: &KafkaSettings,
    members: &Members,
) -> Result<(), TransportError> {
    let options = AdminOptions::new().request_timeout(Some(LIMIT));
    for broker in &members.ids {
        // One broker a request: each knows only its own.
        let answer = admin.describe_configs(&[ResourceSpecifier::Broker(*broker)], &options).await;
        let found = answer.ok().and_then(|all| all.into_iter().next()?.ok());
        let tell = |name: &str| found.as_ref().and_then(|broker| broker.get(name)?.value.as_deref()?.parse().ok());
        match tell(LARGEST) {
            Some(limit) => check_size(settings, *broker, limit)?,
            None => tracing::debug!(broker, "the broker does not tell its {LARGEST}"),
        }
        check_own_topics(settings, *broker, members, tell)?;
    }
    Ok(())
}

const LARGEST: &str = "socket.request.max.bytes";

fn check_size(settings: &KafkaSettings, broker: i32, limit: usize) -> Result<(), TransportError> {
    let needed = settings.wire_limit() + REQUEST;
    if limit >= needed {
        return Ok(());
    }
    let text = format!(
        "broker {broker} of Kafka {} takes requests of at most {limit} bytes ({LARGEST}), and max_record ({}) may need {needed}; \
         set {LARGEST}={needed} in the configuration of every broker and restart it, or lower max_record to {}",
        settings.brokers,
        settings.max_record,
        // Rounded down, with room for what wraps it.
        as_setting((limit.saturating_sub(1 << 20) / 3 * 2) >> 20 << 20)
    );
    Err(TransportError::new(ErrorClass::Fatal, text))
}

/// Whether Kafka can make, and write to, the topics of groups and transactions with the brokers that it has. `tell`: a number of
/// the broker's configuration.
fn check_own_topics(
    settings: &KafkaSettings,
    broker: i32,
    members: &Members,
    tell: impl Fn(&str) -> Option<usize>,
) -> Result<(), TransportError> {
    let brokers = members.ids.len();
    let needs = [
        ("offsets.topic.replication.factor", !members.offsets),
        ("transaction.state.log.replication.factor", !members.transactions),
        ("transaction.state.log.min.isr", true),
    ];
    let too_many: Vec<String> = needs
        .into_iter()
        .filter_map(|(name, matters)| Some((name, tell(name).filter(|number| matters && *number > brokers)?)))
        .map(|(name, number)| format!("{name}={number}"))
        .collect();
    if too_many.is_empty() {
        return Ok(());
    }
    let text = format!(
        "groups and transactions cannot begin at Kafka {}: it has {} now, and the configuration of broker {broker} has {}. If \
         there are no more brokers, set these to {brokers} in the configuration of every broker and restart it; else start those that \
         are away. It is tried again",
        settings.brokers,
        brokers_of(brokers),
        too_many.join(", ")
    );
    Err(TransportError::new(ErrorClass::Transient, text))
}

/// Compares a topic with what is asked for: every fault in one sentence with the command that mends it.
pub(super) fn check(
    settings: &KafkaSettings,
    spec: &TopicSpec,
    found: &Found,
    properties: &Properties,
) -> Result<(), TransportError> {
    let name = &spec.name;
    let brokers = &settings.brokers;
    let configure = |what: &str| {
        format!(
            "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics --entity-name {name} --add-config {what}"
        )
    };
    let mut faults = Vec::new();
    if found.partitions < spec.partitions {
        faults.push(format!(
            "it has {} partitions and needs {}: kafka-topics.sh --bootstrap-server {brokers} --alter --topic {name} --partitions {} \
             (keys then change their partition; let the pipeline finish what is in the topic first)",
            found.partitions, spec.partitions, spec.partitions
        ));
    }
    let wanted = if spec.retention == Retention::Compact { "compact" } else { "delete" };
    if !properties.cleanup.split(',').any(|policy| policy.trim() == wanted) {
        faults.push(format!(
            "its cleanup.policy is {} and must be {wanted}: {}",
            properties.cleanup,
            configure(&format!("cleanup.policy={wanted}"))
        ));
    }
    if wanted == "compact" && properties.cleanup.split(',').any(|policy| policy.trim() == "delete") {
        faults.push(format!(
            "its cleanup.policy is {} and must not delete: {}",
            properties.cleanup,
            configure("cleanup.policy=compact")
        ));
    }
    let needed = settings.wire_limit();
    if properties.max_message < needed {
        faults.push(format!(
            "its max.message.bytes is {} and max_record ({}) needs {needed}, which we may not set: {} (or lower `max_record`)",
            properties.max_message,
            settings.max_record,
            configure(&format!("max.message.bytes={needed}"))
        ));
    }
    if settings.durability == Durability::Strict {
        if found.replication < settings.replication {
            faults.push(format!(
                "it has {} of the {} copies that `replication` asks for: write `replication: {0}` under transport.kafka in the \
                 pipeline if that is enough, or run kafka-reassign-partitions.sh --bootstrap-server {brokers}",
                found.replication, settings.replication
            ));
        }
        // What no number of copies can meet is no remedy.
        if properties.min_insync < settings.min_insync.min(found.replication) {
            faults.push(format!(
                "its min.insync.replicas is {} and durability strict needs {}: {}",
                properties.min_insync,
                settings.min_insync,
                configure(&format!("min.insync.replicas={}", settings.min_insync.min(found.replication)))
            ));
        }
        if properties.unclean_election {
            faults.push(format!(
                "unclean leader election is on, which loses acknowledged records: {}",
                configure("unclean.leader.election.enable=false")
            ));
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => {
            Err(TransportError::new(ErrorClass::Fatal, format!("topic {name} does not fit: {}", faults.join("; "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(change: impl FnOnce(&mut Found, &mut Properties)) -> Result<(), TransportError> {
        let settings = KafkaSettings::new("k:9092");
        let retention = Retention::Delete { age: None, bytes: None };
        let spec = TopicSpec { name: "orders".into(), partitions: 8, retention };
        let mut found = Found { name: "orders".into(), partitions: 8, replication: 3 };
        let mut properties =
            Properties { cleanup: "delete".into(), min_insync: 2, unclean_election: false, max_message: usize::MAX };
        change(&mut found, &mut properties);
        check(&settings, &spec, &found, &properties)
    }

    fn message(change: impl FnOnce(&mut Found, &mut Properties)) -> String {
        check_with(change).unwrap_err().to_string()
    }

    #[test]
    fn a_topic_as_asked_for_passes() {
        assert!(check_with(|_, _| ()).is_ok());
        assert!(check_with(|found, _| found.partitions = 12).is_ok());
    }

    #[test]
    fn every_fault_is_named_with_its_remedy() {
        let text = message(|found, _| found.partitions = 2);
        assert!(text.contains("has 2 partitions and needs 8") && text.contains("--partitions 8"), "{text}");
        let text = message(|_, properties| properties.max_message = 1_048_588);
        assert!(text.contains("is 1048588 and max_record (16777216) needs"), "{text}");
        assert!(text.contains("--entity-name orders --add-config max.message.bytes=25"), "{text}");
        let text = message(|_, properties| properties.cleanup = "compact".into());
        assert!(text.contains("cleanup.policy=delete"), "{text}");
        let text = message(|_, properties| {
            properties.min_insync = 1;
            properties.unclean_election = true;
        });
        assert!(text.contains("min.insync.replicas=2"), "{text}");
        assert!(text.contains("unclean.leader.election.enable=false"), "{text}");
        // One copy cannot be in sync with another: there is one remedy, and it works.
        let text = message(|found, properties| {
            found.replication = 1;
            properties.min_insync = 1;
        });
        assert!(text.contains("write `replication: 1`") && !text.contains("min.insync"), "{text}");
    }

    #[test]
    fn a_broker_that_is_alone_is_told_what_it_cannot_do() {
        let settings = KafkaSettings::new("k:9092");
        let text = check_count(&settings, 1).unwrap_err().to_string();
        assert!(text.contains("1 broker now") && text.contains("3 copies"), "{text}");
        assert!(text.contains("kafka: { brokers: \"k:9092\", replication: 1 }"), "{text}");
        assert!(check_count(&settings, 3).is_ok());
        let stock = |name: &str| Some(if name.ends_with("min.isr") { 2 } else { 3 });
        let mut members = Members { ids: vec![1], offsets: false, transactions: false };
        let text = check_own_topics(&settings, 1, &members, stock).unwrap_err().to_string();
        assert!(text.contains("offsets.topic.replication.factor=3, transaction.state.log.replication"), "{text}");
        // What exists was made with as many copies as there were brokers, and may still want for writers.
        (members.offsets, members.transactions) = (true, true);
        let text = check_own_topics(&settings, 1, &members, stock).unwrap_err().to_string();
        assert!(text.contains("has transaction.state.log.min.isr=2. If"), "{text}");
        members.ids.push(2);
        assert!(check_own_topics(&settings, 1, &members, stock).is_ok());
        assert!(check_own_topics(&settings, 1, &Members { ids: vec![1], ..members }, |_| None).is_ok());
    }
}
