//! Keys that may be null, as far as columns and answers of services are described: a sink takes no event that has such a key. Whoever
//! filters by what a key is made of has thought of it: nothing is said then.

use tributary_event::Op;
use tributary_expression::{FunctionSet, Path, Program, Shape};

use super::Surroundings;
use crate::diagnostic::Diagnostic;
use crate::plan::{Missing, Origin, Step, StepPlan};
use crate::yaml::Text;

/// What flows into a sink.
pub(super) struct Flowing<'a> {
    /// What is known of the events; none: an earlier step was wrong.
    pub shape: Option<&'a Shape>,
    /// What was done with them.
    pub steps: &'a [Step],
    /// Which of them go there; none: all.
    pub when: Option<&'a Program>,
    /// What is around the sink.
    pub around: &'a Surroundings<'a>,
}

impl Flowing<'_> {
    /// A warning where the key of a topic's records may be null.
    pub fn null_of_record(&self, text: &Text, key: &Program, functions: &FunctionSet) -> Option<Diagnostic> {
        if !key.may_answer_null() {
            return None;
        }
        let lacks_row = self.around.ops.iter().any(|op| !matches!(op, Op::Create | Op::Update | Op::Read));
        let is_null_in_rows = self.of_rows(&text.value, functions).is_none_or(|key| key.may_answer_null());
        // One without a row may have ended by any of what it lacks.
        let looked_at = self.looked_at();
        let is_left_out = match self.is_made() {
            true => !looked_at.is_empty(),
            false => !is_null_in_rows && looked_at.iter().any(|path| path == ".op" || meet(path, ".after")),
        };
        let reads = key.reads();
        let reads_row = |row: &str| reads.iter().any(|path| meet(path, row));
        // Who looks at the operation, or at both rows, chooses the one that there is.
        let chooses = !self.is_made() && (reads_row(".op") || reads_row(".before") && reads_row(".after"));
        if lacks_row && is_left_out || chooses || self.may_be_filtered(&reads) {
            return None;
        }
        let help = match lacks_row && !is_null_in_rows {
            true => {
                "a row that was deleted has no `.after`: leave such changes out by `ops`, or take what its record has, such as `%key.id`"
            }
            false => REMEDY,
        };
        let message = "this key may be null, and the stream fails for an event whose key is null";
        Some(text.spot.warning(message).help(help))
    }

    /// A warning for each column of a row's key that may be null, where `code` makes the row.
    pub fn nulls_of_row(&self, code: &str, columns: &[Text], functions: &FunctionSet) -> Vec<Diagnostic> {
        // A row that was deleted is also known by what it was, and by its record's key.
        let is_known = !(self.is_made() && self.around.ops.contains(&Op::Delete));
        let Some(row) = self.of_rows(code, functions).filter(|_| is_known) else { return Vec::new() };
        let whole = |column: &Text| format!("{}.{}", code.trim_end_matches('.'), column.value);
        let reads = if [".", ".after"].contains(&code) { columns.iter().map(whole).collect() } else { row.reads() };
        let chooses = reads.iter().any(|path| meet(path, ".op") || meet(path, ".before")) && !self.is_made();
        if chooses && code.trim() != "." || self.may_be_filtered(&reads) {
            return Vec::new();
        }
        let nullable = columns.iter().filter(|column| row.may_answer_null_in(&column.value));
        let warning = |column: &Text| {
            let message = format!("`{}` may be null, and the sink refuses an event whose key is null", column.shown);
            column.spot.warning(message).help(REMEDY)
        };
        nullable.map(warning).collect()
    }

    /// A program on those events alone that have a row after their change.
    fn of_rows(&self, code: &str, functions: &FunctionSet) -> Option<Program> {
        let shape = self.shape?.clone().having(&Path::parse(".after")?);
        Program::compile_with(code, &shape, functions).ok().map(|(program, _)| program)
    }

    /// Whether steps have made something else of events, in which it is not seen what comes of one without a row.
    fn is_made(&self) -> bool {
        let makes =
            |step: &Step| matches!(step.plan, StepPlan::Transform(_) | StepPlan::Call(_) | StepPlan::Split { .. });
        self.steps.iter().any(makes)
    }

    /// What is looked at to leave events out.
    fn looked_at(&self) -> Vec<String> {
        let filters = self.steps.iter().filter_map(|step| match &step.plan {
            StepPlan::Filter(program) => Some(program),
            StepPlan::Transform(program) if program.text().contains("abort") => Some(program),
            StepPlan::Enrich(enrich) if enrich.missing != Missing::Keep => Some(&enrich.key),
            StepPlan::Lookup(lookup) if lookup.missing != Missing::Keep => Some(&lookup.key),
            _ => None,
        });
        filters.chain(self.when).flat_map(Program::reads).collect()
    }

    /// Whether events may have ended before the sink because of what lies at these paths, or of what that was made of.
    fn may_be_filtered(&self, paths: &[String]) -> bool {
        // What another stream let pass is not known here.
        if !self.around.from.iter().all(|input| matches!(input.origin, Origin::Table { .. })) {
            return true;
        }
        let made = self.steps.iter().filter(|step| step.plan.changes());
        let made_of: Vec<String> = made.flat_map(|step| step.plan.programs()).flat_map(Program::reads).collect();
        self.looked_at().iter().any(|path| paths.iter().chain(&made_of).any(|other| meet(path, other)))
    }
}

/// What to do about a key that may be null.
const REMEDY: &str = "let a `filter` before it, or `when`, leave such events out, or choose a key that is never null";

/// Whether one path lies in the other.
fn meet(one: &str, other: &str) -> bool {
    let lies_in = |inner: &str, outer: &str| {
        let outer = outer.trim_end_matches('.');
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    lies_in(one, other) || lies_in(other, one)
}
