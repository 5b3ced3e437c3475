//! Kafka: brokers that keep their own metadata (KRaft), each a broker and a controller, started from their Maven jars. Those of
//! 2.8 have it in a ZooKeeper that is started beside them.
//!
//! Transactions and groups work with one broker: the replication of the internal topics follows the number of brokers.
//! Topics are never made by use.

use crate::java::{ClassData, Installation, JavaPart, claim_class_data};
use crate::server::Server;
use crate::server::command;
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use anyhow::{Context as _, Result, bail, ensure};
use futures::future::join_all;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

static PART_4_3: JavaPart = part("kafka-4.3", include_str!("../kafka/pom-4.3.xml"));
static PART_4_1: JavaPart = part("kafka", include_str!("../kafka/pom.xml"));
static PART_3_9: JavaPart = part("kafka-3.9", include_str!("../kafka/pom-3.9.xml"));
static PART_2_8: JavaPart = part("kafka-2.8", include_str!("../kafka/pom-2.8.xml"));

const fn part(name: &'static str, pom: &'static str) -> JavaPart {
    JavaPart {
        name,
        pom,
        sources: &[],
        main_class: "kafka.Kafka",
        options: &["-Dorg.slf4j.simpleLogger.showDateTime=true", "-Djava.awt.headless=true"],
    }
}

/// The version that tests and demos use.
const USUAL: &str = "4.1";
/// Its brokers know of no other place for their metadata but ZooKeeper.
const OLDEST: &str = "2.8";

fn part_of(version: &str) -> Result<&'static JavaPart> {
    match version {
        "4.3" => Ok(&PART_4_3),
        USUAL => Ok(&PART_4_1),
        "3.9" => Ok(&PART_3_9),
        OLDEST => Ok(&PART_2_8),
        _ => bail!("there is no Kafka {version} in the stack: 4.3, {USUAL}, 3.9 and {OLDEST} are there"),
    }
}

/// 16 bytes in URL-safe base64, as Kafka wants it; every stack is a cluster of its own, so one name serves all.
const CLUSTER: &str = "dHJpYnV0YXJ5LXN0YWNrMA";

/// What kind of cluster to start.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The version: `4.3`, `4.1`, `3.9` or `2.8`.
    pub version: String,
    /// How many brokers, 1 or more.
    pub brokers: usize,
    /// The port of the first broker on 127.0.0.1; `None` takes a free one. The others always take free ones.
    pub port: Option<u16>,
    /// The folder that holds a data folder for each broker, made if absent and left in place; `None` takes fresh ones that
    /// go with the handle.
    pub data_dir: Option<PathBuf>,
    /// The Java heap of each broker, for example `512m`.
    pub heap: String,
    /// Further options of the Java machine; they win over ours.
    pub jvm: Vec<String>,
    /// Further settings of the brokers; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Further listeners of every broker: names and security protocols, for example `("SECURE", "SASL_SSL")`.
    pub listeners: Vec<(String, String)>,
    /// Users and their passwords, who may log in by SCRAM with either hash.
    pub users: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        KafkaOptions {
            version: USUAL.to_owned(),
            brokers: 1,
            port: None,
            data_dir: None,
            heap: "512m".to_owned(),
            jvm: Vec::new(),
            settings: Vec::new(),
            listeners: Vec::new(),
            users: Vec::new(),
        }
    }
}

/// A Kafka cluster. Dropping it kills the brokers, and removes their data unless a folder was given.
#[derive(Debug)]
pub struct Kafka {
    brokers: Vec<Broker>,
    zookeeper: Option<ZooKeeper>,
}

/// Where old brokers have their metadata.
#[derive(Debug)]
struct ZooKeeper {
    server: Server,
    port: Port,
}

#[derive(Debug)]
struct Broker {
    server: Server,
    ports: Ports,
}

/// The ports of one broker.
#[derive(Debug)]
struct Ports {
    client: Port,
    controller: Port,
    /// In the order of the further listeners.
    further: Vec<Port>,
}

impl Kafka {
    /// Fetches the jars if needed, formats the data folders, starts the brokers and waits until all of them answer.
    ///
    /// # Errors
    /// If something cannot be fetched, or a broker does not start; the error shows the end of its log.
    pub async fn start(options: KafkaOptions) -> Result<Kafka> {
        let (installation, class_data) = Box::pin(install(&options.version)).await?;
        Box::pin(boot(&installation, &class_data, &options)).await
    }

    /// The addresses to begin with, for example `127.0.0.1:20001,127.0.0.1:20003`.
    pub fn bootstrap(&self) -> String {
        self.brokers
            .iter()
            .map(|broker| format!("127.0.0.1:{}", broker.ports.client.number))
            .collect::<Vec<_>>()
            .join(",")
    }

