//! Kafka's brokers, its connections and its answers go away while records are appended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI16, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tributary_event::ErrorClass;
use tributary_stack::KafkaOptions;
use tributary_transport::{Appending, Batch, Checkpoint, Kafka, KafkaSettings, Producer, Purpose, Transport as _};

use crate::tools::{Bench, kafka_options, text, values};

/// A request, by its number in Kafka's protocol.
const PRODUCE: i16 = 0;
const ADD_PARTITIONS: i16 = 24;
const END: i16 = 26;
const VERSIONS: i16 = 18;
const NOTHING: i16 = -1;
/// What our protocol calls itself when it asks for versions.
const OURS: &[u8] = b"tributary";

/// Stands before a broker, and cuts the connection at a request that it is told.
pub struct Proxy {
    pub address: String,
    /// Cut when this request comes; the broker never sees it.
    lose_request: Arc<AtomicI16>,
    /// Cut when this request is answered; the client never sees the answer.
    lose_answer: Arc<AtomicI16>,
    /// Keep this request and what comes behind it, until `release` is sent.
    delay_request: Arc<AtomicI16>,
    release: watch::Sender<u32>,
    /// The last version of a request that clients are told of, by its number, and which versions they asked.
    pub told: Arc<Mutex<Told>>,
    target: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

/// What the proxy makes of the versions that a broker tells.
#[derive(Default)]
pub struct Told {
    pub last: BTreeMap<i16, i16>,
    /// By whether our protocol asked, and the request's number.
    pub asked: BTreeMap<(bool, i16), BTreeSet<i16>>,
}

impl Told {
    /// Lowers what an answer in the flexible form tells.
    fn lower(&self, message: &mut [u8]) {
        // Length, number, error; the count of the requests takes one byte or two.
        let start = if message[10] & 0x80 == 0 { 11 } else { 12 };
        let count = if start == 11 {
            usize::from(message[10])
        } else {
            usize::from(message[10] & 0x7f) | usize::from(message[11]) << 7
        };
        for request in message[start..].chunks_exact_mut(7).take(count - 1) {
            let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            if let Some(last) = self.last.get(&number(0)) {
                let lowered = number(4).min(*last);
                request[4..6].copy_from_slice(&lowered.to_be_bytes());
            }
        }
    }
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (lose_request, lose_answer) = (Arc::new(AtomicI16::new(NOTHING)), Arc::new(AtomicI16::new(NOTHING)));
        let delay_request = Arc::new(AtomicI16::new(NOTHING));
        let (release, _) = watch::channel(0);
        let target = Arc::new(Mutex::new(String::new()));
        let told = Arc::new(Mutex::new(Told::default()));
        let mut serving = JoinSet::new();
        let (request, answer, to) = (lose_request.clone(), lose_answer.clone(), target.clone());
        let (delayed, released, versions) = (delay_request.clone(), release.clone(), told.clone());
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let to = to.lock().unwrap().clone();
                let Ok(broker) = TcpStream::connect(to).await else { continue };
                connections.spawn(pass(
                    client,
                    broker,
                    request.clone(),
                    answer.clone(),
                    delayed.clone(),
                    released.subscribe(),
                    versions.clone(),
                ));
            }
        });
        Self { address, lose_request, lose_answer, delay_request, release, told, target, _serving: serving }
    }
}

/// A broker that is reached through a proxy alone.
pub async fn behind_a_proxy() -> (Proxy, tributary_stack::Kafka) {
    let proxy = Proxy::start().await;
    let advertised = ("advertised.listeners".to_owned(), format!("CLIENT://{}", proxy.address));
    let options = KafkaOptions { settings: vec![advertised], ..kafka_options() };
    let broker = tributary_stack::Kafka::start(options).await.unwrap();
    *proxy.target.lock().unwrap() = broker.bootstrap();
    (proxy, broker)
}

/// One message with its length.
async fn message(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(4 + length as usize, 0);
    from.read_exact(&mut message[4..]).await.ok()?;
    Some(message)
}

