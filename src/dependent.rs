//! What depends on a source's tables: the rules of `graph.vertices`, the documents of the indexes that show them, and the tables that streams
//! look into.
//!
//! Sources run whether there is a plan or not. Before there is one, what is wrong whatever the plan will be is refused, every doubt
//! is one of every index, and how the log carried each table is remembered: when the plan comes, it is held to that too.

pub mod derived;
pub mod rules;

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_connector::Carried;
use tributary_connector::{ConnectorError, Dependent, Doubt};
use tributary_dsl::Diagnostic;
use tributary_dsl::plan::{IndexPlan, Place, Plan, SourcePlan};
use tributary_event::{ErrorClass, TableName};
use tributary_indexer::listing::{Absent, Listings};
use tributary_processor::Backoff;

use self::derived::Derived;
use self::rules::Written;
use crate::streams::Shown;
use crate::streams::tables::list_anew;

/// The indexes of a pipeline, as they depend on one of its sources.
pub struct Indexes {
    source: SourcePlan,
    /// As they are written.
    rules: Written,
    /// Of every index.
    listings: Vec<Arc<Listings>>,
    /// What streams there are now.
    shown: Arc<RwLock<Shown>>,
    /// Those that the pipeline has elsewhere, or had once.
    absent: Arc<Absent>,
    known: Mutex<Known>,
    /// Why the tables were refused last.
    refused: Mutex<Vec<Diagnostic>>,
    needs: watch::Sender<u64>,
    derived: Derived,
}

/// What is known of the plan.
enum Known {
    /// Nothing; so far the log carries the tables in these ways.
    Nothing(Vec<Carried>),
    /// All.
    Plan(Arc<Plan>),
}

impl Indexes {
    /// Those of a pipeline with these rules, of which there is no plan yet.
    pub fn new(
        source: SourcePlan,
        rules: Written,
        (listings, absent): (Vec<Arc<Listings>>, Arc<Absent>),
        shown: Arc<RwLock<Shown>>,
    ) -> Self {
        let known = Mutex::new(Known::Nothing(Vec::new()));
        let (refused, derived) = Default::default();
        let needs = watch::Sender::new(0);
        Self { source, rules, listings, shown, absent, known, refused, needs, derived }
    }

    /// What is wrong with the source, if this is why it ended.
    pub fn explain(&self, error: &ConnectorError) -> Vec<Diagnostic> {
        match error {
            ConnectorError::Refused(_) => self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            error => vec![of_source(&self.source, error)],
        }
    }

    fn refuse(&self, found: Vec<Diagnostic>) -> Result<(), String> {
        let refusal = rules::refusal(&found);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = found;
        refusal
    }

