//! A change event → the vertices it touches. Pure.

use std::collections::BTreeMap;

use tributary_dsl::plan::{IdValue, VertexRule};
use tributary_event::{ChangeEvent, Op, Row, TableName, Value};

use crate::graph::Vertex;

/// What a change event means for the graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// These vertices changed: sorted, no duplicates. Empty: no rule names the table, or the ids are null.
    pub vertices: Vec<Vertex>,
    /// The table was emptied: any vertex of these types may be gone. Sorted, no duplicates.
    pub types: Vec<String>,
    /// Vertices of these types changed of which nobody knows which: the event lacks a column that a rule names, for it was
    /// captured when the table had no such column, is of more rows than its key names, or has no value of it. Each with that column; sorted, no duplicates.
    pub unknown: Vec<(String, String)>,
}

/// The vertices of the row before and the row after, so that an edge that moved touches both of its ends.
pub fn touched(event: &ChangeEvent, rules: &BTreeMap<TableName, Vec<VertexRule>>) -> Touched {
    let rules = rules.get(&event.table.table_name()).map_or(&[][..], Vec::as_slice);
    let mut touched = Touched::default();
    if event.op == Op::Truncate {
        touched.types = rules.iter().map(|r| r.type_name.clone()).collect();
    }
    for row in [&event.before, &event.after].into_iter().flatten() {
        for rule in rules {
            let lacks = |column: &&str| matches!(row.get(column), None | Some(Value::Partial));
            match rule.id.columns().find(lacks) {
                Some(lacking) => touched.unknown.push((rule.type_name.clone(), lacking.to_owned())),
                None => touched.vertices.extend(vertex(rule, row)),
            }
        }
    }
    touched.vertices.sort_unstable();
    touched.vertices.dedup();
    touched.types.sort_unstable();
    touched.types.dedup();
    touched.unknown.sort_unstable();
    touched.unknown.dedup();
    touched
}

fn vertex(rule: &VertexRule, row: &Row) -> Option<Vertex> {
    let id = rule.id.render(|column| id_value(row.get(column)?))?;
    Some(Vertex::new(rule.type_name.clone(), id))
}

/// A column's value as a part of an id; null and unchanged values give none.
pub fn id_value(value: &Value) -> Option<IdValue> {
    match value {
        Value::Int(i) => Some(IdValue::Number(i.to_string())),
        Value::Text(text) => Some(IdValue::Text(text.to_string())),
        Value::Bool(b) => Some(IdValue::Text(b.to_string())),
        // As events have it, where decimals travel as text.
        Value::UInt(number) => Some(IdValue::Number(number.to_string())),
        Value::Decimal { text, .. } => Some(IdValue::Text(text.to_string())),
        Value::Float64(f) => Some(IdValue::Number(f.to_string())),
        Value::Float32(f) => Some(IdValue::Number(f.to_string())),
        Value::Null | Value::Unchanged | Value::Partial | Value::Bytes(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A change for people: `public.movie u {"id":5}`.
pub fn label(event: &ChangeEvent) -> String {
    let mut key = Vec::new();
    if let Some(row) = event.keyed_row() {
        tributary_event::debezium::encode_key(&mut key, row, tributary_event::debezium::DecimalMode::String);
    }
    let key = shortened(&String::from_utf8_lossy(&key));
    format!("{} {} {key}", event.table.qualified_name(), event.op.letter()).trim_end().to_owned()
}

/// A key can be as large as any text, and its label travels with every request that it causes.
fn shortened(key: &str) -> String {
    const MOST: usize = 200;
    match key.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_dsl::plan::{IdTemplate, Place};
    use tributary_event::debezium::Decoder;

    fn rules() -> BTreeMap<TableName, Vec<VertexRule>> {
        let rule = |type_name: &str, id: &str| VertexRule {
            type_name: type_name.into(),
            id: IdTemplate::parse(id).expect("a template"),
            place: Place::default(),
        };
        BTreeMap::from([("public.screening".into(), vec![rule("Screening", "{id}"), rule("Movie", "{movie_id}")])])
    }

    fn event(key: &str, value: serde_json::Value) -> ChangeEvent {
        let value = value.to_string();
        Decoder::new().decode(Some(key.as_bytes()), Some(value.as_bytes())).expect("decodes").expect("an event")
    }

    #[test]
    fn an_edge_that_moved_touches_both_ends_and_a_null_end_touches_nothing() {
        let source = serde_json::json!({"connector": "postgresql", "schema": "public", "table": "screening"});
        let moved = event(
            r#"{"id":1}"#,
            serde_json::json!({"before": {"id": 1, "movie_id": 7}, "after": {"id": 1, "movie_id": 8}, "source": source, "op": "u"}),
        );
        let expected = [("Movie", "7"), ("Movie", "8"), ("Screening", "1")].map(|(t, id)| Vertex::new(t, id));
        let touches = |vertices: &[Vertex]| Touched { vertices: vertices.to_vec(), ..Touched::default() };
        assert_eq!(touched(&moved, &rules()), touches(&expected));
        assert_eq!(label(&moved), r#"public.screening u {"id":1}"#);
        let deleted = event(
            r#"{"id":1}"#,
            serde_json::json!({"before": {"id": 1, "movie_id": null}, "after": null, "source": source, "op": "d"}),
        );
        assert_eq!(touched(&deleted, &rules()), touches(&[Vertex::new("Screening", "1")]));
    }

    #[test]
    fn a_column_that_an_event_lacks_is_not_a_null() {
        let source = serde_json::json!({"connector": "postgresql", "schema": "public", "table": "screening"});
        let earlier = event(
            r#"{"id":1}"#,
            serde_json::json!({"before": null, "after": {"id": 1, "film_id": 7}, "source": source, "op": "c"}),
        );
        let touched = touched(&earlier, &rules());
        assert_eq!(touched.vertices, [Vertex::new("Screening", "1")]);
        assert_eq!(touched.unknown, [("Movie".to_owned(), "movie_id".to_owned())]);
    }

    #[test]
    fn what_a_delete_of_more_than_a_row_does_not_name_is_not_known() {
        let source = serde_json::json!({"connector": "cassandra", "schema": "public", "table": "screening"});
        let of_movie = event(
            r#"{"movie_id":7}"#,
            serde_json::json!({"before": {"movie_id": 7}, "after": null, "source": source, "op": "d", "scope": "partition"}),
        );
        let touched = touched(&of_movie, &rules());
        assert_eq!(touched.vertices, [Vertex::new("Movie", "7")]);
        assert_eq!(touched.unknown, [("Screening".to_owned(), "id".to_owned())]);
    }

    #[test]
    fn a_truncate_touches_types() {
        let source = serde_json::json!({"connector": "postgresql", "schema": "public", "table": "screening"});
        let value = serde_json::json!({"before": null, "after": null, "source": source, "op": "t"}).to_string();
        let event = Decoder::new().decode(None, Some(value.as_bytes())).expect("decodes").expect("an event");
        let types = vec!["Movie".into(), "Screening".into()];
        assert_eq!(touched(&event, &rules()), Touched { types, ..Touched::default() });
    }
}
