//! What sources and services say of what flows through streams: columns of tables, schemas of GraphQL services. Programs may rely on it.
//!
//! A program that is right whatever columns hold needs none of it, so nobody is asked for such a pipeline. What was answered is kept
//! beside the pipeline's data: a pipeline starts also while a source is away. What is kept may be old; a program that relies on what is
//! no longer so fails for an event as any other does, and skips nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::time::timeout;
use tributary_connector::mysql;
use tributary_connector::postgres::column_types;
use tributary_dsl::plan::{ServiceKind, ServicePlan, SourceSettings};
use tributary_dsl::{Definition, Schema};
use tributary_event::{ColumnType, TableName};
use tributary_indexer::graph::{Graph as _, GraphError};

use crate::backends;

/// A source or a service that does not answer is waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Described {
    columns: BTreeMap<TableName, Vec<ColumnType>>,
    /// Answers to the introspection query, by service.
    answers: BTreeMap<String, Json>,
    schemas: BTreeMap<String, Arc<Schema>>,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    tables: Vec<(String, String, Vec<ColumnType>)>,
    services: BTreeMap<String, Json>,
}

impl Described {
    /// The columns of a table, if they are known.
    pub fn columns(&self, table: &TableName) -> Option<Vec<ColumnType>> {
        self.columns.get(table).cloned()
    }

    /// The schema of a service, if it is known.
    pub fn schema(&self, service: &str) -> Option<Arc<Schema>> {
        self.schemas.get(service).cloned()
    }

    /// Asks the sources and the GraphQL services of a pipeline with streams; of what does not answer, `before` stays. With it comes why
    /// something could not be asked.
    pub async fn ask(definition: &Definition, before: Self) -> (Self, Vec<String>) {
        let (mut described, mut silent) = (before, Vec::new());
        for source in definition.sources() {
            let decimals = backends::decimals(source.settings.decimals());
            let asked = async {
                match &source.settings {
                    SourceSettings::Postgres(postgres) => column_types(&backends::connection(postgres), decimals).await,
                    SourceSettings::MySql(mysql) => {
                        mysql::column_types(&backends::mysql_connection(mysql), decimals).await
                    }
                }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(tables)) => described.columns.extend(tables),
                Ok(Err(error)) => {
                    silent.push(format!("source {}: its columns could not be asked for: {error}", source.name))
                }
                Err(_) => silent.push(format!("source {}: its columns could not be asked for: no answer", source.name)),
            }
        }
        for service in definition.services().iter().filter(|service| service.kind == ServiceKind::Graphql) {
            match timeout(PATIENCE, introspected(service)).await {
                Ok(Ok(answer)) => described.take(&service.name, answer),
                Ok(Err(error)) => {
                    silent.push(format!("service {}: its schema could not be asked for: {error}", service.name))
                }
                Err(_) => {
                    silent.push(format!("service {}: its schema could not be asked for: no answer", service.name))
                }
            }
        }
        (described, silent)
    }

    fn take(&mut self, service: &str, answer: Json) {
        // What is no schema tells nothing of its answers.
        if let Ok(schema) = Schema::from_introspection(&answer) {
            self.schemas.insert(service.to_owned(), Arc::new(schema));
            self.answers.insert(service.to_owned(), answer);
        }
    }

    /// What was kept of a pipeline; nothing, if it cannot be read.
    pub fn kept(data: &Path, pipeline: &str) -> Self {
        let kept = std::fs::read(path(data, pipeline)).ok();
        let Some(kept) = kept.and_then(|text| serde_json::from_slice::<Kept>(&text).ok()) else {
            return Self::default();
        };
        let mut described = Self::default();
        let tables = kept.tables.into_iter().map(|(schema, name, columns)| (TableName::new(schema, name), columns));
        described.columns = tables.collect();
        kept.services.into_iter().for_each(|(service, answer)| described.take(&service, answer));
        described
    }

    /// Keeps it, as far as the folder can be written: nothing depends on that.
    pub fn keep(&self, data: &Path, pipeline: &str) {
        let table = |(name, columns): (&TableName, &Vec<ColumnType>)| {
            (name.schema.to_string(), name.name.to_string(), columns.clone())
        };
        let kept = Kept { tables: self.columns.iter().map(table).collect(), services: self.answers.clone() };
        let (path, text) = (path(data, pipeline), serde_json::to_vec(&kept).unwrap_or_default());
        // It replaces what was there at once, or not at all.
        let beside = path.with_extension("new");
        let written = std::fs::create_dir_all(data)
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, &path));
        if let Err(error) = written {
            tracing::debug!(%error, path = %path.display(), "what sources and services say of themselves is not kept");
        }
    }
}

async fn introspected(service: &ServicePlan) -> Result<Json, GraphError> {
    backends::graph_client(&service.url, &service.headers)?.introspect().await
}

fn path(data: &Path, pipeline: &str) -> PathBuf {
    data.join(format!("{pipeline}.described.json"))
}
