//! Commands that only look at the definition: check, plan, graph, schema, completions.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::CommandFactory;
use tributary_connector::postgres::{Carried, inspect};
use tributary_connector::{ConnectorError, Dependent, Doubt};
use tributary_dsl::plan::{Plan, SourceSettings, StorePlan};
use tributary_dsl::{GraphFormat as DslFormat, render_graph, render_plan};
use tributary_event::ErrorClass;
use tributary_indexer::documents::mapping::{Dialect, mapping};

use crate::backends;
use crate::cli::{Cli, GraphFormat};
use crate::definition::{Draft, load, read_described};
use crate::dependent::Rules;
use crate::derived::{Columns, notes};
use crate::exit::Failure;
use crate::output::line;
use crate::probe::{Comparison, Silence, compare};

/// `check`.
pub async fn check(file: &Path) -> Result<(), Failure> {
    let (draft, silent) = read_described(file).await?;
    let plan = match draft.load().await {
        Ok(plan) => Arc::new(plan),
        Err(failure) => return Err(without_plan(&draft, failure).await),
    };
    let mut looked = look(&plan).await?;
    // That a source is away is told once, by whoever looks at its tables.
    looked.unsure.extend(silent.into_iter().filter(|_| plan.indexes.is_empty()));
    looked.print();
    let Looked { errors, unsure, .. } = looked;
    if !errors.is_empty() {
        return Err(Failure::Pipeline { errors: errors.len() });
    }
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    if plan.indexes.is_empty() {
        line(&format!("{} is fine: {}", file.display(), count(plan.streams.len(), "stream")));
        return Ok(());
    }
    let tables = plan.graph.vertices.len();
    let edges: usize = plan.indexes.iter().map(|i| i.edges.len()).sum();
    line(&format!(
        "{} is fine: {}, {}, {}, every parent reachable{}",
        file.display(),
        count(tables, "mapped table"),
        match (plan.indexes.len(), plan.streams.len()) {
            (1, 0) => "1 index".to_owned(),
            (indexes, 0) => format!("{indexes} indexes"),
            (1, streams) => format!("1 index, {}", count(streams, "stream")),
            (indexes, streams) => format!("{indexes} indexes, {}", count(streams, "stream")),
        },
        count(edges, "edge"),
        if unsure.is_empty() { ", rows and graph agree on ids" } else { "" },
    ));
    Ok(())
}

/// What a look at sources and graph brought.
#[derive(Default)]
struct Looked {
    /// What is wrong.
    errors: Vec<String>,
    /// What could not be looked at, or does not look right.
    unsure: Vec<String>,
    /// What only a person can know.
    notes: Vec<String>,
    columns: Columns,
}

/// The rules for a source; the columns of its tables are kept.
struct Observed<'a> {
    rules: &'a Rules,
    columns: Mutex<Columns>,
}

#[async_trait]
impl Dependent for Observed<'_> {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        let columns = |table: &Carried| table.schema.columns.iter().map(|column| column.name.to_string()).collect();
        let found = tables.iter().map(|table| (table.schema.table_name(), columns(table)));
        self.columns.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        self.rules.check(tables)
    }

    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError> {
        self.rules.doubt(doubts).await
    }
}

impl Looked {
    fn print(&self) {
        let mut stderr = std::io::stderr();
        self.errors.iter().for_each(|error| drop(writeln!(stderr, "error: {error}\n")));
        self.unsure.iter().for_each(|warning| drop(writeln!(stderr, "warning: {warning}\n")));
        self.notes.iter().for_each(|note| drop(writeln!(stderr, "note: {note}\n")));
    }

    /// Looks at the tables of a source.
    async fn at_tables(&mut self, rules: &Rules) {
        let (Rules::Planned(_, source) | Rules::Written(_, source)) = rules;
        let SourceSettings::Postgres(settings) = &source.settings;
        let observed = Observed { rules, columns: Mutex::default() };
        let looked = inspect(&backends::connection(settings), &observed).await;
        self.columns.extend(observed.columns.into_inner().unwrap_or_else(PoisonError::into_inner));
        match looked {
            Ok(()) => {}
            Err(ConnectorError::Refused(text)) => self.errors.extend(text.lines().map(str::to_owned)),
            Err(error) if error.class() == ErrorClass::Transient => {
                self.unsure.push(format!("source {}: its tables could not be looked at: {error}", source.name));
            }
            Err(error) => self.errors.push(format!("source {}: {error}", source.name)),
        }
    }
}

/// Where the query or the graph is what is wrong, the rules can be wrong as well.
async fn without_plan(draft: &Draft, failure: Failure) -> Failure {
    let mut looked = Looked::default();
    for source in draft.definition().sources() {
        looked.at_tables(&Rules::Written(draft.definition().vertices(), source.clone())).await;
    }
    looked.print();
    match failure {
        Failure::Pipeline { errors } => Failure::Pipeline { errors: errors + looked.errors.len() },
        other => other,
    }
}

/// Looks at sources and graph.
async fn look(plan: &Arc<Plan>) -> Result<Looked, Failure> {
    let mut looked = Looked::default();
    for source in &plan.sources {
        looked.at_tables(&Rules::Planned(plan.clone(), source.clone())).await;
    }
    looked.notes = notes(plan, &looked.columns);
    // Ids are made of rows: where those cannot be read, there is nothing to compare.
    let is_readable = looked.errors.is_empty() && looked.unsure.is_empty();
    // A pipeline of streams alone may have no graph.
    if !is_readable || !plan.graph.probe || plan.indexes.is_empty() {
        return Ok(looked);
    }
    let graph = backends::graph(plan, true)?;
    for index in &plan.indexes {
        let name = &index.name;
        match compare(plan, index, graph.as_ref()).await {
            Ok(Comparison { problems, doubts }) => {
                looked.errors.extend(problems.into_iter().map(|problem| format!("index {name}: {problem}")));
                looked.unsure.extend(doubts.into_iter().map(|doubt| format!("index {name}: {doubt}")));
            }
            // It has just told its schema.
            Err(Silence::Graph(error)) => {
                looked.errors.push(format!("index {name}: the graph fails where ids of rows are asked for: {error}"));
            }
            Err(Silence::Source(error)) => {
                looked.unsure.push(format!("index {name}: ids could not be compared: {error}"));
            }
        }
    }
    Ok(looked)
}

/// `plan`.
pub async fn plan(file: &Path) -> Result<(), Failure> {
    let plan = load(file).await?;
    line(render_plan(&plan).trim_end());
    for index in &plan.indexes {
        let dialect =
            if matches!(index.store, StorePlan::OpenSearch(_)) { Dialect::OpenSearch } else { Dialect::Elasticsearch };
        let mapping =
            mapping(&index.selection, dialect).map_err(|e| Failure::Stopped(format!("index {}: {e}", index.name)))?;
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
