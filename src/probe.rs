//! Before a first build: whether the graph knows the ids that the rules of `graph.vertices` make of rows.
//!
//! A rule that makes other ids than the graph has fails without a word: the graph answers null for every root, so that the index
//! stays empty, and no lookup finds the documents that embed a changed vertex. So a few rows of each table are asked for first.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;
use tributary_connector::ConnectorError;
use tributary_connector::postgres::{KeyPager, KeyRow};
use tributary_dsl::plan::{
    Columns, IdTemplate, IdValue, IndexPlan, Look, Place, Plan, Probe, Question, RootIds, SentAs, SourcePlan,
    SourceSettings, VertexRule, propose,
};
use tributary_event::{ErrorClass, Reporter, TableName};
use tributary_indexer::documents::document::assemble;
use tributary_indexer::graph::{Fetched, Graph, GraphError, IdPage, Identified};
use tributary_indexer::listing::RootIdSource;
use tributary_indexer::resolve::vertices::id_value;

use crate::backends::connection;

/// Rows that are asked for at first.
const FEW: usize = 20;
/// Rows that are asked for before it is said that the graph knows none.
const MANY: usize = 500;

/// What lists the roots of an index, and compares ids before it begins.
pub struct Probed {
    /// The pipeline.
    pub plan: Arc<Plan>,
    /// The index.
    pub index: IndexPlan,
    /// The graph.
    pub graph: Arc<dyn Graph>,
    /// What lists them.
    pub roots: Arc<dyn RootIdSource>,
    /// How the graph is.
    pub graph_health: Reporter,
}

/// Why ids could not be compared.
pub enum Silence {
    /// The graph did not answer.
    Graph(GraphError),
    /// A source did not.
    Source(GraphError),
}

impl Silence {
    /// What it said.
    pub fn into_error(self) -> GraphError {
        match self {
            Self::Graph(error) | Self::Source(error) => error,
        }
    }
}

impl From<GraphError> for Silence {
    fn from(error: GraphError) -> Self {
        Self::Graph(error)
    }
}

#[async_trait]
impl RootIdSource for Probed {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        if after.is_none() && self.plan.graph.probe {
            let Comparison { problems, doubts } = match compare(&self.plan, &self.index, self.graph.as_ref()).await {
                Ok(comparison) => comparison,
                Err(Silence::Graph(error)) => {
                    self.graph_health.down(error.message.clone());
                    return Err(error);
                }
                Err(Silence::Source(error)) => return Err(error),
            };
            doubts.iter().for_each(|doubt| warn!(index = self.index.name, "{doubt}"));
            if !problems.is_empty() {
                let mut told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                let slot = |source: &SourcePlan| match &source.settings {
                    SourceSettings::Postgres(postgres) => postgres.slot.clone(),
                };
                let slots: Vec<String> = self.plan.sources.iter().map(slot).collect();
                told.push(format!(
                    "nothing was built. Changes are captured from here on: the replication slot {} keeps the log until the pipeline \
                     runs, or the slot is dropped",
                    slots.join(", ")
                ));
                return Err(GraphError::new(ErrorClass::Fatal, told.join("\n")));
            }
        }
        self.roots.page(after, size).await
    }

    async fn expected(&self) -> Option<u64> {
        self.roots.expected().await
    }
}

/// A row, and the id that a rule makes of it.
struct Made {
    columns: Vec<(String, IdValue)>,
    id: String,
}

/// What comes of comparing the ids that rules make with those of the graph.
#[derive(Default)]
pub struct Comparison {
    /// The types whose ids do not fit.
    pub problems: Vec<Problem>,
    /// Rules of which the graph knows few rows, with the remedy: it may hide the others, or a column may have such ids by chance.
    pub doubts: Vec<String>,
}

