//! The brokers: who leads which partition, who coordinates which producer, and one connection to each.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode as Code;
use tokio::time::{Instant, timeout};
use tributary_event::ErrorClass;

use super::codec::{Body, Reply};
use super::connection::{Broken, Connection};
use super::fault::Fault;
use super::request::{self, Answer, ProducerId};
use super::security::{Refusal, Security};
use super::version::{ADD_PARTITIONS, ALTER_CONFIGS, Api, END, FIND_COORDINATOR, INIT_PRODUCER_ID, METADATA, PRODUCE};
use crate::contract::TopicId;
use crate::kafka::client::KafkaSettings;

/// How long an answer may take, but for that to records.
const ANSWER: Duration = Duration::from_secs(10);
/// How long brokers may take to replicate records of a usual size.
const REPLICATION: Duration = Duration::from_secs(30);
/// After this time partitions are asked for again: there may be more of them.
const AGE: Duration = Duration::from_secs(300);
/// How long a topic may be unknown, or a partition without a leader.
const LEADERLESS: Duration = Duration::from_secs(10);
/// Between two questions about the same.
const PAUSE: Duration = Duration::from_millis(50);
/// Requests with records that one broker has at a time.
const IN_FLIGHT: usize = 5;
/// Properties of librdkafka's producer that no producer here has a use for.
const USELESS: [&str; 22] = [
    "acks",
    "bootstrap.servers",
    "metadata.broker.list",
    "request.required.acks",
    "batch.num.messages",
    "batch.size",
    "compression.codec",
    "compression.level",
    "compression.type",
    "delivery.timeout.ms",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "message.timeout.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "retries",
    "transactional.id",
];

/// Where a request to a coordinator goes.
pub(in crate::kafka) struct Coordinator {
    /// The transactional id.
    pub id: String,
    node: Option<i32>,
}

impl Coordinator {
    pub fn of(id: String) -> Self {
        Self { id, node: None }
    }
}

/// What a coordinator is asked for.
#[derive(Clone, Copy)]
pub(in crate::kafka) enum Ask<'a> {
    /// An identity, whose transactions may last so long; that which is known is given up, or all others are fenced if it is
    /// none.
    Identity { known: ProducerId, transaction: Duration },
    /// These partitions, in the order of topics, belong to the transaction.
    Add { producer: ProducerId, partitions: &'a [(Arc<str>, u32)] },
    /// The end of the transaction.
    End { producer: ProducerId, commit: bool },
}

impl Ask<'_> {
    fn api(self) -> Api {
        match self {
            Self::Identity { .. } => INIT_PRODUCER_ID,
            Self::Add { .. } => ADD_PARTITIONS,
            Self::End { .. } => END,
        }
    }

    fn write(self, id: &str, out: &mut Body<'_>) {
        match self {
            Self::Identity { known, transaction } => {
                let timeout_ms = i32::try_from(transaction.as_millis()).unwrap_or(i32::MAX);
                request::init_producer_id(out, id, timeout_ms, known);
            }
            Self::Add { producer, partitions } => request::add_partitions(out, id, producer, partitions),
            Self::End { producer, commit } => request::end(out, id, producer, commit),
        }
    }

    /// The answer; an identity if one was asked for, else what is known already.
    fn read(self, answer: &Reply) -> Result<(Answer, ProducerId), Broken> {
        match self {
            Self::Identity { .. } => request::read_producer_id(answer),
            Self::Add { producer, partitions } => {
                Ok((request::read_add_partitions(answer, partitions.len())?, producer))
            }
            Self::End { producer, .. } => Ok((request::read_end(answer)?, producer)),
        }
    }
}

/// The brokers, as one producer knows them.
pub(in crate::kafka) struct Cluster {
    security: Security,
    client: String,
    /// How long brokers may take to replicate records.
    replication: Duration,
    bootstrap: Vec<(String, u16)>,
    nodes: BTreeMap<i32, (String, u16)>,
    topics: HashMap<Arc<str>, Topic>,
    connections: BTreeMap<i32, Connection>,
    /// How many brokers are passed over before one is asked about the cluster.
    skip: usize,
    /// Partitions' records that were sent and were not answered yet.
    unanswered: usize,
    /// A request got no answer, so it may still be carried out.
    lost: bool,
    /// What is waited for, as it was answered last.
    awaited: Option<Fault>,
}

/// The leader of each partition of a topic, and when it was asked for; never, if it must be asked for again.
struct Topic {
    leaders: Vec<i32>,
    asked: Option<Instant>,
}

impl Topic {
    fn is_aged(&self) -> bool {
        self.asked.is_none_or(|at| at.elapsed() >= AGE)
    }
}

