//! Before a first build: whether the graph knows the ids that the rules of `graph.vertices` make of rows.
//!
//! A rule that makes other ids than the graph has fails without a word: the graph answers null for every root, so that the index
//! stays empty, and no lookup finds the documents that embed a changed vertex. So some rows of each table are asked for first. A graph
//! that knows a part of them hides the others, or the rule is wrong for those: which of the two, a person says (`hidden`).
//!
//! It is done before anything is made for a pipeline that never ran, as far as graph and sources answer then; else by whoever lists the
//! first roots.

mod problem;
mod rows;

pub use problem::Problem;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tributary_connector::{mysql, postgres};
use tributary_dsl::plan::{
    Columns, IndexPlan, Look, Plan, Probe, Question, RootIds, SentAs, SourcePlan, SourceSettings, TransportPlan,
    VertexRule, propose,
};
use tributary_dsl::{Definition, Diagnostic};
use tributary_event::{ErrorClass, Reporter, TableName, debezium};
use tributary_indexer::documents::document::assemble;
use tributary_indexer::graph::{Fetched, Graph, GraphError, IdPage, Identified};
use tributary_indexer::listing::RootIdSource;

use crate::backends::{self, connection, mysql_connection};
use crate::dependent::Rules;
use problem::{Kind, add, twice};
use rows::{Made, rows};

/// Rows that are asked for at first.
const FEW: usize = 20;
/// Rows that are asked for where the graph does not know all of the first.
const MANY: usize = 500;
/// What a graph may be behind beside its lag, before a row that it does not know is asked for again.
const GRACE: Duration = Duration::from_secs(1);
/// So long a pipeline that never ran waits for its ids to be compared before anything is made for it.
const SOON: Duration = Duration::from_secs(15);
/// The longest pause before.
const LONGEST: Duration = Duration::from_secs(30);

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
    /// Whether they were compared already.
    pub compared: bool,
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
        if after.is_none() && self.plan.graph.probe && !self.compared {
            let problems = match compare(&self.plan, Some(&self.index), self.graph.as_ref()).await {
                Ok(problems) => problems,
                Err(Silence::Graph(error)) => {
                    self.graph_health.down(error.message.clone());
                    return Err(error);
                }
                Err(Silence::Source(error)) => return Err(error),
            };
            if !problems.is_empty() {
                let mut told: Vec<String> = problems.iter().map(|problem| problem.diagnostic().untitled()).collect();
                told.push(kept(&self.plan.sources));
                return Err(GraphError::new(ErrorClass::Fatal, told.join("\n")));
            }
        }
        self.roots.page(after, size).await
    }

    async fn expected(&self) -> Option<u64> {
        self.roots.expected().await
    }
}

/// What becomes of the logs of sources whose capture has begun.
fn kept(sources: &[SourcePlan]) -> String {
    let (slots, others): (Vec<&SourcePlan>, Vec<&SourcePlan>) =
        sources.iter().partition(|source| matches!(source.settings, SourceSettings::Postgres(_)));
    let mut told = Vec::new();
    if !slots.is_empty() {
        let slots: Vec<&str> = slots.iter().map(|source| source.settings.reader()).collect();
        told.push(format!(
            "the replication slot {} keeps the log until the pipeline runs, or the slot is dropped",
            slots.join(", ")
        ));
    }
    if !others.is_empty() {
        let others: Vec<&str> = others.iter().map(|source| source.name.as_str()).collect();
        let others = others.join(", ");
        told.push(format!("the server of {others} keeps its log for as long as binlog_expire_logs_seconds says"));
    }
    format!("nothing was built. Changes are captured from here on: {}", told.join("; "))
}

/// Compares the ids of a pipeline that never ran, before anything is made for it. True: it was done. Where a source or the graph does not
/// answer, or the rules do not fit the tables, which others tell, it is left to whoever lists the roots.
///
/// # Errors
/// Ids do not fit.
pub async fn at_first(plan: &Arc<Plan>, definition: &Definition) -> Result<bool, Vec<Diagnostic>> {
    // Nothing is captured meanwhile.
    tokio::time::timeout(SOON, compared(plan, definition)).await.unwrap_or(Ok(false))
}