    /// There is a plan: from now on the tables are held to it, and what was captured before is as well. Returns when every
    /// doubt is durable. False: shutdown came first.
    ///
    /// # Errors
    /// A doubt could not be noted, and never will be.
    pub async fn planned(&self, plan: &Arc<Plan>, shutdown: &CancellationToken) -> Result<bool, ConnectorError> {
        let before = std::mem::replace(&mut *self.known(), Known::Plan(plan.clone()));
        let Known::Nothing(carried) = before else { return Ok(true) };
        self.derived.take(plan, &carried);
        let lacking = carried.iter().filter_map(|table| {
            let lacks = rules::refusal(&rules::check(plan, &self.source, std::slice::from_ref(table))).err()?;
            let why = format!("the log has a stretch in which it does not suffice ({lacks})");
            Some(Doubt { table: table.schema.table_name(), why })
        });
        let doubts: Vec<Doubt> = lacking.collect();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        while !doubts.is_empty() {
            let error = match self.doubt(&doubts).await {
                Ok(()) => break,
                Err(error) if error.class() == ErrorClass::Transient => error,
                Err(error) => return Err(error),
            };
            warn!(source = self.source.name, %error, "a doubt cannot be noted; trying again");
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
        self.needs.send_modify(|needs| *needs += 1);
        Ok(true)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the documents of an index may be stale, if it shows one of the tables.
    fn concerns(&self, index: &str, doubts: &[Doubt]) -> Option<String> {
        let mut concerning = match &*self.known() {
            Known::Plan(plan) => {
                let plan_of = |plan: &IndexPlan| plan.name == index;
                let shown =
                    plan.indexes.iter().find(|plan| plan_of(plan)).map(IndexPlan::vertex_types).unwrap_or_default();
                let shows = |doubt: &&Doubt| {
                    let rules = plan.graph.vertices.get(&doubt.table);
                    rules.is_some_and(|rules| rules.iter().any(|rule| shown.contains(rule.type_name.as_str())))
                };
                doubts.iter().filter(shows).collect::<Vec<_>>()
            }
            Known::Nothing(_) => doubts.iter().filter(|doubt| self.rules.contains_key(&doubt.table)).collect(),
        }
        .into_iter();
        let first = concerning.next()?;
        let text = changed_without_events(&first.table, &first.why);
        Some(match concerning.count() {
            0 => text,
            1 => format!("{text}; and those of one more table"),
            more => format!("{text}; and those of {more} more tables"),
        })
    }
}

fn changed_without_events(table: &TableName, why: &str) -> String {
    format!("rows of {table} may have changed without events: {why}")
}

/// What is wrong with a source, at its place in the pipeline: that of the table, where it is one's.
pub fn of_source(source: &SourcePlan, error: &ConnectorError) -> Diagnostic {
    match error {
        ConnectorError::Table { table, cause, remedy } => {
            let named = |(name, _): &&(TableName, Place)| name.to_string() == *table;
            let place = source.places.iter().find(named).map_or(&source.place, |(_, place)| place);
            place.error(format!("table {table}: {cause}")).help(remedy.as_str())
        }
        error => source.place.error(format!("source {}: {error}", source.name)),
    }
}

/// The rules for one source, before anything runs.
pub enum Rules {
    /// Of a plan.
    Planned(Arc<Plan>, SourcePlan),
    /// As they are written, where there is no plan.
    Written(Written, SourcePlan),
}

impl Rules {
    /// What is wrong with them, as the log carries these tables.
    pub fn examine(&self, tables: &[Carried]) -> Vec<Diagnostic> {
        match self {
            Self::Planned(plan, source) => rules::check(plan, source, tables),
            Self::Written(written, source) => rules::check_without_schema(written, source, tables),
        }
    }

    /// What they are for.
    pub fn source(&self) -> &SourcePlan {
        let (Self::Planned(_, source) | Self::Written(_, source)) = self;
        source
    }
}

#[async_trait]
impl Dependent for Rules {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        rules::refusal(&self.examine(tables))
    }

    async fn doubt(&self, _doubts: &[Doubt]) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[async_trait]
impl Dependent for Indexes {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        match &mut *self.known() {
            Known::Plan(plan) => {
                self.refuse(rules::check(plan, &self.source, tables))?;
                self.derived.take(plan, tables);
                Ok(())
            }
            Known::Nothing(carried) => {
                self.refuse(rules::check_without_schema(&self.rules, &self.source, tables))?;
                for table in tables.iter().filter(|table| self.rules.contains_key(&table.schema.table_name())) {
                    if !carried.iter().any(|other| other.is_like(table)) {
                        carried.push(table.clone());
                    }
                }
                Ok(())
            }
        }
    }

    fn needs(&self) -> watch::Receiver<u64> {
        self.needs.subscribe()
    }

    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError> {
        for Doubt { table, why } in doubts {
            warn!(source = self.source.name, %table, why, "rows may have changed without events of the log");
        }
        let tables = self.shown.read().unwrap_or_else(PoisonError::into_inner).tables.clone();
        list_anew(&tables, &self.source.name, doubts)?;
        for listings in &self.listings {
            if let Some(why) = self.concerns(listings.index(), doubts) {
                listings.begin_anew(Some(why)).await?;
            }
        }
        // What those show is not known here.
        if let Some(why) = doubts.first().map(|Doubt { table, why }| changed_without_events(table, why)) {
            self.absent.begin_anew(&why).await?;
        }
        Ok(())
    }
}
