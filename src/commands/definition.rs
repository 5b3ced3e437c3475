//! Commands that only look at the definition: check, plan, graph, schema, completions.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use clap::CommandFactory;
use tributary_connector::Carried;
use tributary_connector::mysql;
use tributary_connector::postgres::inspect;
use tributary_connector::{ConnectorError, Dependent, Doubt};
use tributary_dsl::plan::{DeliveryPlan, IndexPlan, Plan, SinkPlan, SourceSettings, StorePlan};
use tributary_dsl::{Diagnostic, GraphFormat as DslFormat, check_rules, render_graph, render_plan};
use tributary_event::ErrorClass;
use tributary_indexer::documents::mapping::{Dialect, mapping};
use tributary_indexer::graph::Graph;
use tributary_sinks::{Conductor, Sql};

use crate::backends;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::cli::{Cli, GraphFormat};
use crate::definition::{Draft, PipelineFile, load, print, read_described, warn};
use crate::dependent::derived::{self, Columns, notes};
use crate::dependent::rules::refusal;
use crate::dependent::{Rules, of_source};
use crate::probe::{Problem, Silence, compare};

/// `check`.
pub async fn check(file: &PipelineFile) -> Result<(), Failure> {
    let (draft, silent) = read_described(file).await?;
    let plan = match draft.load().await {
        Ok(plan) => Arc::new(plan),
        Err(failure) => return Err(without_plan(&draft, failure).await),
    };
    // That a source is away is told by whoever looks at its tables.
    silent.iter().filter(|why| why.starts_with("service ")).for_each(|why| warn(why));
    let looked = look(&plan).await?;
    looked.print();
    let Looked { errors, unsure, .. } = looked;
    if !errors.is_empty() {
        return Err(Failure::Pipeline { errors: errors.len() });
    }
    let count = |n: usize, what: &str| if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") };
    if plan.indexes.is_empty() {
        line(&format!("{} is fine: {}", file.path.display(), count(plan.streams.len(), "stream")));
        return Ok(());
    }
    let tables = plan.graph.vertices.len();
    let edges: usize = plan.indexes.iter().map(|i| i.edges.len()).sum();
    line(&format!(
        "{} is fine: {}, {}, {}, every parent reachable{}",
        file.path.display(),
        count(tables, "mapped table"),
        match (plan.indexes.len(), plan.streams.len()) {
            (1, 0) => "1 index".to_owned(),
            (indexes, 0) => format!("{indexes} indexes"),
            (1, streams) => format!("1 index, {}", count(streams, "stream")),
            (indexes, streams) => format!("{indexes} indexes, {}", count(streams, "stream")),
        },
        count(edges, "edge"),
        match (plan.graph.probe, unsure.is_empty()) {
            (false, _) => "; ids were not compared (graph.probe is off)",
            (true, true) => ", rows and graph agree on ids",
            (true, false) => "",
        },
    ));
    Ok(())
}

/// What a look at sources and graph brought.
#[derive(Default)]
struct Looked {
    /// What is wrong.
    errors: Vec<Diagnostic>,
    /// What could not be looked at.
    unsure: Vec<Diagnostic>,
    /// What only a person can know.
    notes: Vec<Diagnostic>,
    columns: Columns,
}

/// The rules for a source; the columns of its tables are kept.
struct Observed<'a> {
    rules: &'a Rules,
    columns: Mutex<Columns>,
    found: Mutex<Vec<Diagnostic>>,
}

#[async_trait]
impl Dependent for Observed<'_> {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        derived::extend(&mut self.columns.lock().unwrap_or_else(PoisonError::into_inner), tables);
        let found = self.rules.examine(tables);
        let refusal = refusal(&found);
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = found;
        refusal
    }

    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError> {
        self.rules.doubt(doubts).await
    }
}

impl Looked {
    fn print(&self) {
        [&self.errors, &self.unsure, &self.notes].into_iter().for_each(|found| print(found));
    }

    /// Looks at the tables of a source.
    async fn at_tables(&mut self, rules: &Rules) {
        let source = rules.source();
        let url = match &source.settings {
            SourceSettings::Postgres(postgres) => &postgres.url,
            SourceSettings::MySql(mysql) => &mysql.url,
        };
        // What is wrong with its url was told.
        if url.reveal().is_empty() {
            return;
        }
        let observed = Observed { rules, columns: Mutex::default(), found: Mutex::default() };
        let looked = match &source.settings {
            SourceSettings::Postgres(postgres) => {
                inspect(&backends::connection(postgres), &observed).await.map(|()| Vec::new())
            }
            SourceSettings::MySql(mysql) => mysql::inspect(&backends::mysql_connection(mysql), &observed).await,
        };
        self.columns.extend(observed.columns.into_inner().unwrap_or_else(PoisonError::into_inner));
        match looked {
            Ok(notes) => {
                let said = |note| source.place.warning(format!("source {}: {note}", source.name));
                self.notes.extend(notes.into_iter().map(said));
            }
            Err(ConnectorError::Refused(_)) => {
                self.errors.extend(observed.found.into_inner().unwrap_or_else(PoisonError::into_inner));
            }
            Err(error) if error.class() == ErrorClass::Transient => {
                let message = format!("source {}: its tables could not be looked at: {error}", source.name);
                self.unsure.push(source.place.warning(message));
            }
            Err(error) => self.errors.push(of_source(source, &error)),
        }
    }