    /// As [`Self::bootstrap`], of a further listener, counted from 0.
    ///
    /// # Errors
    /// If there is no such listener.
    pub fn further(&self, listener: usize) -> Result<String> {
        let ports = self.brokers.iter().map(|broker| broker.ports.further.get(listener));
        let addresses: Option<Vec<_>> = ports.map(|port| Some(format!("127.0.0.1:{}", port?.number))).collect();
        Ok(addresses
            .with_context(|| format!("there is no further listener {listener}: name it in KafkaOptions"))?
            .join(","))
    }

    /// The number of brokers.
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// The file that a broker, counted from 0, logs to.
    ///
    /// # Errors
    /// If there is no such broker.
    pub fn log(&self, broker: usize) -> Result<PathBuf> {
        Ok(self.broker(broker)?.log())
    }

    /// The number of a broker's process while it runs, to measure it.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn pid(&self, broker: usize) -> Result<Option<u32>> {
        Ok(self.broker(broker)?.pid().await)
    }

    /// Stops every broker in good order, then what they need.
    ///
    /// # Errors
    /// If a process neither stops nor can be killed.
    pub async fn stop(&self) -> Result<()> {
        // One after the other, the last would wait in vain for a quorum of controllers: all are asked at once.
        let stopped = join_all(self.brokers.iter().map(|broker| broker.server.stop())).await;
        stopped.into_iter().collect::<Result<()>>()?;
        match &self.zookeeper {
            Some(zookeeper) => zookeeper.server.stop().await,
            None => Ok(()),
        }
    }

    /// Ends every broker with SIGKILL.
    ///
    /// # Errors
    /// If a process does not go away.
    pub async fn kill(&self) -> Result<()> {
        let killed = join_all(self.brokers.iter().map(|broker| broker.server.kill())).await;
        killed.into_iter().collect()
    }

    /// Starts the brokers that do not run, on the same ports and data, and waits until all answer.
    ///
    /// # Errors
    /// If one does not start; the error shows the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper.server.start_again().await?;
        }
        for broker in &self.brokers {
            broker.server.spawn().await?;
        }
        for broker in &self.brokers {
            broker.server.ready().await?;
        }
        Ok(())
    }

    /// Stops every broker in good order and starts them again.
    ///
    /// # Errors
    /// As [`Kafka::stop`] and [`Kafka::start_again`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops one broker, counted from 0, in good order.
    ///
    /// # Errors
    /// If there is no such broker, or its process neither stops nor can be killed.
    pub async fn stop_broker(&self, broker: usize) -> Result<()> {
        self.broker(broker)?.stop().await
    }

    /// Ends one broker, counted from 0, with SIGKILL.
    ///
    /// # Errors
    /// If there is no such broker, or its process does not go away.
    pub async fn kill_broker(&self, broker: usize) -> Result<()> {
        self.broker(broker)?.kill().await
    }

    /// Lets one broker, counted from 0, stand still, as a machine that is suspended does.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn pause_broker(&self, broker: usize) -> Result<()> {
        self.broker(broker)?.pause().await;
        Ok(())
    }

    /// Lets one broker, counted from 0, go on.
    ///
    /// # Errors
    /// If there is no such broker.
    pub async fn resume_broker(&self, broker: usize) -> Result<()> {
        self.broker(broker)?.resume().await;
        Ok(())
    }

    /// Starts one broker, counted from 0, again, unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// If there is no such broker, or it does not start.
    pub async fn start_broker_again(&self, broker: usize) -> Result<()> {
        self.broker(broker)?.start_again().await
    }

    fn broker(&self, index: usize) -> Result<&Server> {
        let broker = self.brokers.get(index);
        Ok(&broker.with_context(|| format!("there is no broker {index}: there are {}", self.brokers.len()))?.server)
    }
}

/// Fetches what a broker needs; the first time, it also starts one to record its class data.
pub(crate) async fn install(version: &str) -> Result<(Installation, ClassData)> {
    let installation = part_of(version)?.install().await?;
    let mut class_data = claim_class_data(&installation).await?;
    if class_data.records() {
        let options = KafkaOptions { version: version.to_owned(), ..KafkaOptions::default() };
        let trained = boot(&installation, &class_data, &options).await?;
        trained.stop().await?;
        class_data = class_data.finish()?;
    }
    Ok((installation, class_data))
}

