//! `init`: a pipeline proposed from a graph and a database, checked as it is written.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_connector::{mysql, postgres};
use tributary_dsl::plan::{IdTemplate, Plan, Secret};
use tributary_dsl::{Diagnostic, Inputs, Known, KnownTable, Proposal, Schema, check, parse, propose_pipeline};
use tributary_event::TableName;
use tributary_indexer::graph::{Graph, GraphError};

use crate::backends;
use crate::cli::exit::Failure;
use crate::cli::output::line;
use crate::definition::print;
use crate::probe::compare;

/// What is asked for.
pub struct Wish {
    /// URL of the graph.
    pub graph: String,
    /// URL of the database.
    pub source: String,
    /// The type of the documents.
    pub root: Option<String>,
    /// Headers for the graph, `name: value`.
    pub headers: Vec<String>,
    /// Where to write.
    pub folder: PathBuf,
}

/// How often ids that do not fit are taken from the graph's answer and tried again.
const TRIES: usize = 3;

/// A proposal in memory, as a definition reads its files.
struct Written<'a> {
    proposal: &'a Proposal,
    variables: &'a BTreeMap<String, String>,
}

impl Inputs for Written<'_> {
    fn file(&self, path: &str) -> Result<String, String> {
        if path == self.proposal.query_file { Ok(self.proposal.query.clone()) } else { Err("no such file".into()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

/// Proposes, writes and checks.
pub async fn init(wish: Wish) -> Result<(), Failure> {
    let mut variables = BTreeMap::from([("DATABASE_URL".to_owned(), wish.source.clone())]);
    let mut headers = BTreeMap::new();
    let mut named = Vec::new();
    for header in &wish.headers {
        let Some((name, value)) = header.split_once(':') else {
            return Err(Failure::Stopped(format!("--header {header:?}: write it as name: value")));
        };
        let (name, value) = (name.trim().to_owned(), value.trim());
        let variable: String =
            name.chars().map(|c| if c.is_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        variables.insert(format!("GRAPH_{variable}"), value.to_owned());
        headers.insert(name.clone(), Secret::new(value));
        named.push((name, format!("GRAPH_{variable}")));
    }
    // There is no file yet: what one calls `graph.endpoint` was given on the command line.
    let failed = |e: GraphError| Failure::of(e.class, e.message.replace("graph.endpoint", "--graph"));
    let client = backends::graph_client(&wish.graph, &headers).map_err(failed)?;
    let json = client.introspect().await.map_err(failed)?;
    let schema = Schema::from_introspection(&json).map_err(|e| Failure::Stopped(format!("{}: {e}", wish.graph)))?;
    let url = tributary_connector::Secret::new(wish.source.as_str());
    let (kind, tables) = match wish.source.split_once(':') {
        Some((scheme @ ("mysql" | "mariadb"), _)) => (scheme, mysql::describe(&url).await),
        _ => ("postgres", postgres::describe(&url).await),
    };
    let tables = tables.map_err(|e| Failure::of(e.class(), e.to_string()))?;
    let tables: Vec<KnownTable> = tables
        .into_iter()
        .map(|t| KnownTable { name: t.name, columns: t.columns, key: t.key, references: t.references })
        .collect();
    let mut templates: Vec<(String, TableName, IdTemplate)> = Vec::new();
    let mut tried = 0;
    let (proposal, found, compared) = loop {
        let (endpoint, root) = (wish.graph.as_str(), wish.root.as_deref());
        let known =
            Known { endpoint, kind, headers: &named, schema: &schema, tables: &tables, root, templates: &templates };
        let proposal = propose_pipeline(&known).map_err(|e| Failure::Stopped(e.to_string()))?;
        let (plan, found) = planned(&proposal, &variables, &schema);
        tried += 1;
        let Some(plan) = plan else { break (proposal, found, Compared::default()) };
        let mut compared = ids(&plan).await;
        let fitting = std::mem::take(&mut compared.fitting);
        let news: Vec<_> = fitting.into_iter().filter(|template| !templates.contains(template)).collect();
        if news.is_empty() || tried > TRIES {
            break (proposal, found, compared);
        }
        for (name, table, template) in news {
            let same = |other: &IdTemplate| other.columns().eq(template.columns());
            templates.retain(|(n, t, other)| (n, t) != (&name, &table) || !same(other));
            templates.push((name, table, template));
        }
    };
    write(&wish.folder, &proposal)?;
    print(&found);
    print(&compared.wrong);
    if let Some(silence) = &compared.silence {
        let _ = writeln!(std::io::stderr(), "error: {silence}\n");
    }
    let silent = usize::from(compared.silence.is_some());
    let errors = found.iter().filter(|d| d.is_error()).count() + compared.wrong.len() + silent;
    let file = wish.folder.join("pipeline.yaml");
    line(&format!("wrote {} and {}", file.display(), wish.folder.join(&proposal.query_file).display()));
    if errors > 0 {
        line("what is told above needs your hand; then: tributary check pipeline.yaml");
        return Err(Failure::Pipeline { errors });
    }
    let set: String = variables.keys().map(|name| format!("\n  export {name}=…")).collect();
    line(&format!(
        "it passes the check; rows and graph agree on ids. Read it, then:{set}\n  tributary run {}",
        file.display()
    ));
    Ok(())
}

/// The plan of a proposal, and what is to be said of it.
fn planned(
    proposal: &Proposal,
    variables: &BTreeMap<String, String>,
    schema: &Schema,
) -> (Option<Arc<Plan>>, Vec<Diagnostic>) {
    let (definition, mut found) = parse("pipeline.yaml", &proposal.pipeline, &Written { proposal, variables });
    let Some(definition) = definition else { return (None, found) };
    match check(&definition, schema) {
        Ok((plan, warnings)) => {
            found.extend(warnings);
            (Some(Arc::new(plan)), found)
        }
        Err(errors) => {
            found.extend(errors);
            (None, found)
        }
    }
}

/// What comes of comparing a proposal's ids with those of the graph.
#[derive(Default)]
struct Compared {
    /// Templates that fit better than those of the plan.
    fitting: Vec<(String, TableName, IdTemplate)>,
    /// What does not fit whatever is tried.
    wrong: Vec<Diagnostic>,
    /// Why they could not be compared.
    silence: Option<String>,
}

async fn ids(plan: &Plan) -> Compared {
    let mut compared = Compared::default();
    let graph = match backends::graph(plan, true) {
        Ok(graph) => graph,
        Err(error) => return Compared { silence: Some(error.to_string()), ..compared },
    };
    for index in &plan.indexes {
        let problems = match compare(plan, Some(index), graph.as_ref()).await {
            Ok(problems) => problems,
            Err(silence) => {
                let error = silence.into_error();
                compared.silence = Some(format!("index {}: ids could not be compared: {error}", index.name));
                continue;
            }
        };
        for problem in problems {
            for (table, template) in &problem.rules {
                if let Some(template) = template {
                    compared.fitting.push((problem.type_name.clone(), table.clone(), template.clone()));
                }
            }
            compared.wrong.push(problem.diagnostic());
        }
    }
    compared
}

/// Writes both files; overwrites nothing.
fn write(folder: &Path, proposal: &Proposal) -> Result<(), Failure> {
    let failed = |path: &Path, e: std::io::Error| Failure::Stopped(format!("{}: {e}", path.display()));
    let files = [("pipeline.yaml", &proposal.pipeline), (proposal.query_file.as_str(), &proposal.query)];
    for (name, _) in files {
        let path = folder.join(name);
        if path.exists() {
            let text = format!("{} is there already; remove it, or write elsewhere: --folder", path.display());
            return Err(Failure::Stopped(text));
        }
    }
    std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| failed(&path, e))?;
    }
    Ok(())
}
