//! Steps that remember: `dedupe` and `collapse`. What they decide must come out the same when the topic is read again after a crash, for
//! nothing else keeps it: so they stand before whatever asks somebody whose answers change, and one stream has one of them. What they bring
//! together are events of one partition, which is told where it may not be all that are meant.

use std::collections::{BTreeMap, BTreeSet};

use tributary_event::{ColumnType, TableName};
use tributary_expression::{Program, Shape};

use super::columns;
use super::programs::looking;
use crate::keys::streams::steps as key;
use crate::plan::{CollapsePlan, DedupePlan, Origin, Step, StepPlan, StreamInput, TransportPlan};
use crate::yaml::units::print_duration as time;
use crate::yaml::{Described, Map, Reader};

/// What is known of the topics that a stream reads.
pub(super) struct Ground<'a> {
    pub from: &'a [StreamInput],
    pub transport: &'a TransportPlan,
    /// Columns that make the key of a table, where the pipeline says them.
    pub keys: &'a [&'a BTreeMap<TableName, Vec<String>>],
    /// The sources whose changes it has; none: it has what somebody else writes.
    pub sources: Option<&'a BTreeSet<&'a str>>,
}

impl Ground<'_> {
    /// The columns that make the key of a table: what the pipeline says goes before what the database has, as far as that is known.
    pub(super) fn key(
        &self,
        table: &TableName,
        known: impl FnOnce() -> Option<Vec<ColumnType>>,
    ) -> Option<Vec<String>> {
        let said = self.keys.iter().find_map(|keys| keys.get(table)).cloned();
        said.or_else(|| Some(known()?.into_iter().filter(|column| column.is_key).map(|column| column.name).collect()))
    }
}

pub(super) fn dedupe(
    r: &mut Reader,
    step: &Map,
    map: &Map,
    shape: Option<&Shape>,
    before: &[Step],
    ground: &Ground,
) -> Option<DedupePlan> {
    placed(r, step, &key::DEDUPE, before);
    let by = by(r, map, shape, ground);
    let within = r.required(map, &key::WITHIN);
    let limit = r.value(map, &key::SEEN_LIMIT);
    let is_ours = ground.from.iter().all(|input| !matches!(input.origin, Origin::Topic));
    if let Some((within, kept)) = within.zip(ground.transport.retention().age)
        && within > kept
        && is_ours
    {
        let message =
            format!("the topic keeps its records for {} only, from which it is read what was seen", time(kept));
        let help = "let `transport` keep them longer (`retention: { age: … }`), or remember keys for a shorter time";
        r.error(map.key_place(&key::WITHIN), message, Some(help.into()));
    }
    Some(DedupePlan { by: by?, within: within?, limit })
}

pub(super) fn collapse(
    r: &mut Reader,
    step: &Map,
    map: &Map,
    shape: Option<&Shape>,
    before: &[Step],
    ground: &Ground,
) -> Option<CollapsePlan> {
    placed(r, step, &key::COLLAPSE, before);
    if let Some(split) = before.iter().find(|step| matches!(step.plan, StepPlan::Split { .. })) {
        let message = format!("`collapse` stands behind `{}`, which makes several events of one", split.name);
        r.error(step.key_place(&key::COLLAPSE), message, Some("put it before the `split`".into()));
    }
    let by = by(r, map, shape, ground);
    let period = r.required(map, &key::FOR);
    let (keys, limit) = (r.value(map, &key::HELD), r.value(map, &key::HELD_LIMIT));
    Some(CollapsePlan { by: by?, period: period?, patience: period?, keys, limit })
}

/// Refuses a step that stands where its decisions could not be found again.
fn placed(r: &mut Reader, step: &Map, key: &dyn Described, before: &[Step]) {
    let name = key.name();
    if let Some(other) = before.iter().find(|step| matches!(step.plan, StepPlan::Dedupe(_) | StepPlan::Collapse(_))) {
        let message = format!("a stream has one step that remembers, and `{}` is one", other.name);
        let help = "let a second stream do it, which takes the events of this one: `from: { stream: … }`";
        r.error(step.key_place(key), message, Some(help.into()));
    }
    let asks = |step: &&Step| matches!(step.plan, StepPlan::Enrich(_) | StepPlan::Lookup(_) | StepPlan::Call(_));
    if let Some(other) = before.iter().find(asks) {
        let message = format!(
            "`{name}` stands behind `{}`, which may be answered otherwise when events are read again after a crash",
            other.name
        );
        let help = "put it before that step, or into a second stream, which takes the events of this one: `from: { stream: … }`";
        r.error(step.key_place(key), message, Some(help.into()));
    }
}

/// Which events belong together.
fn by(r: &mut Reader, map: &Map, shape: Option<&Shape>, ground: &Ground) -> Option<Program> {
    let Some(text) = r.optional(map, &key::BY) else {
        return Program::compile("%key", shape?).ok().map(|(program, _)| program);
    };
    let program = looking(r, &text, shape, "a key")?;
    if !has_whole_key(r, &program, ground) {
        let message = "events of which this is the same may lie in different partitions of the topic, and are brought together in one only";
        let help =
            "they lie in one where it has all columns of the key of the topic's records; left out, `by` is that key";
        r.found.push(text.spot.warning(message).help(help));
    }
    Some(program)
}

/// Whether events of which the program answers the same are certainly in one partition.
fn has_whole_key(r: &Reader, program: &Program, ground: &Ground) -> bool {
    let reads = program.reads();
    let whole = |input: &StreamInput| match &input.origin {
        Origin::Table { table, .. } => {
            let reads_it = |column: &String| {
                ["%key", ".after", ".before"].iter().any(|row| reads.contains(&format!("{row}.{column}")))
            };
            let is_read =
                ground.key(table, || columns(r, input)).is_some_and(|key| !key.is_empty() && key.iter().all(reads_it));
            ground.transport.partitions() == 1 || is_read
        }
        Origin::Stream(_) => ground.transport.partitions() == 1,
        Origin::Topic => false,
    };
    reads.iter().any(|path| path == "%key") || ground.from.iter().all(whole)
}