    /// Asks what a sink leads to whether it can take what it will be given. Nothing is sent or changed.
    async fn at_sink(&mut self, pipeline: &str, stream: &str, delivery: &DeliveryPlan) {
        let is_dry = matches!(&delivery.sink, SinkPlan::Conductor(conductor) if conductor.dry_run);
        let looked = match &delivery.sink {
            SinkPlan::Conductor(conductor) => match Conductor::new(conductor, &delivery.name) {
                Ok(sink) => sink.check().await,
                Err(error) => Err(error),
            },
            SinkPlan::Sql(sql) => match Sql::new(sql, &format!("{pipeline}.{stream}"), &delivery.name) {
                Ok(sink) => sink.check(sql.row.fields.get()).await,
                Err(error) => Err(error),
            },
            // A webhook and a store cannot be asked without being given something.
            SinkPlan::Webhook(_) | SinkPlan::Files(_) | SinkPlan::Index(_) => Ok(None),
        };
        let told = |text: String| format!("stream {stream}, sink {}: {text}", delivery.name);
        if is_dry {
            let text = "nothing is started (`dry_run`), and neither what flows meanwhile nor letters that are replayed are started later";
            self.notes.push(delivery.place.note(told(text.to_owned())));
        }
        match looked {
            Ok(None) => {}
            Ok(Some(note)) => self.notes.push(delivery.place.warning(told(note))),
            Err(error) if error.class == ErrorClass::Transient => {
                self.notes.push(delivery.place.warning(told(format!("it could not be looked at: {}", error.message))));
            }
            Err(error) => self.errors.push(delivery.place.error(told(error.message))),
        }
    }

    /// Compares ids of rows with those of the graph: of what an index shows, or of all types.
    async fn at_ids(&mut self, plan: &Plan, index: Option<&IndexPlan>, graph: &dyn Graph) {
        let name = index.map_or_else(String::new, |index| format!("index {}: ", index.name));
        match compare(plan, index, graph).await {
            // Indexes that show the same have the same problems.
            Ok(problems) => {
                for diagnostic in problems.iter().map(Problem::diagnostic) {
                    if !self.errors.contains(&diagnostic) {
                        self.errors.push(diagnostic);
                    }
                }
            }
            // It has just told its schema.
            Err(Silence::Graph(error)) => {
                let message = format!("{name}the graph fails where ids of rows are asked for: {error}");
                let place = index.map_or(&plan.graph.place, |index| &index.place);
                self.errors.push(place.error(message));
            }
            Err(Silence::Source(error)) => {
                self.unsure.push(plan.graph.place.warning(format!("{name}ids could not be compared: {error}")));
            }
        }
    }
}

/// Where a query is what is wrong, or the graph, tables and rules can be wrong as well, and the ids that those make.
async fn without_plan(draft: &Draft, failure: Failure) -> Failure {
    let mut looked = Looked::default();
    for source in draft.definition().sources() {
        looked.at_tables(&Rules::Written(draft.definition().vertices(), source.clone())).await;
    }
    let is_readable = looked.errors.is_empty() && looked.unsure.is_empty();
    if let (true, Ok(schema)) = (is_readable, draft.schema().await) {
        let plan = check_rules(draft.definition(), &schema);
        if let (true, Ok(graph)) = (plan.graph.probe, backends::graph(&plan, true)) {
            looked.at_ids(&plan, None, graph.as_ref()).await;
        }
    }
    looked.print();
    match failure {
        Failure::Pipeline { errors } => Failure::Pipeline { errors: errors + looked.errors.len() },
        other => other,
    }
}

/// Looks at sources, sinks and graph.
async fn look(plan: &Arc<Plan>) -> Result<Looked, Failure> {
    let mut looked = Looked::default();
    for source in &plan.sources {
        looked.at_tables(&Rules::Planned(plan.clone(), source.clone())).await;
    }
    looked.notes.extend(notes(plan, &looked.columns));
    // Ids are made of rows: where those cannot be read, there is nothing to compare.
    let is_readable = looked.errors.is_empty() && looked.unsure.is_empty();
    for stream in &plan.streams {
        for delivery in &stream.deliveries {
            looked.at_sink(&plan.pipeline, &stream.name, delivery).await;
        }
    }
    // A pipeline of streams alone may have no graph.
    if !is_readable || !plan.graph.probe || plan.indexes.is_empty() {
        return Ok(looked);
    }
    let graph = backends::graph(plan, true)?;
    for index in &plan.indexes {
        looked.at_ids(plan, Some(index), graph.as_ref()).await;
    }
    Ok(looked)
}

/// `plan`.
pub async fn plan(file: &PipelineFile) -> Result<(), Failure> {
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
pub async fn graph(file: &PipelineFile, format: GraphFormat) -> Result<(), Failure> {
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