/// Whether a source was never captured, as far as that is known.
async fn is_new(definition: &Definition, source: &SourcePlan) -> bool {
    let postgres = match &source.settings {
        SourceSettings::Postgres(postgres) => postgres,
        // The server keeps nothing of it: the transport has where it stands.
        SourceSettings::MySql(_) => {
            if matches!(definition.transport(), TransportPlan::Embedded(_)) {
                return !definition.data().join(backends::LOG).exists();
            }
            let Ok(transport) = backends::transport(definition).await else { return false };
            if !matches!(transport.checkpoint(&source.name).await, Ok(None)) {
                return false;
            }
            for table in source.tables() {
                // One that is not there has none.
                let ends = transport.watermarks(&debezium::topic(&source.name, &table.schema, &table.name)).await;
                if ends.is_ok_and(|ends| ends.iter().any(|ends| ends.high > 0)) {
                    return false;
                }
            }
            return true;
        }
    };
    matches!(postgres::has_slot(&connection(postgres)).await, Ok(false))
}

async fn compared(plan: &Arc<Plan>, definition: &Definition) -> Result<bool, Vec<Diagnostic>> {
    for source in &plan.sources {
        if !is_new(definition, source).await {
            return Ok(false);
        }
        let rules = Rules::Planned(plan.clone(), source.clone());
        let inspected = match &source.settings {
            SourceSettings::Postgres(postgres) => postgres::inspect(&connection(postgres), &rules).await,
            SourceSettings::MySql(mysql) => mysql::inspect(&mysql_connection(mysql), &rules).await.map(drop),
        };
        if inspected.is_err() {
            return Ok(false);
        }
    }
    let Ok(graph) = backends::graph(plan, true) else { return Ok(false) };
    let mut found: Vec<Diagnostic> = Vec::new();
    for index in &plan.indexes {
        let Ok(problems) = compare(plan, Some(index), graph.as_ref()).await else { return Ok(false) };
        // Indexes that show the same have the same problems.
        for diagnostic in problems.iter().map(Problem::diagnostic) {
            if !found.contains(&diagnostic) {
                found.push(diagnostic);
            }
        }
    }
    if found.is_empty() { Ok(true) } else { Err(found) }
}

/// Compares the ids of an index's vertices; without an index, those of all types that can be asked for.
///
/// # Errors
/// The graph or a source does not answer.
pub async fn compare(plan: &Plan, index: Option<&IndexPlan>, graph: &dyn Graph) -> Result<Vec<Problem>, Silence> {
    let shown = index.map(IndexPlan::vertex_types);
    let mut problems = Vec::new();
    // What documents embed, if a root was found.
    let mut embedded: Option<BTreeSet<String>> = None;
    let mut unasked = Vec::new();
    let mut tables: Vec<(&TableName, &Vec<VertexRule>)> = plan.graph.vertices.iter().collect();
    // Roots first: their documents show other ids.
    let of_root = |rule: &VertexRule| index.filter(|index| rule.type_name == index.root_type);
    tables.sort_by_key(|(_, rules)| !rules.iter().any(|rule| of_root(rule).is_some()));
    for (table, rules) in tables {
        let Some(source) = plan.sources.iter().find(|source| source.tables().contains(table)) else { continue };
        let is_shown = |rule: &&VertexRule| shown.as_ref().is_none_or(|shown| shown.contains(rule.type_name.as_str()));
        for rule in rules.iter().filter(is_shown) {
            let look = plan.graph.probes.get(&rule.type_name);
            let rooted = of_root(rule);
            let question = rooted.map(|index| &index.fetch).or_else(|| look.and_then(|look| look.question.as_ref()));
            let listed = rooted.map(|index| &index.root_ids);
            let lists = matches!(listed, Some(RootIds::Table { table: lists, .. }) if lists == table);
            if lists && let Some(problem) = twice(table, rule, &rows(source, table, rule, MANY).await?) {
                add(&mut problems, problem);
                continue;
            }
            let rows = rows(source, table, rule, FEW).await?;
            if rows.is_empty() {
                continue;
            }
            let Some(question) = question else {
                unasked.push((source, table, rule));
                continue;
            };
            let asked = Asked { plan, source, table, rule, question, look };
            match (asked.compare(graph, rows).await?, rooted) {
                (Ok(known), Some(index)) if embedded.is_none() => {
                    embedded = Some(refs(index, graph, &known).await?);
                }
                (Ok(_), _) => {}
                (Err(problem), _) => add(&mut problems, problem),
            }
        }
    }
    let embedded = embedded.unwrap_or_default();
    for (source, table, rule) in unasked {
        if let Some(problem) = unlike(source, table, rule, &embedded).await? {
            add(&mut problems, problem);
        }
    }
    Ok(problems)
}

/// An id of the graph, and what stands in it.
fn shown(id: &str) -> String {
    Look::inside(id).map_or_else(|| format!("{id:?}"), |inside| format!("{id:?}, which is {inside} in base64"))
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
    plan: &'a Plan,
    source: &'a SourcePlan,
    table: &'a TableName,
    rule: &'a VertexRule,
    question: &'a Question,
    look: Option<&'a Probe>,
}

