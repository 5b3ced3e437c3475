//! Names of tables, wherever a pipeline has them.

use tributary_event::{TableName, TableNameError};

use crate::diagnostic::Spot;
use crate::suggest::did_you_mean;
use crate::yaml::{Key, Node, Reader};

/// A table, as it is named at a place.
#[derive(Debug, Clone)]
pub(crate) struct TableText {
    pub name: TableName,
    /// As written.
    pub shown: String,
    pub spot: Spot,
}

/// The table that a value names; `None`: it names none, which is said.
pub(super) fn value(r: &mut Reader, node: &Node, path: &str) -> Option<TableText> {
    let text = r.text(node, path)?;
    read(r, &text.value, text.shown, text.spot)
}

/// The same of a key.
pub(super) fn key(r: &mut Reader, key: &Key) -> Option<TableText> {
    let spot = r.spot(key.place);
    read(r, &key.name, key.name.clone(), spot)
}

fn read(r: &mut Reader, text: &str, shown: String, spot: Spot) -> Option<TableText> {
    let parsed: Result<TableName, TableNameError> = text.parse();
    match parsed {
        Ok(name) => Some(TableText { name, shown, spot }),
        Err(error) => {
            r.found.push(spot.error(format!("`{shown}` is no `schema.table`")).help(error.to_string()));
            None
        }
    }
}

/// "did you mean `schema.table`?", if a table is like it.
pub(crate) fn similar<'t>(table: &TableName, tables: impl IntoIterator<Item = &'t TableName>) -> Option<String> {
    let names: Vec<String> = tables.into_iter().map(TableName::to_string).collect();
    did_you_mean(&table.to_string(), names.iter().map(String::as_str))
}

/// The same, or else which tables there are.
pub(crate) fn suggestion<'t>(table: &TableName, tables: impl IntoIterator<Item = &'t TableName>) -> Option<String> {
    let names: Vec<String> = tables.into_iter().map(TableName::to_string).collect();
    crate::suggest::suggestion(&table.to_string(), names.iter().map(String::as_str))
}

/// `a.b`, `c.d`.
pub(crate) fn listed<'t>(tables: impl IntoIterator<Item = &'t TableName>) -> String {
    let names: Vec<String> = tables.into_iter().map(TableName::to_string).collect();
    crate::suggest::listed(names.iter().map(String::as_str))
}
