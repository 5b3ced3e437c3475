//! What is otherwise in another text of the same pipeline: which streams begin, end, and begin anew because of it, and why; and what a
//! pipeline that runs does not take.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};
use tributary_dsl::Definition;
use tributary_dsl::plan::{DeliveryPlan, Secret, SinkPlan, StepPlan, StreamPlan};
use tributary_event::TableName;

use crate::definition::Draft;

/// What reading the file again has changed, or would change.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Streams that are new.
    pub started: Vec<String>,
    /// Streams that are no longer there.
    pub stopped: Vec<String>,
    /// Streams that say something else, or ask something else.
    pub restarted: Vec<String>,
    /// Streams that went on.
    pub kept: Vec<String>,
    /// Why those begin anew that do, by their names.
    #[serde(default)]
    pub reasons: BTreeMap<String, Vec<String>>,
    /// Of what would be done: why it is not, each with what does it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}

/// What is otherwise in another text of the same pipeline.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub started: Vec<String>,
    pub stopped: Vec<String>,
    pub restarted: Vec<String>,
    pub kept: Vec<String>,
    pub reasons: BTreeMap<String, Vec<String>>,
    pub kept_services: HashSet<String>,
    pub kept_tables: HashSet<String>,
}

impl Changed {
    pub fn between(before: &Definition, now: &Definition) -> Self {
        let (old, new) = (before.prints(), now.prints());
        let same = |old: &BTreeMap<String, u64>, new: &BTreeMap<String, u64>| -> HashSet<String> {
            new.iter().filter(|(name, print)| old.get(*name) == Some(print)).map(|(name, _)| name.clone()).collect()
        };
        let (kept_services, kept_tables) = (same(&old.services, &new.services), same(&old.tables, &new.tables));
        let mut changed = Self { kept_services, kept_tables, ..Self::default() };
        for stream in now.streams() {
            let name = stream.name.clone();
            let (Some(before), Some(print)) = (old.streams.get(&name), new.streams.get(&name)) else {
                changed.started.push(name);
                continue;
            };
            let mut reasons = before.differences(print);
            reasons.extend(changed.asked_otherwise(stream));
            if reasons.is_empty() {
                changed.kept.push(name);
            } else {
                changed.restarted.push(name.clone());
                changed.reasons.insert(name, reasons);
            }
        }
        let gone = before.streams().iter().filter(|stream| !new.streams.contains_key(&stream.name));
        changed.stopped = gone.map(|stream| stream.name.clone()).collect();
        changed
    }

    /// What a stream asks that is new, or says something else.
    fn asked_otherwise(&self, stream: &StreamPlan) -> BTreeSet<String> {
        let asked = stream.steps.iter().filter_map(|step| match &step.plan {
            StepPlan::Enrich(enrich) if !self.kept_services.contains(&enrich.service) => {
                Some(format!("the service `{}` says something else", enrich.service))
            }
            StepPlan::Lookup(lookup) if !self.kept_tables.contains(&lookup.table) => {
                Some(format!("the table `{}` says something else", lookup.table))
            }
            _ => None,
        });
        asked.collect()
    }

    /// Streams that are the same, and have ended, begin again.
    pub fn begins_again(&mut self, has_ended: impl Fn(&str) -> bool) {
        let (ended, kept) = std::mem::take(&mut self.kept).into_iter().partition(|name| has_ended(name));
        self.kept = kept;
        for name in ended {
            self.reasons.insert(name.clone(), vec!["it had ended".to_owned()]);
            self.restarted.push(name);
        }
    }

    /// What whoever asked is told.
    pub fn reloaded(self) -> Reloaded {
        let Self { started, stopped, restarted, kept, reasons, .. } = self;
        Reloaded { started, stopped, restarted, kept, reasons, refused: Vec::new() }
    }
}

/// Why a pipeline that runs does not take another text, each with what does it.
pub(super) fn refusals(before: &Draft, now: &Draft) -> Vec<String> {
    let (old, new) = (before.definition().prints(), now.definition().prints());
    let all: BTreeSet<&String> = old.keys.keys().chain(new.keys.keys()).collect();
    let others = all.into_iter().filter(|key| old.keys.get(*key) != new.keys.get(*key));
    let file = now.files().first().map(|file| file.display().to_string()).unwrap_or_default();
    let mut refused: Vec<String> = others
        .map(|key| {
            format!(
                "`{key}` of the pipeline says something else, and a pipeline that runs takes other `streams`, `services` and `tables` alone: \
                 stop it and start it again, with `tributary run {file}`"
            )
        })
        .collect();
    refused.extend(given_other_tables(before.definition(), now.definition()));
    refused
}

/// Sinks that would go on in another table of the same schema, whose marks they would find there, without the rows of before.
fn given_other_tables(before: &Definition, now: &Definition) -> Vec<String> {
    let tables = |definition: &Definition| -> BTreeMap<(String, String), (Secret, TableName)> {
        let deliveries =
            definition.streams().iter().flat_map(|stream| stream.deliveries.iter().map(move |d| (stream, d)));
        let table = |(stream, delivery): (&StreamPlan, &DeliveryPlan)| match &delivery.sink {
            SinkPlan::Sql(sql) => {
                Some(((stream.name.clone(), delivery.name.clone()), (sql.url.clone(), sql.table.clone())))
            }
            _ => None,
        };
        deliveries.filter_map(table).collect()
    };
    let before = tables(before);
    let given = tables(now).into_iter().filter_map(|((stream, sink), (url, table))| {
        let (old_url, old) = before.get(&(stream.clone(), sink.clone()))?;
        (*old_url == url && old.schema == table.schema && old.name != table.name).then(|| {
            format!(
                "the sink {sink} of the stream {stream} is given the table {table} in place of {old}, and would go on there without the rows of \
                 before: give it another `name` too, under which it begins with what the stream's topic still has"
            )
        })
    });
    given.collect()
}