impl Asked<'_> {
    /// The ids that the graph knows, or what is wrong.
    async fn compare(&self, graph: &dyn Graph, few: Vec<Made>) -> Result<Result<Vec<String>, Problem>, Silence> {
        let mut asked = few;
        loop {
            let ids: Vec<String> = asked.iter().map(|made| made.id.clone()).collect();
            let (mut known, mut unknown) = (Vec::new(), Vec::new());
            let (mut refused, mut failed) = (None, None);
            for (made, identified) in asked.iter().zip(self.ask(graph, &ids).await?) {
                match identified {
                    Identified::Known => known.push(made.id.clone()),
                    Identified::Other(came) => {
                        let seen = Some((came.as_str(), made.columns.as_slice(), true));
                        let text = format!("answers the id {}", shown(&came));
                        return Ok(Err(self.problem(&made.id, asked.len(), &text, seen)));
                    }
                    // Where others are known, it is a fact about this one, which becomes a dead letter.
                    Identified::Failed(error) if error.class == ErrorClass::Definite => refused = Some((made, error)),
                    Identified::Failed(error) if error.class == ErrorClass::Fatal => return Err(error.into()),
                    // It may be an outage, or how the server says that it cannot read such an id.
                    Identified::Failed(error) => failed = Some((made, error)),
                    Identified::Missing => unknown.push(made.id.clone()),
                }
            }
            if !known.is_empty() {
                if unknown.is_empty() {
                    return Ok(Ok(known));
                }
                if let Some(more) = self.more(&asked).await? {
                    asked = more;
                    continue;
                }
                let unknown = self.still_unknown(graph, unknown).await?;
                let hidden = self.plan.graph.hidden.get(&self.rule.type_name).copied().unwrap_or(0);
                if unknown.len() * 100 <= usize::from(hidden) * asked.len() {
                    return Ok(Ok(known));
                }
                return Ok(Err(self.few(&unknown, asked.len(), hidden)));
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
        if asked.len() != FEW {
            return Ok(None);
        }
        let more = rows(self.source, self.table, self.rule, MANY).await?;
        Ok(Some(more).filter(|more| more.len() > asked.len()))
    }

    /// Those that are unknown when they are asked for once more, a while later, and whose rows are still there: what was just written may
    /// not be shown yet, and what was just deleted not any more.
    async fn still_unknown(&self, graph: &dyn Graph, unknown: Vec<String>) -> Result<Vec<String>, Silence> {
        tokio::time::sleep((self.plan.graph.lag + GRACE).min(LONGEST)).await;
        let there: BTreeSet<String> =
            rows(self.source, self.table, self.rule, 2 * MANY).await?.into_iter().map(|made| made.id).collect();
        let ids: Vec<String> = unknown.into_iter().filter(|id| there.contains(id)).collect();
        let mut still = Vec::new();
        for (id, identified) in ids.iter().zip(self.ask(graph, &ids).await?) {
            match identified {
                Identified::Missing => still.push(id.clone()),
                Identified::Known | Identified::Other(_) | Identified::Failed(_) => {}
            }
        }
        Ok(still)
    }

    fn few(&self, unknown: &[String], asked: usize, hidden: u8) -> Problem {
        let known = asked - unknown.len();
        Problem {
            type_name: self.rule.type_name.clone(),
            place: self.rule.place.clone(),
            kind: Kind::Few { known, asked, hidden, template: self.rule.id.clone() },
            seen: self.seen_for(
                unknown.first().map_or("", String::as_str),
                unknown.len(),
                "answers null, without an error",
            ),
            rules: vec![(self.table.clone(), None)],
            keys: Vec::new(),
        }
    }

    /// What was asked, and what came.
    fn seen_for(&self, id: &str, asked: usize, came: &str) -> Vec<String> {
        let others = if asked > 1 { format!(" (and {} more)", asked - 1) } else { String::new() };
        vec![
            format!("asked: {} for {id:?}{others}, by the template \"{}\"", self.question.operation, self.rule.id),
            format!("came: the graph {came}"),
        ]
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
            kind: Kind::Others,
            seen: self.seen_for(id, asked, came),
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
        kind: Kind::Others,
        seen: vec![
            format!("made: {:?}, by the template \"{}\"", own.id, rule.id),
            format!("documents embed: {first:?}"),
        ],
        rules: vec![(table.clone(), propose(first, &own.columns, false))],
        keys: Vec::new(),
    }))
}
