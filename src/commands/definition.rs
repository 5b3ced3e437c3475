//! Commands that only look at the definition: check, plan, graph, schema, completions.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory;
use tributary_connector::ConnectorError;
use tributary_connector::postgres::inspect;
use tributary_dsl::plan::{Plan, SourceSettings, StorePlan};
use tributary_dsl::{GraphFormat as DslFormat, render_graph, render_plan};
use tributary_event::ErrorClass;
use tributary_indexer::mapping::{Dialect, mapping};

use crate::backends;
use crate::cli::{Cli, GraphFormat};
use crate::definition::load;
use crate::dependent::Rules;
use crate::exit::Failure;
use crate::output::line;
use crate::probe::{Silence, problems};

/// `check`.
pub async fn check(file: &Path) -> Result<(), Failure> {
    let plan = Arc::new(load(file).await?);
    let (errors, unsure) = look(&plan).await?;
    for error in &errors {
        let _ = writeln!(std::io::stderr(), "error: {error}\n");
    }
    for warning in &unsure {
        let _ = writeln!(std::io::stderr(), "warning: {warning}\n");
    }
    if !errors.is_empty() {
        return Err(Failure::Pipeline { errors: errors.len() });
    }
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    let tables = plan.graph.vertices.len();
    let edges: usize = plan.indexes.iter().map(|i| i.edges.len()).sum();
    line(&format!(
        "{} is fine: {}, {}, {}, every parent reachable{}",
        file.display(),
        count(tables, "mapped table"),
        if plan.indexes.len() == 1 { "1 index".to_owned() } else { format!("{} indexes", plan.indexes.len()) },
        count(edges, "edge"),
        if unsure.is_empty() { ", rows and graph agree on ids" } else { "" },
    ));
    Ok(())
}

/// Looks at sources and graph: what is wrong, and what could not be looked at.
async fn look(plan: &Arc<Plan>) -> Result<(Vec<String>, Vec<String>), Failure> {
    let (mut errors, mut unsure) = (Vec::new(), Vec::new());
    for source in &plan.sources {
        let SourceSettings::Postgres(settings) = &source.settings;
        let rules = Rules { plan: plan.clone(), source: source.clone() };
        match inspect(&backends::connection(settings), &rules).await {
            Ok(()) => {}
            Err(ConnectorError::Refused(text)) => errors.extend(text.lines().map(str::to_owned)),
            Err(error) if error.class() == ErrorClass::Transient => {
                unsure.push(format!("source {}: its tables could not be looked at: {error}", source.name));
            }
            Err(error) => errors.push(format!("source {}: {error}", source.name)),
        }
    }
    // Ids are made of rows: where those cannot be read, there is nothing to compare.
    if !errors.is_empty() || !unsure.is_empty() || !plan.graph.probe {
        return Ok((errors, unsure));
    }
    let graph = backends::graph(plan, true)?;
    for index in &plan.indexes {
        match problems(plan, index, graph.as_ref()).await {
            Ok(problems) => {
                errors.extend(problems.into_iter().map(|problem| format!("index {}: {problem}", index.name)))
            }
            // It has just told its schema.
            Err(Silence::Graph(error)) => {
                errors.push(format!("index {}: the graph fails where ids of rows are asked for: {error}", index.name));
            }
            Err(Silence::Source(error)) => {
                unsure.push(format!("index {}: ids could not be compared: {error}", index.name));
            }
        }
    }
    Ok((errors, unsure))
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