/// Compares the ids of an index's vertices.
///
/// # Errors
/// The graph or a source does not answer.
pub async fn compare(plan: &Plan, index: &IndexPlan, graph: &dyn Graph) -> Result<Comparison, Silence> {
    let shown = index.vertex_types();
    let Comparison { mut problems, mut doubts } = Comparison::default();
    // What documents embed, if a root was found.
    let mut embedded: Option<BTreeSet<String>> = None;
    let mut unasked = Vec::new();
    let mut tables: Vec<(&TableName, &Vec<VertexRule>)> = plan.graph.vertices.iter().collect();
    // Roots first: their documents show other ids.
    tables.sort_by_key(|(_, rules)| !rules.iter().any(|rule| rule.type_name == index.root_type));
    for (table, rules) in tables {
        let Some(source) = plan.sources.iter().find(|source| source.tables().contains(table)) else { continue };
        for rule in rules.iter().filter(|rule| shown.contains(rule.type_name.as_str())) {
            let look = plan.graph.probes.get(&rule.type_name);
            let is_root = rule.type_name == index.root_type;
            let question = if is_root { Some(&index.fetch) } else { look.and_then(|look| look.question.as_ref()) };
            let lists = matches!(&index.root_ids, RootIds::Table { table: lists, .. } if is_root && lists == table);
            let mut rows = rows(source, table, rule, if lists { MANY } else { FEW }).await?;
            if rows.is_empty() {
                continue;
            }
            if let Some(problem) = twice(table, rule, &rows).filter(|_| lists) {
                add(&mut problems, problem);
                continue;
            }
            rows.truncate(FEW);
            let Some(question) = question else {
                unasked.push((source, table, rule));
                continue;
            };
            let asked = Asked { source, table, rule, question, look };
            match asked.compare(graph, rows, &mut doubts).await? {
                Ok(known) if is_root && embedded.is_none() => embedded = Some(refs(index, graph, &known).await?),
                Ok(_) => {}
                Err(problem) => add(&mut problems, problem),
            }
        }
    }
    let embedded = embedded.unwrap_or_default();
    for (source, table, rule) in unasked {
        if let Some(problem) = unlike(source, table, rule, &embedded).await? {
            add(&mut problems, problem);
        }
    }
    Ok(Comparison { problems, doubts })
}

/// What is wrong with the rules for a type: of one cause, however many tables map to it.
pub struct Problem {
    /// The type.
    pub type_name: String,
    /// Where the first rule is written.
    place: Place,
    /// What was asked or made, and what came.
    text: String,
    /// What fits in the place of each rule, if that is known.
    pub rules: Vec<(TableName, Option<IdTemplate>)>,
    /// Other fields of the type that can be its key.
    keys: Vec<String>,
}

fn add(problems: &mut Vec<Problem>, problem: Problem) {
    match problems.iter_mut().find(|known| known.type_name == problem.type_name) {
        Some(known) => known.rules.extend(problem.rules),
        None => problems.push(problem),
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { type_name, place, text, rules, keys } = self;
        let tables: Vec<String> = rules.iter().map(|(table, _)| table.to_string()).collect();
        let (rule, make) = if tables.len() == 1 { ("rule", "makes") } else { ("rules", "make") };
        write!(
            f,
            "{place}: graph.vertices: the {rule} for {type_name} of {} {make} other ids than the graph has\n{text}",
            tables.join(", ")
        )?;
        let fitting: Vec<String> = rules
            .iter()
            .filter_map(|(table, template)| {
                let template = template.as_ref()?;
                Some(format!("\n    {table}: [{{ type: {type_name}, id: \"{template}\" }}]"))
            })
            .collect();
        if !fitting.is_empty() {
            write!(f, "\n  write under graph.vertices:{}", fitting.concat())?;
        }
        if let Some(first) = keys.first() {
            let or = if fitting.is_empty() { "" } else { "or " };
            let of = if keys.len() > 1 { format!("   # of {}", keys.join(", ")) } else { String::new() };
            write!(
                f,
                "\n  {or}say which field has the plain key: graph: {{ types: {{ {type_name}: {{ id: {first} }} }} }}{of}"
            )?;
        }
        Ok(())
    }
}

