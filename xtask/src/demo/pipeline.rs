//! The demo's pipeline as it is run: the committed one with this run's addresses filled in, and its transport and store chosen.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Arguments, Demo};
use crate::parts::Running;
use crate::tools::repository;

/// Writes the pipeline and its query into the demo's folder; answers its path.
pub(super) fn write(demo: &Demo, arguments: &Arguments) -> Result<PathBuf> {
    let committed = repository().join("compose/demo");
    let text = std::fs::read_to_string(committed.join("pipeline.yaml")).context("reading the demo's pipeline")?;
    let text = text.replace("${STUDIO_URL}", &demo.database_url).replace("${GRAPH_URL}", &demo.service.url());
    let text = chosen(&text, &demo.folder, &demo.servers, arguments);
    let path = demo.folder.join("pipeline.yaml");
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    std::fs::copy(committed.join("movies.graphql"), demo.folder.join("movies.graphql")).context("copying the query")?;
    std::fs::write(demo.folder.join("database-url"), &demo.database_url).context("writing the database's address")?;
    Ok(path)
}

/// A pipeline with the transport and the store of this run, which listens anywhere and keeps its data in the demo's folder.
pub(super) fn chosen(text: &str, folder: &Path, servers: &Running, arguments: &Arguments) -> String {
    let kafka = servers.kafka.as_ref().map(|kafka| {
        let brokers = kafka.bootstrap();
        format!("transport:\n  kafka: {{ brokers: \"{brokers}\", partitions: 4, replication: 1, min_insync: 1 }}\n")
    });
    let store = if let Some(elasticsearch) = servers.elasticsearch.as_ref().filter(|_| arguments.elasticsearch) {
        format!("    store: {{ elasticsearch: {{ url: \"{}\", replicas: 0 }} }}\n", elasticsearch.url())
    } else if let Some(opensearch) = &servers.opensearch {
        format!("    store: {{ opensearch: {{ url: \"{}\", replicas: 0 }} }}\n", opensearch.url())
    } else {
        String::new()
    };
    text.replace("${TRIBUTARY_LISTEN:-127.0.0.1:7676}", "127.0.0.1:0")
        .replace("${TRIBUTARY_DATA:-./data}", &folder.join("data").display().to_string())
        .replace("    refresh: 100ms\n", &format!("    refresh: 100ms\n{store}"))
        .replace("\ngraph:\n", &format!("\n{}graph:\n", kafka.unwrap_or_default()))
}
