//! What is wrong with rules, as it is told.

use std::collections::BTreeSet;

use tributary_dsl::Diagnostic;
use tributary_dsl::plan::{IdTemplate, Place, VertexRule};
use tributary_event::TableName;

use super::rows::Made;

/// What is wrong with the rules for a type: of one cause, however many tables map to it.
pub struct Problem {
    /// The type.
    pub type_name: String,
    /// Where the first rule is written.
    pub(super) place: Place,
    /// What is wrong.
    pub(super) kind: Kind,
    /// What was asked or made, and what came.
    pub(super) seen: Vec<String>,
    /// What fits in the place of each rule, if that is known.
    pub rules: Vec<(TableName, Option<IdTemplate>)>,
    /// Other fields of the type that can be its key.
    pub(super) keys: Vec<String>,
}

/// What is wrong.
pub(super) enum Kind {
    /// The ids are others than those of the graph.
    Others,
    /// The graph knows too few of them.
    Few {
        known: usize,
        asked: usize,
        /// So many percent may be hidden.
        hidden: u8,
        template: IdTemplate,
    },
}

/// Adds a problem, to those of its cause if there are such.
pub(super) fn add(problems: &mut Vec<Problem>, problem: Problem) {
    let same = |known: &&mut Problem| {
        known.type_name == problem.type_name && matches!((&known.kind, &problem.kind), (Kind::Others, Kind::Others))
    };
    match problems.iter_mut().find(same) {
        Some(known) => known.rules.extend(problem.rules),
        None => problems.push(problem),
    }
}

/// Rows of the table that lists all roots must have an id each.
pub(super) fn twice(table: &TableName, rule: &VertexRule, rows: &[Made]) -> Option<Problem> {
    let mut seen = BTreeSet::new();
    let id = &rows.iter().find(|made| !seen.insert(&made.id))?.id;
    let made = format!(
        "made: {id:?} of several rows, by the template \"{}\"; the table is to list every {} once",
        rule.id, rule.type_name
    );
    Some(Problem {
        type_name: rule.type_name.clone(),
        place: rule.place.clone(),
        kind: Kind::Others,
        seen: vec![made],
        rules: vec![(table.clone(), None)],
        keys: Vec::new(),
    })
}

impl Problem {
    /// As it is told, at its place.
    pub fn diagnostic(&self) -> Diagnostic {
        let (message, help) = match &self.kind {
            Kind::Others => self.others(),
            Kind::Few { known, asked, hidden, template } => self.few((*known, *asked), *hidden, template),
        };
        let found = self.place.error(message);
        let found = self.seen.iter().fold(found, Diagnostic::seen);
        if help.is_empty() { found } else { found.help(help) }
    }

    fn others(&self) -> (String, String) {
        let Self { type_name, rules, keys, .. } = self;
        let (rule, make) = if rules.len() == 1 { ("rule", "makes") } else { ("rules", "make") };
        let message = format!(
            "graph.vertices: the {rule} for {type_name} of {} {make} other ids than the graph has",
            self.tables()
        );
        let mut help = String::new();
        let fitting: Vec<String> = rules
            .iter()
            .filter_map(|(table, template)| {
                let template = template.as_ref()?;
                Some(format!("\n{table}: [{{ type: {type_name}, id: \"{template}\" }}]"))
            })
            .collect();
        if !fitting.is_empty() {
            help.push_str(&format!("write under graph.vertices:{}", fitting.concat()));
        }
        if let Some(first) = keys.first() {
            let or = if fitting.is_empty() { "" } else { "\nor " };
            let of = if keys.len() > 1 { format!("   # of {}", keys.join(", ")) } else { String::new() };
            help.push_str(&format!(
                "{or}say which field has the plain key: graph: {{ types: {{ {type_name}: {{ id: {first} }} }} }}{of}"
            ));
        }
        (message, help)
    }

    fn few(&self, (known, asked): (usize, usize), hidden: u8, template: &IdTemplate) -> (String, String) {
        let type_name = &self.type_name;
        let may = if hidden > 0 { format!(", and {hidden}% of them may be hidden") } else { String::new() };
        let message = format!(
            "graph.vertices: the graph knows {known} of {asked} ids that the rule for {type_name} makes of rows of {}{may}",
            self.tables()
        );
        let help = format!(
            "if the graph hides such rows (drafts, what was deleted softly, what `graph.headers` may not see), say how many it may:\n\
             graph: {{ types: {{ {type_name}: {{ hidden: {}% }} }} }}\n\
             if it hides none, the template \"{template}\" names another column than the key, or the ids of these rows are made in \
             another way",
            roomy(asked - known, asked)
        );
        (message, help)
    }

    fn tables(&self) -> String {
        self.rules.iter().map(|(table, _)| table.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// A share, in percent, that a few more do not exceed.
fn roomy(unknown: usize, asked: usize) -> usize {
    let percent = (unknown * 130).div_ceil(asked.max(1));
    [1, 2, 5, 10, 20, 30, 40, 50, 60, 75, 90].into_iter().find(|share| *share >= percent).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proposed_share_has_room() {
        let shares: Vec<usize> = [1, 4, 50, 100, 400, 499].map(|unknown| roomy(unknown, 500)).to_vec();
        assert_eq!(shares, [1, 2, 20, 30, 100, 100]);
    }
}