impl Cluster {
    /// Reads the settings; nothing is connected yet.
    pub fn new(settings: &KafkaSettings) -> Result<Self, Refusal> {
        if let Some(name) = USELESS.iter().find(|name| settings.properties.contains_key(**name)) {
            let text = "has no effect; take it away (brokers and compression are the transport's own settings)";
            return Err(Refusal::Wrong(format!("{name} {text}")));
        }
        let bootstrap = settings.brokers.split(',').map(str::trim).filter(|b| !b.is_empty()).map(address);
        Ok(Self {
            security: Security::new(&settings.properties)?,
            client: settings.properties.get("client.id").map_or("tributary", String::as_str).to_owned(),
            replication: REPLICATION + settings.patience(),
            bootstrap: bootstrap.collect::<Result<_, _>>().map_err(Refusal::Wrong)?,
            nodes: BTreeMap::new(),
            topics: HashMap::new(),
            connections: BTreeMap::new(),
            skip: 0,
            unanswered: 0,
            lost: false,
            awaited: None,
        })
    }

    /// The number of a topic's partitions. Waits a while for a new topic, and for leaders.
    pub async fn partitions(&mut self, topic: &Arc<str>) -> Result<u32, Fault> {
        let start = Instant::now();
        loop {
            if let Some(known) = self.topics.get(topic).filter(|known| !known.is_aged()) {
                self.awaited = None;
                return Ok(known.leaders.len() as u32);
            }
            let fault = match self.ask_leaders(topic).await {
                Ok(()) => continue,
                Err(fault) => fault,
            };
            let unknown = fault.code == Some(Code::UnknownTopicOrPartition);
            if !unknown && fault.code != Some(Code::LeaderNotAvailable) {
                return Err(fault);
            }
            if start.elapsed() >= LEADERLESS {
                // No broker knows it.
                let code = if unknown { Some(Code::UnknownTopic) } else { fault.code };
                return Err(Fault { code, ..fault });
            }
            self.awaited = Some(fault);
            self.skip += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask_leaders(&mut self, topic: &Arc<str>) -> Result<(), Fault> {
        // With it those that would be asked for next.
        let aged = self.topics.iter().filter(|(name, known)| *name != topic && known.is_aged());
        let asked: Vec<Arc<str>> = aged.map(|(name, _)| name.clone()).chain([topic.clone()]).collect();
        let answer = self.ask_any(METADATA, |out| request::metadata(out, &asked)).await?;
        let metadata = request::read_metadata(&answer)?;
        self.nodes = metadata.brokers.into_iter().collect();
        self.connections.retain(|node, _| *node >= 0);
        let mut answered = Err(Broken::nonsense("an answer about other topics").into());
        for found in metadata.topics {
            let Some(name) = asked.iter().find(|name| ***name == *found.name) else { continue };
            let without_leader = found.leaders.is_empty() || found.leaders.contains(&-1);
            let code = if found.code == 0 && without_leader { LEADER_NOT_AVAILABLE } else { found.code };
            if code == 0 {
                let known = Topic { leaders: found.leaders, asked: Some(Instant::now()) };
                self.topics.insert(name.clone(), known);
            } else {
                self.topics.remove(name);
            }
            if name == topic {
                answered = if code == 0 { Ok(()) } else { Err(Fault::answered(code, &format!("topic {topic}"))) };
            }
        }
        answered
    }

    /// The identities of those topics that a broker knows; another one is asked than the last time, if there are several.
    pub async fn topic_ids(&mut self, topics: &[Arc<str>]) -> Result<HashMap<Arc<str>, Option<TopicId>>, Fault> {
        self.skip += 1;
        let answer = self.ask_any(METADATA, |out| request::metadata(out, topics)).await?;
        let metadata = request::read_metadata(&answer)?;
        self.nodes.extend(metadata.brokers);
        let mut ids = HashMap::new();
        for found in metadata.topics {
            // With any other code it is not there, or is not for us.
            if let 0 | LEADER_NOT_AVAILABLE = found.code
                && let Some(name) = topics.iter().find(|name| ***name == *found.name)
            {
                ids.insert(name.clone(), found.id);
            }
        }
        Ok(ids)
    }

    /// Who leads a partition of a topic that was asked for.
    pub fn leader(&self, topic: &Arc<str>, partition: u32) -> Option<i32> {
        self.topics.get(topic)?.leaders.get(partition as usize).copied()
    }

    /// Leaders are asked for again before the next records, and another broker is asked.
    pub fn doubt_leaders(&mut self) {
        self.topics.values_mut().for_each(|known| known.asked = None);
        self.skip += 1;
    }

    /// Whether, since this was last asked, a request got no answer.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// What is waited for, since it was answered so: for whoever does not wait any longer.
    pub fn take_awaited(&mut self) -> Option<Fault> {
        self.awaited.take()
    }

    /// Asks until there is an answer that is not "not now"; gives up at `deadline`. A request that got no answer may have been
    /// carried out.
    pub async fn ask(&mut self, to: &mut Coordinator, ask: Ask<'_>, deadline: Instant) -> Result<ProducerId, Fault> {
        let mut pause = Duration::from_micros(500);
        loop {
            let fault = match self.ask_once(to, ask).await {
                Ok(producer) => {
                    self.awaited = None;
                    return Ok(producer);
                }
                Err(fault) => fault,
            };
            if !fault.is_not_now() {
                return Err(fault);
            }
            // It is still ending the last transaction, or there is another coordinator.
            pause = if fault.code == Some(Code::ConcurrentTransactions) {
                (pause * 2).min(Duration::from_millis(10))
            } else {
                to.node = None;
                PAUSE
            };
            if Instant::now() + pause >= deadline {
                return Err(fault);
            }
            self.awaited = Some(fault);
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_once(&mut self, to: &mut Coordinator, ask: Ask<'_>) -> Result<ProducerId, Fault> {
        let node = self.find(to).await?;
        let Coordinator { id, .. } = to;
        let answer = self.call(node, ask.api(), |out| ask.write(id, out)).await?;
        match ask.read(&answer)? {
            (0, producer) => Ok(producer),
            (code, _) => Err(Fault::answered(code, &format!("transactional id {id}"))),
        }
    }

    /// Asks without waiting for the answer, which [`Self::answered`] gives.
    pub async fn ask_ahead(&mut self, to: &mut Coordinator, ask: Ask<'_>) -> Result<(), Fault> {
        let node = self.find(to).await?;
        let id = &to.id;
        self.sending(node, ask.api(), |out| ask.write(id, out)).await.map_err(Fault::from)
    }

    /// The answer to what was asked ahead; asks again if it was "not now".
    pub async fn answered(&mut self, to: &mut Coordinator, ask: Ask<'_>, deadline: Instant) -> Result<(), Fault> {
        let node = self.find(to).await?;
        match self.receiving(node, ANSWER).await {
            Ok(answer) if ask.read(&answer)?.0 == 0 => Ok(()),
            // The answer tells more when it is asked once more.
            _ => self.ask(to, ask, deadline).await.map(drop),
        }
    }

    async fn find(&mut self, to: &mut Coordinator) -> Result<i32, Fault> {
        if let Some(node) = to.node {
            return Ok(node);
        }
        let answer = self.ask_any(FIND_COORDINATOR, |out| request::find_coordinator(out, &to.id)).await?;
        let (code, node, address) = request::read_coordinator(&answer)?;
        if code != 0 {
            return Err(Fault::answered(code, &format!("transactional id {}", to.id)));
        }
        self.nodes.insert(node, address);
        to.node = Some(node);
        Ok(node)
    }

    /// Sends records to a leader. Waits while it has many already; their answers are looked at then.
    pub async fn produce(&mut self, node: i32, id: &str, batches: &[(Arc<str>, u32, Vec<u8>)]) -> Result<(), Fault> {
        while self.connections.get(&node).is_some_and(|connection| connection.waiting() >= IN_FLIGHT) {
            self.produced(node).await?;
        }
        let timeout_ms = self.replication.as_millis() as i32;
        self.unanswered += batches.len();
        self.sending(node, PRODUCE, |out| request::produce(out, id, timeout_ms, batches)).await.map_err(Fault::from)
    }

    /// Waits until every record that was sent is kept.
    pub async fn all_produced(&mut self) -> Result<(), Fault> {
        while let Some(node) = self.connections.iter().find(|(_, c)| c.waiting() > 0).map(|(node, _)| *node) {
            self.produced(node).await?;
        }
        if self.unanswered != 0 {
            return Err(Broken::nonsense("answers about other partitions").into());
        }
        Ok(())
    }

    async fn produced(&mut self, node: i32) -> Result<(), Fault> {
        let answer = self.receiving(node, self.replication + ANSWER).await?;
        let produced = request::read_produce(&answer)?;
        self.unanswered = self.unanswered.wrapping_sub(produced.kept);
        match produced.refused {
            None => Ok(()),
            Some(refused) => Err(Fault { topic: Some(refused.topic), ..Fault::answered(refused.code, &refused.text) }),
        }
    }

    /// Waits for answers that nobody wants any more, so that what was asked is over; connections that do not give them are
    /// closed.
    pub async fn drain(&mut self) {
        self.unanswered = 0;
        let deadline = Instant::now() + ANSWER;
        for (node, mut connection) in std::mem::take(&mut self.connections) {
            let drained = async {
                while connection.waiting() > 0 {
                    connection.receive().await?;
                }
                Ok::<_, Broken>(())
            };
            match tokio::time::timeout_at(deadline, drained).await {
                Ok(Ok(())) => {
                    self.connections.insert(node, connection);
                }
                _ => self.lost = true,
            }
        }
    }

    /// Sets one property of topics.
    pub async fn set_property(&mut self, topics: &[&str], name: &str, value: &str) -> Result<(), Fault> {
        let answer = self.ask_any(ALTER_CONFIGS, |out| request::set_property(out, topics, name, value)).await?;
        match request::read_set_property(&answer)? {
            None => Ok(()),
            Some((code, place)) => Err(Fault::answered(code, &place)),
        }
    }

    /// Asks the first broker that answers.
    async fn ask_any(&mut self, api: Api, body: impl Fn(&mut Body<'_>)) -> Result<Reply, Broken> {
        // Brokers given by the user have negative numbers here.
        let given = self.bootstrap.iter().zip(1..).map(|(address, n)| (-n, address.clone()));
        let known = self.nodes.iter().map(|(node, address)| (*node, address.clone()));
        let mut brokers: Vec<(i32, (String, u16))> = known.chain(given).collect();
        brokers.sort_by_key(|(node, _)| !self.connections.contains_key(node));
        let skip = self.skip % brokers.len().max(1);
        brokers.rotate_left(skip);
        let mut last = Broken::nonsense("no broker is named");
        for (node, address) in brokers {
            self.nodes.entry(node).or_insert(address);
            match self.call(node, api, &body).await {
                Ok(answer) => return Ok(answer),
                Err(broken) if broken.class != ErrorClass::Transient => return Err(broken),
                Err(broken) => last = broken,
            }
        }
        Err(last)
    }

    async fn call(&mut self, node: i32, api: Api, body: impl FnOnce(&mut Body<'_>)) -> Result<Reply, Broken> {
        self.sending(node, api, body).await?;
        self.receiving(node, ANSWER).await
    }

    /// A connection that fails is gone.
    async fn sending(&mut self, node: i32, api: Api, body: impl FnOnce(&mut Body<'_>)) -> Result<(), Broken> {
        let (mut connection, address) = self.connection(node).await?;
        let sent = connection.send(api, body).await;
        self.keep(node, connection, sent, &address)
    }

    async fn receiving(&mut self, node: i32, limit: Duration) -> Result<Reply, Broken> {
        let (mut connection, address) = match self.connections.remove(&node) {
            Some(connection) => (connection, self.address(node)),
            None => return Err(Broken::nonsense("the connection is gone")),
        };
        let received = timeout(limit, connection.receive()).await;
        self.keep(node, connection, received.unwrap_or_else(|_| Err(late(limit))), &address)
    }

    fn keep<T>(
        &mut self,
        node: i32,
        connection: Connection,
        done: Result<T, Broken>,
        address: &str,
    ) -> Result<T, Broken> {
        match done {
            Ok(done) => {
                self.connections.insert(node, connection);
                Ok(done)
            }
            Err(broken) => {
                self.lost = true;
                Err(Broken { text: format!("{address}: {broken}"), ..broken })
            }
        }
    }

    fn address(&self, node: i32) -> String {
        self.nodes.get(&node).map_or_else(|| format!("broker {node}"), |(host, port)| format!("{host}:{port}"))
    }

    async fn connection(&mut self, node: i32) -> Result<(Connection, String), Broken> {
        let address = self.address(node);
        if let Some(mut connection) = self.connections.remove(&node)
            && (connection.waiting() > 0 || connection.is_fresh().await)
        {
            return Ok((connection, address));
        }
        let Some((host, port)) = self.nodes.get(&node) else {
            return Err(Broken::nonsense(&format!("nobody knows where broker {node} is")));
        };
        Ok((Connection::open(host, *port, &self.security, &self.client).await?, address))
    }
}

const LEADER_NOT_AVAILABLE: Answer = 5;

fn late(limit: Duration) -> Broken {
    Broken { code: None, class: ErrorClass::Transient, text: format!("no answer within {limit:?}") }
}

/// `host:port`, `[address]:port`, each with or without a protocol before it; 9092 is the port if none is named.
fn address(broker: &str) -> Result<(String, u16), String> {
    let plain = broker.split_once("://").map_or(broker, |(_, rest)| rest);
    let (host, port) = match plain.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port),
        _ => (plain, "9092"),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| format!("the broker {broker:?} has no port that is one; say host:port"))?;
    Ok((host.to_owned(), port))
}
