//! Values of documents that may be made of other rows than their vertex's own: a count, an average, a name that is put together.
//!
//! A schema does not say of what a value is made. But a value whose name no column has, of all tables whose rows lead to the vertex,
//! is worth a word: where it is made of rows of another table, documents hear of their changes only by a rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tracing::info;
use tributary_connector::Carried;
use tributary_dsl::Diagnostic;
use tributary_dsl::plan::Plan;
use tributary_event::TableName;

/// The columns of tables, by name.
pub type Columns = BTreeMap<TableName, BTreeSet<String>>;

/// Takes the columns of tables: those that the log carries, and others that are known. What was known of them stays: a place of the log
/// tells of its own columns alone.
pub fn extend(known: &mut Columns, tables: &[Carried]) {
    for table in tables {
        let of_table = known.entry(table.schema.table_name()).or_default();
        let carried = table.schema.columns.iter().map(|column| column.name.to_string());
        of_table.extend(carried.chain(table.unpublished.iter().cloned()));
    }
}

/// Says what is to be said while a pipeline runs: each once, as soon as the tables are known.
#[derive(Debug, Default)]
pub struct Derived(Mutex<(Columns, BTreeSet<String>)>);

impl Derived {
    /// Tables are carried so.
    pub fn take(&self, plan: &Plan, tables: &[Carried]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, told) = &mut *known;
        extend(known, tables);
        for note in notes(plan, known) {
            let note = note.render(false);
            if !told.contains(&note) {
                info!("{note}");
                told.insert(note);
            }
        }
    }
}

/// What is to be said of values that no column seems to hold, of vertices all of whose tables are known.
pub fn notes(plan: &Plan, columns: &Columns) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    for index in &plan.indexes {
        for ((vertex, field), place) in &index.values {
            let tables: Vec<&TableName> = plan
                .graph
                .vertices
                .iter()
                .filter(|(_, rules)| rules.iter().any(|rule| rule.type_name == *vertex))
                .map(|(table, _)| table)
                .collect();
            if tables.iter().any(|table| !columns.contains_key(*table)) {
                continue;
            }
            let known: Vec<&String> = tables.iter().filter_map(|table| columns.get(*table)).flatten().collect();
            if known.is_empty() || known.iter().any(|column| is_alike(field, column)) {
                continue;
            }
            let named: Vec<String> = tables.iter().map(ToString::to_string).collect();
            let message = format!(
                "index {}: documents show `{vertex}.{field}`, and no column has such a name in the tables whose rows lead to {vertex} ({})",
                index.name,
                named.join(", ")
            );
            let help = format!(
                "if it is made of rows of another table (a count, an average), map that table to {vertex} as well, under\n\
                 graph.vertices: schema.table: [{{ type: {vertex}, id: \"{{…}}\" }}],\n\
                 and let the log keep its rows as they were (REPLICA IDENTITY FULL, binlog_row_image = FULL), for one may move to another {vertex};\n\
                 otherwise documents keep the old value when those rows change"
            );
            notes.push(place.note(message).help(help));
        }
    }
    notes
}

/// Whether a field may be a column by its name: `releasedOn` is `released_on`, and `released` as well.
fn is_alike(field: &str, column: &str) -> bool {
    let plain = |name: &str| name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let (field, column) = (plain(field), plain(column));
    let shorter = field.len().min(column.len());
    field == column || (shorter >= 3 && (field.starts_with(&column) || column.starts_with(&field)))
}

#[cfg(test)]
mod tests {
    use super::is_alike;

    #[test]
    fn names_are_compared_as_languages_write_them() {
        for (field, column) in [("releasedOn", "released_on"), ("released", "released_on"), ("imdbVotes", "imdb_votes")]
        {
            assert!(is_alike(field, column), "{field} {column}");
        }
        for (field, column) in [("averageStars", "stars"), ("screeningCount", "id"), ("no", "notes")] {
            assert!(!is_alike(field, column), "{field} {column}");
        }
    }
}
