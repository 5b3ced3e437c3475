//! Everything that may be hurt: a database, three brokers, a search server, a graph, and three processes of one pipeline.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use movie_graph::{LoadOptions, Settings};
use tributary_stack::{Elasticsearch, ElasticsearchOptions, Kafka, KafkaOptions, Postgres, PostgresOptions};

use super::graph::Graph;
use super::member::Member;
use super::network::Namespace;
use super::relay::Relay;
use super::schedule::{Harm, PASSING, REMOTE, Step, Target};
use crate::tools::repository;

pub(super) struct Site {
    /// They end before what they use.
    pub(super) members: Vec<Member>,
    /// Those of processes whose networks can be cut, by their numbers.
    namespaces: BTreeMap<usize, Namespace>,
    graph: Graph,
    postgres: Postgres,
    kafka: Kafka,
    elasticsearch: Elasticsearch,
}

impl Site {
    /// Starts the servers and writes the pipeline; its processes do not run yet.
    /// `lags`: as if nothing were known of how far the graph may be behind.
    pub(super) async fn start(folder: &Path, cuts: bool, lags: bool) -> Result<Self> {
        // A sender that nobody answers to would keep the slot for a minute.
        let settings = vec![("wal_sender_timeout".to_owned(), "10s".to_owned())];
        let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
        let kafka =
            Kafka::start(KafkaOptions { brokers: 3, heap: "384m".to_owned(), ..KafkaOptions::default() }).await?;
        let elasticsearch = Elasticsearch::start(ElasticsearchOptions::default()).await?;
        let database_url = postgres.url("postgres");
        movie_graph::load(&database_url, LoadOptions::default()).await?;
        let settings = Settings { database_url, listen: ([127, 0, 0, 1], 0).into(), pool_size: 8 };
        let graph = Graph::start(settings).await?;
        let mut site = Self { members: Vec::new(), namespaces: BTreeMap::new(), graph, postgres, kafka, elasticsearch };
        if cuts {
            for number in REMOTE {
                site.namespaces.insert(number, Namespace::new(number, &site.ports()?).await?);
            }
        }
        let pipeline = site.write_pipeline(folder, lags)?;
        for number in 0..=PASSING {
            site.members.push(Member::new(pipeline.clone(), folder.join(format!("process-{number}")))?);
        }
        Ok(site)
    }

    pub(super) fn database_url(&self) -> String {
        self.graph.settings().database_url.clone()
    }

    /// Where the servers listen.
    fn ports(&self) -> Result<Vec<u16>> {
        let brokers = (0..self.kafka.brokers()).map(Target::Broker);
        let servers = [Target::Postgres, Target::Elasticsearch, Target::Graph].into_iter().chain(brokers);
        servers.map(|server| self.port(server)).collect()
    }

    /// Where a server listens.
    fn port(&self, server: Target) -> Result<u16> {
        match server {
            Target::Postgres => Ok(self.postgres.port()),
            Target::Broker(number) => {
                let bootstrap = self.kafka.bootstrap();
                let address = bootstrap.split(',').nth(number);
                let address = address.with_context(|| format!("there is no Kafka broker {number}"))?;
                let (_, port) = address.rsplit_once(':').context("a broker without a port")?;
                Ok(port.parse()?)
            }
            Target::Elasticsearch => Ok(self.elasticsearch.port()),
            Target::Graph => Ok(self.graph.settings().listen.port()),
            Target::Process(number) => bail!("process {number} is no server"),
        }
    }

    /// The ways to a server from the processes that are in namespaces.
    fn relays(&self, server: Target) -> Result<Vec<&Relay>> {
        let port = self.port(server)?;
        self.namespaces.values().map(|namespace| namespace.relay(port)).collect()
    }

    fn write_pipeline(&self, folder: &Path, lags: bool) -> Result<PathBuf> {
        let demo = repository().join("compose/demo");
        let transport = format!(
            "transport: {{ kafka: {{ brokers: \"{}\", partitions: 6, replication: 3, min_insync: 2 }} }}\n",
            self.kafka.bootstrap()
        );
        // The writers delete at a rate at which the brake would ask a person.
        let index = format!(
            "    refresh: 200ms\n    build: {{ deadline: 3s }}\n    brake: {{ percent: 100 }}\n    store: {{ elasticsearch: {{ url: \"{}\", replicas: 0 }} }}\n",
            self.elasticsearch.url()
        );
        let text = std::fs::read_to_string(demo.join("pipeline.yaml"))?
            .replace("${STUDIO_URL}", &self.database_url())
            .replace("${GRAPH_URL}", &format!("http://{}/graphql", self.graph.settings().listen))
            .replace("${TRIBUTARY_LISTEN:-127.0.0.1:7676}", "127.0.0.1:0")
            .replace("    refresh: 100ms\n", &index)
            .replace("\ngraph:\n", &format!("\n{transport}graph:\n"));
        let text = if lags { text.replace("  lag: 0s\n", "") } else { text };
        let pipeline = folder.join("pipeline.yaml");
        std::fs::write(&pipeline, text).with_context(|| format!("writing {}", pipeline.display()))?;
        std::fs::copy(demo.join("movies.graphql"), folder.join("movies.graphql"))?;
        Ok(pipeline)
    }

