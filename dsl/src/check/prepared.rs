//! Sources that publish transactions when they are prepared, where documents are built of the graph.
//!
//! The graph reads what has committed. When the changes of a prepared transaction arrive, it still has the rows as they were;
//! documents that are built then have them too, and nothing arrives when the transaction commits. They would stay stale.

use tributary_event::TableName;

use super::Checker;
use crate::definition::{IndexText, listed_tables};
use crate::query::Resolved;

impl Checker<'_> {
    /// Refuses such a source if rows of its tables are vertices in the documents of an index.
    pub(super) fn prepared(&mut self, index: &IndexText, resolved: &Resolved) {
        let definition = self.definition;
        let embeds = |name: &str| resolved.root_type == name || resolved.edges.iter().any(|e| e.child_type == name);
        for (source, spot) in &definition.at_prepare {
            let Some(plan) = definition.sources.iter().find(|plan| plan.name == *source) else { continue };
            let is_read = |table: &&TableName| {
                self.graph.vertices.iter().any(|rule| rule.table == **table && embeds(&rule.type_name.value))
            };
            let tables: Vec<&TableName> = plan.tables().iter().filter(is_read).collect();
            if tables.is_empty() {
                continue;
            }
            let message = format!(
                "the index `{}` is built when rows of {} change, and `at-prepare` tells of that before the graph shows it",
                index.name,
                listed_tables(tables)
            );
            let help = format!(
                "its documents would stay as they were before the transaction. Remove the line (`at-commit` is the default), or\n\
                 capture these tables of `{source}` in another pipeline, whose documents do not show them"
            );
            self.found.push(spot.error(message).help(help));
        }
    }
}
