//! Which servers a command wants, and starting them.

use std::path::Path;

use anyhow::{Context as _, Result};
use tributary_stack::{
    Elasticsearch, ElasticsearchOptions, Kafka, KafkaOptions, MySql, MySqlOptions, MySqlProduct, OpenSearch,
    OpenSearchOptions, Part, Postgres, PostgresOptions, prefetch,
};

/// The servers that are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// PostgreSQL's major version.
    pub(crate) postgres: Option<String>,
    /// MySQL's version.
    pub(crate) mysql: Option<String>,
    /// MariaDB's version.
    pub(crate) mariadb: Option<String>,
    /// Kafka's version.
    pub(crate) kafka: Option<String>,
    /// Elasticsearch's major version.
    pub(crate) elasticsearch: Option<String>,
    /// OpenSearch's major version.
    pub(crate) opensearch: Option<String>,
}

/// The servers that run; dropping it kills them.
#[derive(Debug, Default)]
pub(crate) struct Running {
    pub(crate) postgres: Option<Postgres>,
    pub(crate) mysql: Option<MySql>,
    pub(crate) mariadb: Option<MySql>,
    pub(crate) kafka: Option<Kafka>,
    pub(crate) elasticsearch: Option<Elasticsearch>,
    pub(crate) opensearch: Option<OpenSearch>,
}

impl Wanted {
    /// Every part that can be had on this machine.
    pub(crate) fn everything() -> Wanted {
        let version = |newest: &str| Some(newest.to_owned());
        Wanted {
            postgres: version("18"),
            mysql: MySqlProduct::MySql.newest().and_then(version),
            mariadb: MySqlProduct::MariaDb.newest().and_then(version),
            kafka: version("4.1"),
            elasticsearch: version("9"),
            opensearch: version("3"),
        }
    }

    /// The parts as the stack names them.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let Wanted { postgres, mysql, mariadb, kafka, elasticsearch, opensearch } = self.clone();
        let all = [
            postgres.map(Part::Postgres),
            mysql.map(|version| Part::MySql(MySqlProduct::MySql, version)),
            mariadb.map(|version| Part::MySql(MySqlProduct::MariaDb, version)),
            kafka.map(Part::Kafka),
            elasticsearch.map(Part::Elasticsearch),
            opensearch.map(Part::OpenSearch),
        ];
        all.into_iter().flatten().collect()
    }

    /// Fetches what is missing, one part after the other, then starts all at the same time.
    pub(crate) async fn start(self) -> Result<Running> {
        prefetch(&self.parts()).await?;
        let postgres = async {
            match self.postgres {
                None => Ok(None),
                Some(version) => Postgres::start(PostgresOptions { version, ..Default::default() }).await.map(Some),
            }
        };
        let mysql = async |product, version: Option<String>| match version {
            None => Ok(None),
            Some(version) => MySql::start(MySqlOptions::of(product, &version)).await.map(Some),
        };
        let mariadb = mysql(MySqlProduct::MariaDb, self.mariadb);
        let mysql = mysql(MySqlProduct::MySql, self.mysql);
        let kafka = async {
            match self.kafka {
                None => Ok(None),
                Some(version) => Kafka::start(KafkaOptions { version, ..Default::default() }).await.map(Some),
            }
        };
        let elasticsearch = async {
            match self.elasticsearch {
                None => Ok(None),
                Some(version) => {
                    let options = ElasticsearchOptions { version, ..Default::default() };
                    Elasticsearch::start(options).await.map(Some)
                }
            }
        };
        let opensearch = async {
            match self.opensearch {
                None => Ok(None),
                Some(version) => OpenSearch::start(OpenSearchOptions { version, ..Default::default() }).await.map(Some),
            }
        };
        let (postgres, mysql, mariadb, kafka, elasticsearch, opensearch) = tokio::try_join!(
            Box::pin(postgres),
            Box::pin(mysql),
            Box::pin(mariadb),
            Box::pin(kafka),
            Box::pin(elasticsearch),
            Box::pin(opensearch)
        )?;
        Ok(Running { postgres, mysql, mariadb, kafka, elasticsearch, opensearch })
    }
}

impl Running {
    /// Each running part's name in messages, its variable in tests, and its address.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut all = Vec::new();
        if let Some(postgres) = &self.postgres {
            all.push(("PostgreSQL", "TRIBUTARY_TEST_POSTGRES", postgres.server_url()));
        }
        if let Some(mysql) = &self.mysql {
            all.push(("MySQL", "TRIBUTARY_TEST_MYSQL", mysql.server_url()));
        }
        if let Some(mariadb) = &self.mariadb {
            all.push(("MariaDB", "TRIBUTARY_TEST_MARIADB", mariadb.server_url()));
        }
        if let Some(kafka) = &self.kafka {
            all.push(("Kafka", "TRIBUTARY_TEST_KAFKA", kafka.bootstrap()));
        }
        if let Some(elasticsearch) = &self.elasticsearch {
            all.push(("Elasticsearch", "TRIBUTARY_TEST_ELASTICSEARCH", elasticsearch.url()));
        }
        if let Some(opensearch) = &self.opensearch {
            all.push(("OpenSearch", "TRIBUTARY_TEST_OPENSEARCH", opensearch.url()));
        }
        all
    }

    /// What to write in a pipeline to use each running part.
    pub(crate) fn settings(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(postgres) = &self.postgres {
            all.push(format!(
                "sources: {{ <name>: {{ postgres: {{ url: \"{}/<database>\", tables: […] }} }} }}",
                postgres.server_url()
            ));
        }
        for server in self.mysql.iter().chain(&self.mariadb) {
            all.push(format!(
                "sinks: {{ <name>: {{ sql: {{ url: \"{}/<database>\", table: <database>.<table> }} }} }}",
                server.server_url()
            ));
        }
        if let Some(kafka) = &self.kafka {
            // As many copies as there are brokers; three are the default.
            all.push(format!(
                "transport: {{ kafka: {{ brokers: \"{}\", replication: {} }} }}",
                kafka.bootstrap(),
                kafka.brokers()
            ));
        }
        let store = |kind: &str, url: String| {
            // A single node has no place for a replica.
            format!("indexes: {{ <name>: {{ query: …, store: {{ {kind}: {{ url: \"{url}\", replicas: 0 }} }} }} }}")
        };
        all.extend(self.elasticsearch.as_ref().map(|elasticsearch| store("elasticsearch", elasticsearch.url())));
        all.extend(self.opensearch.as_ref().map(|opensearch| store("opensearch", opensearch.url())));
        all
    }

    /// Stops every part in good order, at the same time.
    pub(crate) async fn stop(self) -> Result<()> {
        let Running { postgres, mysql, mariadb, kafka, elasticsearch, opensearch } = self;
        tokio::try_join!(
            async { if let Some(part) = postgres { part.stop().await } else { Ok(()) } },
            async { if let Some(part) = mysql { part.stop().await } else { Ok(()) } },
            async { if let Some(part) = mariadb { part.stop().await } else { Ok(()) } },
            async { if let Some(part) = kafka { part.stop().await } else { Ok(()) } },
            async { if let Some(part) = elasticsearch { part.stop().await } else { Ok(()) } },
            async { if let Some(part) = opensearch { part.stop().await } else { Ok(()) } },
        )?;
        Ok(())
    }
}

/// Makes a folder that holds nothing.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))
}
