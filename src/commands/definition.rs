//! Commands that only look at the definition: check, plan, graph, schema, completions.

use std::path::Path;

use clap::CommandFactory;
use tributary_dsl::plan::StorePlan;
use tributary_dsl::{GraphFormat as DslFormat, render_graph, render_plan};
use tributary_indexer::mapping::{Dialect, mapping};

use crate::cli::{Cli, GraphFormat};
use crate::definition::load;
use crate::exit::Failure;
use crate::output::line;

/// `check`.
pub async fn check(file: &Path) -> Result<(), Failure> {
    let plan = load(file).await?;
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let tables = plan.graph.vertices.len();
    let edges: usize = plan.indexes.iter().map(|i| i.edges.len()).sum();
    line(&format!(
        "{} is fine: {}, {}, {}, every parent reachable",
        file.display(),
        count(tables, "mapped table"),
        if plan.indexes.len() == 1 { "1 index".to_owned() } else { format!("{} indexes", plan.indexes.len()) },
        count(edges, "edge"),
    ));
    Ok(())
}

/// `plan`.
pub async fn plan(file: &Path) -> Result<(), Failure> {
    let plan = load(file).await?;
    line(render_plan(&plan).trim_end());
    for index in &plan.indexes {
        let dialect =
            if matches!(index.store, StorePlan::OpenSearch(_)) { Dialect::OpenSearch } else { Dialect::Elasticsearch };
        let mapping = mapping(index, dialect).map_err(|e| Failure::Stopped(format!("index {}: {e}", index.name)))?;
        line(&format!("\nmapping of {}:", index.name));
        line(&serde_json::to_string_pretty(&mapping).unwrap_or_default());
    }
    Ok(())
}

/// `graph`.
pub async fn graph(file: &Path, format: GraphFormat) -> Result<(), Failure> {
    let plan = load(file).await?;
    let format = match format {
        GraphFormat::Mermaid => DslFormat::Mermaid,
        GraphFormat::Dot => DslFormat::Dot,
    };
    line(render_graph(&plan, format).trim_end());
    Ok(())
}

/// `schema`.
pub fn schema() {
    line(tributary_dsl::json_schema().trim_end());
}

/// `completions`.
pub fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tributary", &mut script);
    line(String::from_utf8_lossy(&script).trim_end());
}
