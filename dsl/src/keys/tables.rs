//! Names of tables, wherever a pipeline has them.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tributary_event::{TableName, TableNameError};

use crate::diagnostic::Spot;
use crate::suggest::closest;
use crate::yaml::{At, Documented, Kind, MappingKey, Names, Node, Reader};

/// Two parts, bare or quoted.
const PATTERN: &str = r#"^("([^"]|"")+"|[^".\s]([^".]*[^".\s])?)\.("([^"]|"")+"|[^".\s]([^".]*[^".\s])?)$"#;

/// Keys that are tables.
pub(crate) static TABLES: Names = Names { mark: "<table>", pattern: Some(PATTERN), example: "public.movie" };

/// A table.
pub(crate) struct Table;

/// A table, as it is named at a place.
#[derive(Debug, Clone)]
pub(crate) struct TableText {
    pub name: TableName,
    /// As written.
    pub shown: String,
    pub spot: Spot,
}

impl Documented for Table {
    fn word(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("{PATTERN}|\\$\\{{") })
    }
}

impl Kind for Table {
    type Value = TableText;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<TableText> {
        let text = r.text(node, at)?;
        parse(r, &text.value, text.shown, text.spot)
    }
}

/// The table that a key names; `None`: it names none, which is said.
pub(crate) fn key(r: &mut Reader, key: &MappingKey) -> Option<TableText> {
    let spot = r.spot(key.place);
    parse(r, &key.name, key.name.clone(), spot)
}

fn parse(r: &mut Reader, text: &str, shown: String, spot: Spot) -> Option<TableText> {
    let parsed: Result<TableName, TableNameError> = text.parse();
    match parsed {
        Ok(name) => Some(TableText { name, shown, spot }),
        Err(error) => {
            r.found.push(spot.error(format!("`{shown}` is no `schema.table`")).help(error.to_string()));
            None
        }
    }
}

/// "did you mean `schema.table`?", if a table is like it: one of its schema, or its namesake of another.
pub(crate) fn similar<'t>(table: &TableName, tables: impl IntoIterator<Item = &'t TableName>) -> Option<String> {
    let (beside, others): (Vec<&TableName>, Vec<&TableName>) =
        tables.into_iter().partition(|other| other.schema == table.schema);
    let near = closest(&table.name, beside.iter().map(|other| &*other.name));
    let near = near.and_then(|name| beside.iter().find(|other| *other.name == *name));
    let found = near.or_else(|| others.iter().find(|other| other.name == table.name));
    found.map(|found| format!("did you mean `{found}`?"))
}

/// "write `schema.table`", if a table is like a name without schema.
pub(crate) fn qualified<'t>(name: &str, tables: impl IntoIterator<Item = &'t TableName>) -> Option<String> {
    let tables: Vec<&TableName> = tables.into_iter().collect();
    let near = closest(name, tables.iter().map(|table| &*table.name))?;
    tables.iter().find(|table| *table.name == *near).map(|table| format!("write `{table}`"))
}

/// The same, or else which tables there are.
pub(crate) fn suggestion<'t>(table: &TableName, tables: impl IntoIterator<Item = &'t TableName>) -> Option<String> {
    let tables: Vec<&TableName> = tables.into_iter().collect();
    similar(table, tables.iter().copied()).or_else(|| match tables.as_slice() {
        [] => None,
        [only] => Some(format!("expected `{only}`")),
        _ => Some(format!("expected one of {}", listed(tables))),
    })
}

/// `a.b`, `c.d`.
pub(crate) fn listed<'t>(tables: impl IntoIterator<Item = &'t TableName>) -> String {
    let names: Vec<String> = tables.into_iter().map(TableName::to_string).collect();
    crate::suggest::listed(names.iter().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn editors_take_what_is_a_name() {
        let validator = jsonschema::validator_for(&Table.schema()).expect("a schema");
        for text in ["a.b", "a.B c", "\"a.b\".c", "a.\"b\"\"c\"", "a", "a.", ".b", "a.b.c", "a b.c", " a.b", "a.\"b\"c"]
        {
            assert_eq!(validator.is_valid(&json!(text)), text.parse::<TableName>().is_ok(), "{text}");
        }
    }
}