/// The first rows of a table, and what a rule makes of them. None of a table that cannot be paged.
async fn rows(source: &SourcePlan, table: &TableName, rule: &VertexRule, most: usize) -> Result<Vec<Made>, Silence> {
    let SourceSettings::Postgres(postgres) = &source.settings;
    let failed =
        |e: ConnectorError| Silence::Source(GraphError::new(e.class(), format!("source {}: {e}", source.name)));
    let mut columns: Vec<String> = Vec::new();
    for column in rule.id.columns() {
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    let mut pager = match KeyPager::open(&connection(postgres), table, &columns).await {
        Ok(pager) => pager,
        // What is wrong with the table or its columns is told by the check of the rules.
        Err(ConnectorError::Table { .. } | ConnectorError::Privilege { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let page = pager.page(None, most).await.map_err(failed)?;
    Ok(page.iter().filter_map(|row| made(row, &columns, &rule.id)).collect())
}

fn made(row: &KeyRow, names: &[String], template: &IdTemplate) -> Option<Made> {
    let values: Option<Vec<IdValue>> = row.values.iter().map(id_value).collect();
    let columns: Vec<(String, IdValue)> = names.iter().cloned().zip(values?).collect();
    let id = template.render(|name| columns.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))?;
    Some(Made { columns, id })
}

/// An id of the graph, and what stands in it.
fn shown(id: &str) -> String {
    Look::inside(id).map_or_else(|| format!("{id:?}"), |inside| format!("{id:?}, which is {inside} in base64"))
}

/// Rows of the table that lists all roots must have an id each.
fn twice(table: &TableName, rule: &VertexRule, rows: &[Made]) -> Option<Problem> {
    let mut seen = BTreeSet::new();
    let id = &rows.iter().find(|made| !seen.insert(&made.id))?.id;
    Some(Problem {
        type_name: rule.type_name.clone(),
        place: rule.place.clone(),
        text: format!(
            "  made: {id:?} of several rows, by the template \"{}\"; the table is to list every {} once",
            rule.id, rule.type_name
        ),
        rules: vec![(table.clone(), None)],
        keys: Vec::new(),
    })
}

/// The vertices that some documents embed, as they stand in `_refs`.
async fn refs(index: &IndexPlan, graph: &dyn Graph, ids: &[String]) -> Result<BTreeSet<String>, GraphError> {
    let fetched = graph.fetch(index, ids).await?;
    let document = |fetched: Fetched| match fetched {
        Fetched::Found(json) => assemble(index, &json).ok(),
        Fetched::Missing | Fetched::Failed(_) | Fetched::Waits(_) => None,
    };
    Ok(fetched.into_iter().filter_map(document).flat_map(|document| document.refs).collect())
}

/// A rule whose vertices the graph can be asked for.
struct Asked<'a> {
    source: &'a SourcePlan,
    table: &'a TableName,
    rule: &'a VertexRule,
    question: &'a Question,
    look: Option<&'a Probe>,
}

impl Asked<'_> {
    /// The ids that the graph knows, or what is wrong.
    async fn compare(
        &self,
        graph: &dyn Graph,
        few: Vec<Made>,
        doubts: &mut Vec<String>,
    ) -> Result<Result<Vec<String>, Problem>, Silence> {
        let mut asked = few;
        loop {
            let ids: Vec<String> = asked.iter().map(|made| made.id.clone()).collect();
            let mut known = Vec::new();
            let (mut refused, mut failed) = (None, None);
            for (made, identified) in asked.iter().zip(self.ask(graph, &ids).await?) {
                match identified {
                    Identified::Known => known.push(made.id.clone()),
                    Identified::Other(came) => {
                        let seen = Some((came.as_str(), made.columns.as_slice(), true));
                        let text = format!("answers the id {}", shown(&came));
                        return Ok(Err(self.problem(&made.id, asked.len(), &text, seen)));
                    }
                    Identified::Failed(error) if error.class == ErrorClass::Definite => refused = Some((made, error)),
                    Identified::Failed(error) if error.class == ErrorClass::Fatal => return Err(error.into()),
                    // It may be an outage, or how the server says that it cannot read such an id.
                    Identified::Failed(error) => failed = Some((made, error)),
                    Identified::Missing => {}
                }
            }
            if !known.is_empty() {
                if known.len() * 2 < asked.len() {
                    if let Some(more) = self.more(&asked).await? {
                        asked = more;
                        continue;
                    }
                    doubts.push(self.doubt(&asked, &known));
                }
                return Ok(Ok(known));
            }
            if let Some((made, error)) = refused {
                let came = format!("refuses it: {}", error.message);
                return Ok(Err(self.problem(&made.id, asked.len(), &came, None)));
            }
            if let Some((made, error)) = failed {
                let seen = self.seen(graph).await?.filter(|seen| Look::of(seen) != Look::of(&made.id));
                let Some(seen) = seen else { return Err(error.into()) };
                let type_name = &self.rule.type_name;
                let came = format!("fails: {}; ids of {type_name} look there like {}", error.message, shown(&seen));
                let seen = Some((seen.as_str(), made.columns.as_slice(), false));
                return Ok(Err(self.problem(&made.id, asked.len(), &came, seen)));
            }
            let Some(first) = asked.first() else { return Ok(Ok(known)) };
            let seen = self.seen(graph).await?;
            if let Some(seen) = seen.as_ref().filter(|seen| Look::of(seen) == Look::of(&first.id)) {
                let own = self.ask(graph, std::slice::from_ref(seen)).await?;
                if matches!(own.as_slice(), [Identified::Missing | Identified::Other(_)]) {
                    let came = format!(
                        "answers null, without an error, and also for {seen:?}, which it lists as the `{}` of a {}: what is asked \
                         takes another id. Ask by a field that takes `{0}`, or name what it takes: graph: {{ types: {{ {1}: {{ id: … }} }} }}",
                        self.question.key, self.rule.type_name
                    );
                    return Ok(Err(self.problem(&first.id, asked.len(), &came, None)));
                }
            }
            if let Some(seen) = seen.filter(|seen| Look::of(seen) != Look::of(&first.id)) {
                let (type_name, seen_there) = (&self.rule.type_name, shown(&seen));
                let came = format!("answers null, without an error; ids of {type_name} look there like {seen_there}");
                let seen = Some((seen.as_str(), first.columns.as_slice(), false));
                return Ok(Err(self.problem(&first.id, asked.len(), &came, seen)));
            }
            // Those may all be hidden, drafts or archived; many of them hardly are.
            if let Some(more) = self.more(&asked).await? {
                asked = more;
                continue;
            }
            let came = "answers null, without an error, for each of them. Does it read the same database? Does it show these rows \
                        to whom `graph.headers` says we are? If it shows no rows yet, set `graph: { probe: off }`";
            return Ok(Err(self.problem(&first.id, asked.len(), came, None)));
        }
    }

    /// More rows than were asked for, if there are.
    async fn more(&self, asked: &[Made]) -> Result<Option<Vec<Made>>, Silence> {
        if asked.len() < FEW {
            return Ok(None);
        }
        let more = rows(self.source, self.table, self.rule, MANY).await?;
        Ok(Some(more).filter(|more| more.len() > asked.len()))
    }

    fn doubt(&self, asked: &[Made], known: &[String]) -> String {
        let unknown = asked.iter().find(|made| !known.contains(&made.id)).map_or("", |made| made.id.as_str());
        format!(
            "{}: the graph knows {} of {} ids that the rule for {} makes of rows of {}, and not {unknown:?}: if it does not hide \
             those rows, the template \"{}\" names another column than the key",
            self.rule.place,
            known.len(),
            asked.len(),
            self.rule.type_name,
            self.table,
            self.rule.id
        )
    }

    async fn ask(&self, graph: &dyn Graph, ids: &[String]) -> Result<Vec<Identified>, GraphError> {
        let mut all = Vec::with_capacity(ids.len());
        for some in ids.chunks(100) {
            all.extend(graph.identify(self.question, &self.rule.type_name, some).await?);
        }
        Ok(all)
    }

    /// An id that the graph itself lists, if it lists such vertices.
    async fn seen(&self, graph: &dyn Graph) -> Result<Option<String>, GraphError> {
        let Some(paging) = self.look.and_then(|look| look.listing.as_ref()) else { return Ok(None) };
        match graph.root_ids(paging, None, 1).await {
            Ok(page) => Ok(page.ids.into_iter().next()),
            Err(error) if error.class == ErrorClass::Transient => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn problem(&self, id: &str, asked: usize, came: &str, seen: Option<(&str, &Columns, bool)>) -> Problem {
        let others = if asked > 1 { format!(" (and {} more)", asked - 1) } else { String::new() };
        // A field that takes numbers takes no global ids, whatever the key is.
        let takes = |seen: &str| self.question.sent_as == SentAs::Text || Look::of(seen) == Look::Number;
        let seen_fits = seen.filter(|(seen, ..)| takes(seen));
        let template = seen_fits.and_then(|(seen, columns, same)| propose(seen, columns, same));
        let is_global = seen.is_some_and(|(seen, ..)| Look::of(seen) == Look::Global);
        // One field holds the key of one column only.
        let one_column = matches!(seen, Some((_, [_], _)));
        Problem {
            type_name: self.rule.type_name.clone(),
            place: self.rule.place.clone(),
            text: format!(
                "  asked: {} for {id:?}{others}, by the template \"{}\"\n  came: the graph {came}",
                self.question.operation, self.rule.id
            ),
            rules: vec![(self.table.clone(), template)],
            keys: if is_global && one_column {
                self.look.map(|look| look.others.clone()).unwrap_or_default()
            } else {
                Vec::new()
            },
        }
    }
}

/// A rule for vertices that cannot be asked for: the ids that it makes must look like those in documents.
async fn unlike(
    source: &SourcePlan,
    table: &TableName,
    rule: &VertexRule,
    embedded: &BTreeSet<String>,
) -> Result<Option<Problem>, Silence> {
    let prefix = format!("{}:", rule.type_name);
    let seen: Vec<&str> = embedded.iter().filter_map(|reference| reference.strip_prefix(&prefix)).collect();
    let Some(first) = seen.first() else { return Ok(None) };
    let made = rows(source, table, rule, MANY).await?;
    let Some(own) = made.first() else { return Ok(None) };
    if made.iter().any(|made| seen.contains(&made.id.as_str())) || Look::of(first) == Look::of(&own.id) {
        return Ok(None);
    }
    Ok(Some(Problem {
        type_name: rule.type_name.clone(),
        place: rule.place.clone(),
        text: format!("  made: {:?}, by the template \"{}\"\n  documents embed: {first:?}", own.id, rule.id),
        rules: vec![(table.clone(), propose(first, &own.columns, false))],
        keys: Vec::new(),
    }))
}