async fn boot(installation: &Installation, class_data: &ClassData, options: &KafkaOptions) -> Result<Kafka> {
    ensure!(options.brokers > 0, "a Kafka cluster needs at least one broker: correct KafkaOptions::brokers");
    let mut ports = Vec::new();
    for index in 0..options.brokers {
        ports.push(Ports {
            client: port::take(options.port.filter(|_| index == 0))?,
            controller: port::take(None)?,
            further: options.listeners.iter().map(|_| port::take(None)).collect::<Result<_>>()?,
        });
    }
    let controllers: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(index, ports)| format!("{}@127.0.0.1:{}", index + 1, ports.controller.number))
        .collect();
    let zookeeper = if options.version == OLDEST { Some(zookeeper(installation).await?) } else { None };
    if let Some(zookeeper) = &zookeeper {
        add_users(installation, zookeeper, &options.users).await?;
    }
    let mut brokers = Vec::new();
    for (index, ports) in ports.into_iter().enumerate() {
        let folder = RunFolder::make("kafka", None).await?;
        let data = match &options.data_dir {
            Some(path) => std::path::absolute(path)?.join(format!("broker-{}", index + 1)),
            None => folder.path.join("data"),
        };
        let file = folder.path.join("server.properties");
        let place = match &zookeeper {
            None => {
                let voters = controllers.join(",");
                let controller = ports.controller.number;
                format!(
                    "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
                     controller.listener.names=CONTROLLER\nlisteners=CONTROLLER://127.0.0.1:{controller},",
                    id = index + 1
                )
            }
            Some(ZooKeeper { port, .. }) => {
                format!("broker.id={}\nzookeeper.connect=127.0.0.1:{}\nlisteners=", index + 1, port.number)
            }
        };
        std::fs::write(&file, place + &properties(&ports, &data, options))
            .with_context(|| format!("writing {}", file.display()))?;
        if zookeeper.is_none() {
            let mut format = installation.tool("kafka.tools.StorageTool");
            format.args(["format", "--ignore-formatted", "-t", CLUSTER, "-c"]).arg(&file);
            for ((name, password), hash) in options.users.iter().flat_map(|user| HASHES.map(|hash| (user, hash))) {
                format.arg("--add-scram").arg(format!("{hash}=[name={name},password={password}]"));
            }
            format.current_dir(&folder.path);
            command::run(format, "the data folder must be writable, and of this cluster if it is not empty").await?;
        }

        let launch = installation.launch(&options.heap, class_data, &options.jvm, &[file.into_os_string()]);
        let probe = Probe::Kafka(ports.client.number);
        let server = Server::spawned("kafka", launch, probe, folder).await?;
        brokers.push(Broker { server, ports });
    }
    let kafka = Kafka { brokers, zookeeper };
    kafka.start_again().await?;
    Ok(kafka)
}

/// What SCRAM hashes passwords with.
const HASHES: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Starts a ZooKeeper from the jars of a broker.
async fn zookeeper(installation: &Installation) -> Result<ZooKeeper> {
    let folder = RunFolder::make("zookeeper", None).await?;
    let port = port::take(None)?;
    let launch = installation.launch_class(
        "org.apache.zookeeper.server.ZooKeeperServerMain",
        "128m",
        &["-Dzookeeper.admin.enableServer=false".to_owned()],
        &[port.number.to_string().into(), folder.path.join("data").into_os_string()],
    );
    let server = Server::start("zookeeper", launch, Probe::Port(port.number), folder).await?;
    Ok(ZooKeeper { server, port })
}

/// Makes users known before the first broker starts.
async fn add_users(installation: &Installation, zookeeper: &ZooKeeper, users: &[(String, String)]) -> Result<()> {
    for (name, password) in users {
        let mut add = installation.tool("kafka.admin.ConfigCommand");
        let address = format!("127.0.0.1:{}", zookeeper.port.number);
        add.args(["--zookeeper", &address, "--alter", "--entity-type", "users", "--entity-name", name, "--add-config"]);
        add.arg(HASHES.map(|hash| format!("{hash}=[password={password}]")).join(","));
        command::run(add, "the log of this ZooKeeper says more").await?;
    }
    Ok(())
}

/// A broker's settings behind those of its place in the cluster; the last of a name wins. The short session lets a killed broker come back at once: its controller
/// refuses it while the session of its former life lasts.
fn properties(ports: &Ports, data: &Path, options: &KafkaOptions) -> String {
    let client = ports.client.number;
    let (mut further, mut protocols) = (String::new(), String::new());
    for ((name, protocol), port) in options.listeners.iter().zip(&ports.further) {
        let _ = write!(further, ",{name}://127.0.0.1:{}", port.number);
        let _ = write!(protocols, ",{name}:{protocol}");
    }
    let replicas = options.brokers.min(3);
    let in_sync = if replicas == 3 { 2 } else { 1 };
    let mut text = format!(
        "CLIENT://127.0.0.1:{client}{further}
advertised.listeners=CLIENT://127.0.0.1:{client}{further}
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=CLIENT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=8
{share}group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=4000
",
        data = data.display(),
        share = if options.version.starts_with('4') {
            format!(
                "share.coordinator.state.topic.replication.factor={replicas}\n\
                 share.coordinator.state.topic.min.isr={in_sync}\n"
            )
        } else {
            String::new()
        },
    );
    for (name, value) in &options.settings {
        let _ = writeln!(text, "{name}={value}");
    }
    text
}