    /// Starts a process, unless it runs.
    pub(super) async fn start_member(&self, number: usize) -> Result<()> {
        self.member(number)?.start(self.namespaces.get(&number)).await
    }

    fn member(&self, number: usize) -> Result<&Member> {
        self.members.get(number).with_context(|| format!("there is no process {number}"))
    }

    /// The processes that can be asked from here and may be asked now.
    pub(super) fn addresses(&self) -> Vec<String> {
        let members = self.members.iter().enumerate().filter(|(number, _)| !self.namespaces.contains_key(number));
        members.filter_map(|(_, member)| member.address()).collect()
    }

    /// Begins a harm.
    pub(super) async fn hurt(&self, step: Step) -> Result<()> {
        match (step.target, step.harm) {
            (Target::Process(number), Harm::Cut) => match self.namespaces.get(&number) {
                Some(namespace) => namespace.cut().await,
                None => Ok(()),
            },
            (server, Harm::Cut) => {
                self.relays(server)?.into_iter().for_each(Relay::cut);
                Ok(())
            }
            (Target::Postgres, Harm::Kill) => self.postgres.kill().await,
            (Target::Postgres, Harm::Stop) => self.postgres.stop().await,
            (Target::Postgres, _) => {
                self.postgres.pause().await;
                Ok(())
            }
            (Target::Broker(number), Harm::Kill) => self.kafka.kill_broker(number).await,
            (Target::Broker(number), Harm::Stop) => self.kafka.stop_broker(number).await,
            (Target::Broker(number), _) => self.kafka.pause_broker(number).await,
            (Target::Elasticsearch, Harm::Kill) => self.elasticsearch.kill().await,
            (Target::Elasticsearch, Harm::Stop) => self.elasticsearch.stop().await,
            (Target::Elasticsearch, _) => {
                self.elasticsearch.pause().await;
                Ok(())
            }
            (Target::Graph, harm) => {
                self.graph.hurt(harm).await;
                Ok(())
            }
            (Target::Process(number), Harm::Kill) => self.member(number)?.kill().await,
            (Target::Process(number), Harm::Stop) => self.member(number)?.stop().await.map(drop),
            (Target::Process(number), _) => self.member(number)?.pause().await,
        }
    }

    /// Ends a harm.
    pub(super) async fn heal(&self, step: Step) -> Result<()> {
        match (step.target, step.harm) {
            (Target::Process(number), Harm::Cut) => match self.namespaces.get(&number) {
                Some(namespace) => namespace.mend().await,
                None => Ok(()),
            },
            (server, Harm::Cut) => {
                self.relays(server)?.into_iter().for_each(Relay::mend);
                Ok(())
            }
            (Target::Postgres, Harm::Kill | Harm::Stop) => self.postgres.start_again().await,
            (Target::Postgres, _) => {
                self.postgres.resume().await;
                Ok(())
            }
            (Target::Broker(number), Harm::Kill | Harm::Stop) => self.kafka.start_broker_again(number).await,
            (Target::Broker(number), _) => self.kafka.resume_broker(number).await,
            (Target::Elasticsearch, Harm::Kill | Harm::Stop) => self.elasticsearch.start_again().await,
            (Target::Elasticsearch, _) => {
                self.elasticsearch.resume().await;
                Ok(())
            }
            (Target::Graph, harm) => self.graph.heal(harm).await,
            (Target::Process(number), Harm::Kill | Harm::Stop) => self.start_member(number).await,
            (Target::Process(number), _) => self.member(number)?.resume().await,
        }
    }

    /// Ends everything, the processes first.
    pub(super) async fn stop(&self) -> Result<()> {
        for member in &self.members {
            member.kill().await?;
        }
        self.graph.stop().await;
        self.kafka.kill().await?;
        self.elasticsearch.kill().await?;
        self.postgres.stop().await
    }
}