/// Passes messages on until either side closes or the connection is cut.
async fn pass(
    client: TcpStream,
    broker: TcpStream,
    lose_request: Arc<AtomicI16>,
    lose_answer: Arc<AtomicI16>,
    delay_request: Arc<AtomicI16>,
    mut released: watch::Receiver<u32>,
    told: Arc<Mutex<Told>>,
) {
    let (mut from_client, to_client): (OwnedReadHalf, OwnedWriteHalf) = client.into_split();
    let (mut from_broker, mut to_broker) = broker.into_split();
    // The request, by its number in this connection, whose answer is lost.
    let (cut, mut cut_at) = watch::channel(None::<i32>);
    let telling = Mutex::new(BTreeSet::new());
    let mut ours = false;
    let forth = async {
        while let Some(message) = message(&mut from_client).await {
            let api = i16::from_be_bytes([message[4], message[5]]);
            let version = i16::from_be_bytes([message[6], message[7]]);
            // Our protocol says who it is.
            ours |= api == VERSIONS && message.windows(OURS.len()).any(|bytes| bytes == OURS);
            told.lock().unwrap().asked.entry((ours, api)).or_default().insert(version);
            let number = i32::from_be_bytes(message[8..12].try_into().unwrap());
            if api == VERSIONS && version >= 3 {
                telling.lock().unwrap().insert(number);
            }
            let is =
                |wanted: &AtomicI16| wanted.compare_exchange(api, NOTHING, Ordering::SeqCst, Ordering::SeqCst).is_ok();
            if is(&lose_request) {
                return;
            }
            if is(&delay_request) {
                let _ = released.changed().await;
            }
            if is(&lose_answer) {
                cut.send_replace(Some(number));
            }
            if to_broker.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut to_client = to_client;
        while let Some(mut message) = message(&mut from_broker).await {
            let number = i32::from_be_bytes(message[4..8].try_into().unwrap());
            if telling.lock().unwrap().remove(&number) && message[8..10] == [0, 0] {
                told.lock().unwrap().lower(&mut message);
            }
            if *cut_at.borrow_and_update() == Some(number) || to_client.write_all(&message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = forth => (), () = back => () }
}

async fn kafka_requests_and_answers_that_are_lost_lose_and_repeat_nothing(appending: Appending) {
    let (proxy, broker) = behind_a_proxy().await;
    let kafka =
        Kafka::connect(KafkaSettings { appending, ..KafkaSettings::single_broker(proxy.address.clone()) }).unwrap();
    let bench = Bench::new(Arc::new(kafka), "lost");
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;

    let mut written = Vec::new();
    let mut append = async |producer: &mut Box<dyn Producer>, value: String| {
        let mut batch = Batch::new();
        batch.push(&topic, 1, Some(b"k"), Some(value.as_bytes()));
        batch.checkpoint = Some(Checkpoint { name: bench.name("position"), content: value.clone().into() });
        producer.append(&batch).await.unwrap();
        written.push(value);
    };
    append(&mut producer, "first".into()).await;
    for api in [ADD_PARTITIONS, PRODUCE, END] {
        // Both identities of the producer have their turn.
        for turn in 0..2 {
            for (which, lost) in [("request", &proxy.lose_request), ("answer", &proxy.lose_answer)] {
                lost.store(api, Ordering::SeqCst);
                append(&mut producer, format!("{which} of {api}, {turn}")).await;
                assert_eq!(lost.load(Ordering::SeqCst), NOTHING, "the {which} of {api} was lost");
                append(&mut producer, format!("after {which} of {api}, {turn}")).await;
            }
        }
    }
    // While nothing is appended the broker is started anew.
    broker.restart().await.unwrap();
    append(&mut producer, "last".into()).await;

    let read: Vec<String> = bench.all(&topic).await.iter().map(|record| text(&record.value)).collect();
    assert_eq!(read, written);
    let position = bench.transport.checkpoint(&bench.name("position")).await.unwrap();
    assert_eq!(position.as_deref(), Some(b"last".as_slice()));
}

async fn kafka_requests_that_arrive_late_change_nothing(appending: Appending) {
    let (proxy, _broker) = behind_a_proxy().await;
    let mut settings = KafkaSettings { appending, ..KafkaSettings::single_broker(proxy.address.clone()) };
    // Records are given up after three quarters of this.
    settings.properties.insert("transaction.timeout.ms".into(), "4000".into());
    let bench = Bench::new(Arc::new(Kafka::connect(settings).unwrap()), "late");
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    let mut written = Vec::new();
    for (api, name) in [(PRODUCE, "records"), (ADD_PARTITIONS, "beginning"), (PRODUCE, "records again")] {
        proxy.delay_request.store(api, Ordering::SeqCst);
        for n in 0..4 {
            if n == 3 {
                // By now the identity whose request was delayed has appended again.
                proxy.release.send_modify(|released| *released += 1);
            }
            let value = format!("{name} {n}");
            bench.append(&mut producer, &topic, &[("k", &value)]).await;
            written.push(value);
        }
        assert_eq!(proxy.delay_request.load(Ordering::SeqCst), NOTHING, "{name} were delayed");
    }
    assert_eq!(values(&bench.all(&topic).await), written);
}

async fn kafka_brokers_that_are_killed_one_after_the_other_lose_and_repeat_nothing(appending: Appending) {
    let options = KafkaOptions { brokers: 3, heap: "320m".into(), ..kafka_options() };
    let brokers = tributary_stack::Kafka::start(options).await.unwrap();
    let kafka = Kafka::connect(KafkaSettings { appending, ..KafkaSettings::new(brokers.bootstrap()) }).unwrap();
    let bench = Bench::new(Arc::new(kafka), "killed");
    let topic = bench.topic("t", 6).await;
    let mut producer = bench.producer().await;

    // Appends without a pause; what fails for now is appended again, as its contract says.
    let (stop, stopped) = watch::channel(false);
    let (count, mut counted) = watch::channel(0_u32);
    let (appending, name) = (topic.clone(), bench.name("producer"));
    let transport = bench.transport.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut n = 0;
        while !*stopped.borrow() {
            let mut batch = Batch::new();
            for key in 0..12 {
                batch.push(&appending, 1, Some(format!("key {key}").as_bytes()), Some(n.to_string().as_bytes()));
            }
            while let Err(error) = producer.append(&batch).await {
                // Nobody else has the name, so a fence would be a fault; anything else passes.
                assert!(!error.message.contains("must stop"), "{error}");
                assert_eq!(error.class, tributary_event::ErrorClass::Transient, "{error}");
                tokio::task::yield_now().await;
            }
            n += 1;
            count.send_replace(n);
        }
        drop(transport.producer(&name, Purpose::Source).await.unwrap());
        n
    });
    let mut more = async |by: u32| {
        let wanted = *counted.borrow() + by;
        let waited = tokio::time::timeout(crate::tools::PATIENCE * 2, counted.wait_for(|n| *n >= wanted)).await;
        waited.expect("appending goes on").unwrap();
    };
    for broker in 0..3 {
        more(20).await;
        brokers.kill_broker(broker).await.unwrap();
        more(20).await;
        brokers.start_broker_again(broker).await.unwrap();
    }
    more(20).await;
    stop.send_replace(true);
    let appended = tasks.join_next().await.unwrap().unwrap();

    let all = bench.all(&topic).await;
    for key in 0..12 {
        let key = format!("key {key}");
        let of_key: Vec<String> =
            all.iter().filter(|record| text(&record.key) == key).map(|record| text(&record.value)).collect();
        let wanted: Vec<String> = (0..appended).map(|n| n.to_string()).collect();
        assert_eq!(of_key, wanted, "{key}");
    }
}

crate::either_way! {
    kafka_requests_and_answers_that_are_lost_lose_and_repeat_nothing,
    kafka_requests_that_arrive_late_change_nothing,
    kafka_brokers_that_are_killed_one_after_the_other_lose_and_repeat_nothing,
}

/// Whoever has never seen a broker is told what is in the way, for each of these is mended elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn why_brokers_are_away_is_told() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let foreign = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read_u8().await;
            let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    for (brokers, signs) in [
        (closed.to_string(), ["refused", "nobody listens there"]),
        ("kafka.invalid:9092".to_owned(), ["resolve", "check the name of the host"]),
        (foreign.to_string(), ["", "check that a Kafka broker listens there"]),
    ] {
        let kafka = Kafka::connect(KafkaSettings::single_broker(&brokers)).expect("settings");
        let error = kafka.probe().await.expect_err("nobody is there");
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(error.message.contains(&brokers), "{error}");
        assert!(signs.iter().all(|sign| error.message.contains(sign)), "{brokers}: {error}");
    }
}
