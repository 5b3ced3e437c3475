//! Tables of the stream and their rows: relation messages → schemas, tuples → values. Pure.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::debezium::{DecimalMode, encode_value};
use tributary_event::{Column, Row, TableName, TableSchema, Value};

use crate::error::ConnectorError;
use crate::postgres::stream::pgoutput::{Cell, Relation, Tuple};
use crate::postgres::values::binary::Form;
use crate::postgres::values::texts::Texts;
use crate::postgres::values::value::Codec;

/// How the values of a column are read.
#[derive(Debug)]
pub(in crate::postgres) struct Decoder {
    /// What becomes of them.
    pub codec: Codec,
    /// In which form they arrive if the stream is one of binary values, and can be read.
    pub form: Option<Form>,
}

/// A table as the log describes it at this point, ready to read its rows.
#[derive(Debug)]
pub struct Relayed {
    /// Its schema.
    pub schema: Arc<TableSchema>,
    decoders: Vec<Decoder>,
    /// The relation message, to recognise that it came again.
    pub(in crate::postgres) message: Bytes,
    /// Whether the pipeline asked for the table.
    pub(in crate::postgres) wanted: bool,
    /// How its texts are read.
    pub(in crate::postgres) texts: Arc<Texts>,
    /// The captured table that it was before it got a name that nobody asked for.
    pub(in crate::postgres) renamed_from: Option<TableName>,
    /// The transaction that `events` counts for.
    pub(in crate::postgres) counted: u64,
    /// Events of the table in that transaction.
    pub(in crate::postgres) events: u64,
}

impl Relayed {
    /// A table with the decoders and type names of its columns, in order, under the name that its events have.
    pub(in crate::postgres) fn new(
        relation: &Relation<'_>,
        message: Bytes,
        (schema, name): &(String, String),
        primary_key: &[String],
        decoders: Vec<Decoder>,
        type_names: Vec<String>,
        wanted: bool,
    ) -> Self {
        let key = key(relation, primary_key);
        let names = relation.columns().map(|c| c.name);
        let columns =
            names.zip(type_names).map(|(name, t)| Column { name: name.into(), type_name: t.into() }).collect();
        let schema = Arc::new(TableSchema::new(schema.as_str(), name.as_str(), columns, key));
        let texts = Arc::default();
        Self { schema, decoders, message, wanted, texts, renamed_from: None, counted: 0, events: 0 }
    }

    /// What becomes of the values of each column.
    pub(in crate::postgres) fn codecs(&self) -> impl Iterator<Item = &Codec> {
        self.decoders.iter().map(|decoder| &decoder.codec)
    }

    /// The row of a tuple that lies within `owner`.
    pub(in crate::postgres) fn row(&self, owner: &Bytes, tuple: &Tuple<'_>) -> Result<Row, ConnectorError> {
        if tuple.len() != self.decoders.len() {
            return Err(ConnectorError::protocol(
                format!("table {}", self.schema.qualified_name()),
                format!("a row has {} columns, the table {}", tuple.len(), self.decoders.len()),
            ));
        }
        let mut values = Vec::with_capacity(self.decoders.len());
        for (cell, Decoder { codec, form }) in tuple.cells().zip(&self.decoders) {
            let value = match cell {
                Cell::Null => Some(Value::Null),
                Cell::Unchanged => Some(Value::Unchanged),
                Cell::Text(text) if self.texts.is_foreign(text) => None,
                Cell::Text(text) => codec.decode(owner, text),
                Cell::Binary(raw) => form.as_ref().and_then(|form| form.decode(codec, owner, raw)),
            };
            match value {
                Some(value) => values.push(value),
                None => values.push(self.odd_text(values.len(), &cell, tuple)?),
            }
        }
        Ok(Row { table: self.schema.clone(), values })
    }

    /// Fills what an update left out from the image before, where that is whole. What is stored out of line is not null, so
    /// a null there means that the image lacks it: a partition may log less than its root says.
    pub(in crate::postgres) fn recover(after: &mut Row, before: &Row) {
        for (value, old) in after.values.iter_mut().zip(&before.values) {
            if *value == Value::Unchanged && !matches!(old, Value::Unchanged | Value::Null) {
                value.clone_from(old);
            }
        }
    }

    /// Whether an update changed the key, by the texts of its columns.
    pub(in crate::postgres) fn key_changed(&self, old: &Tuple<'_>, new: &Tuple<'_>) -> bool {
        self.schema.key.iter().any(|&i| match (old.cell(i), new.cell(i)) {
            (_, Some(Cell::Unchanged)) => false,
            (old, new) => old != new,
        })
    }

    /// The number of the next event of the table in the transaction `transaction`.
    pub(in crate::postgres) fn next_event(&mut self, transaction: u64) -> u64 {
        if self.counted != transaction {
            (self.counted, self.events) = (transaction, 0);
        }
        self.events += 1;
        self.events
    }

    /// The value of a text in another encoding, or of bytes that are no text.
    fn odd_text(&self, column: usize, cell: &Cell<'_>, tuple: &Tuple<'_>) -> Result<Value, ConnectorError> {
        let mut bad = None;
        let value = self.decoders.get(column).and_then(|Decoder { codec, form }| match cell {
            Cell::Text(raw) => self.texts.decode(codec, raw, &mut bad),
            Cell::Binary(raw) => self.texts.decode_binary(form.as_ref()?, codec, raw, &mut bad),
            Cell::Null | Cell::Unchanged => None,
        });
        match (value, bad) {
            (_, Some(bad)) => Err(self.texts.refuse(&self.schema, column, &self.key_of(tuple), &bad, true)),
            (Some(value), None) => Ok(value),
            (None, None) => {
                let name = self.schema.columns.get(column).map_or("?", |c| &*c.name);
                Err(ConnectorError::protocol(
                    format!("table {}, column {name}", self.schema.qualified_name()),
                    format!("a value is none of its type ({:?})", self.decoders.get(column)),
                ))
            }
        }
    }

    /// The key of a row, as texts that a statement may have.
    fn key_of(&self, tuple: &Tuple<'_>) -> Vec<(usize, Option<Vec<u8>>)> {
        let text = |i: usize| match (tuple.cell(i)?, self.decoders.get(i)?) {
            (Cell::Text(raw), _) | (Cell::Binary(raw), Decoder { form: Some(Form::Text), .. }) => Some(raw.to_vec()),
            (Cell::Binary(raw), Decoder { codec, form }) => {
                let mut json = Vec::new();
                let value = form.as_ref()?.decode_alone(codec, raw)?;
                encode_value(&mut json, &value, DecimalMode::String);
                Some(
                    json.strip_prefix(b"\"")
                        .and_then(|json| json.strip_suffix(b"\""))
                        .map_or(json.clone(), <[u8]>::to_vec),
                )
            }
            (Cell::Null | Cell::Unchanged, _) => None,
        };
        self.schema.key.iter().map(|&i| (i, text(i))).collect()
    }
}

/// The relation's schema; the protocol leaves `pg_catalog` out.
pub(in crate::postgres) fn schema_name<'a>(relation: &Relation<'a>) -> &'a str {
    if relation.schema.is_empty() { "pg_catalog" } else { relation.schema }
}

/// The names that key columns had when the table was as the log describes it, by the columns that the table has now: if
/// only names differ, and no name has another place, a column is known by its place.
pub(in crate::postgres) fn earlier_names(relation: &Relation<'_>, now: &[(&str, u32)], key: &[String]) -> Vec<String> {
    let then: Vec<_> = relation.columns().map(|c| (c.name, c.type_oid)).collect();
    let moved = |(name, _): &(&str, u32)| {
        let place = now.iter().position(|(n, _)| n == name);
        place.is_some() && place != then.iter().position(|(n, _)| n == name)
    };
    let retyped = then.iter().zip(now).any(|((_, then), (_, now))| then != now);
    if then.len() != now.len() || retyped || then.iter().any(moved) {
        return key.to_vec();
    }
    let earlier = |name: &String| {
        let known = then.iter().any(|(n, _)| n == name);
        let place = now.iter().position(|(n, _)| n == name).filter(|_| !known);
        place.map_or_else(|| name.clone(), |place| then[place].0.to_owned())
    };
    key.iter().map(earlier).collect()
}

/// The key's columns: the primary key in its own order where every change carries it, else the replica identity.
fn key(relation: &Relation<'_>, primary_key: &[String]) -> Vec<usize> {
    let columns: Vec<_> = relation.columns().collect();
    let full = relation.identity == b'f';
    // Without an identity the server lets a published table be inserted into alone, and inserts are whole.
    let whole = full || relation.identity == b'n';
    let carried = |name: &String| columns.iter().position(|c| c.name == name).filter(|&i| whole || columns[i].identity);
    let primary: Option<Vec<usize>> = primary_key.iter().map(carried).collect();
    match primary {
        Some(primary) if !primary.is_empty() => primary,
        _ if full => Vec::new(),
        _ => (0..columns.len()).filter(|&i| columns[i].identity).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::stream::pgoutput::{Message, decode};

    fn relation_message(identity: u8, columns: &[(&str, bool)]) -> Vec<u8> {
        let mut message = b"R\0\0\0\x09public\0movie\0".to_vec();
        message.push(identity);
        message.extend((columns.len() as u16).to_be_bytes());
        for (name, flagged) in columns {
            message.push(u8::from(*flagged));
            message.extend(name.as_bytes());
            message.push(0);
            message.extend(23u32.to_be_bytes());
            message.extend((-1i32).to_be_bytes());
        }
        message
    }

    fn key_of(identity: u8, columns: &[(&str, bool)], primary: &[&str]) -> Vec<usize> {
        let message = relation_message(identity, columns);
        let Ok(Message::Relation(relation)) = decode(&message) else { panic!("a relation") };
        key(&relation, &primary.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_row_with_what_is_no_text_is_named_by_its_key_of_bytes() {
        let message = relation_message(b'd', &[("id", true), ("title", false)]);
        let Ok(Message::Relation(relation)) = decode(&message) else { panic!("a relation") };
        let bytea = Codec::Bytea(crate::settings::BinaryHandling::Base64);
        let decoders = vec![
            Decoder { codec: bytea, form: Some(Form::Bytea) },
            Decoder { codec: Codec::Text, form: Some(Form::Text) },
        ];
        let (name, types) = (("public".to_owned(), "movie".to_owned()), vec!["bytea".to_owned(), "text".to_owned()]);
        let table = Relayed::new(&relation, Bytes::new(), &name, &["id".to_owned()], decoders, types, true);
        let insert = Bytes::from_static(b"I\0\0\0\x09N\0\x02b\0\0\0\x02\x01\xffb\0\0\0\x01\xff");
        let Ok(Message::Insert { new, .. }) = decode(&insert) else { panic!("a row") };
        let error = table.row(&insert, &new).expect_err("no text").to_string();
        assert!(error.contains("column title") && error.contains("\"id\""), "{error}");
    }

    #[test]
    fn a_key_that_was_renamed_since_is_known_by_its_place() {
        let message = relation_message(b'f', &[("old_id", true), ("title", true)]);
        let Ok(Message::Relation(relation)) = decode(&message) else { panic!("a relation") };
        let key = ["id".to_owned()];
        assert_eq!(earlier_names(&relation, &[("id", 23), ("title", 23)], &key), ["old_id"]);
        // More has changed than names.
        assert_eq!(earlier_names(&relation, &[("id", 23), ("title", 25)], &key), ["id"]);
        assert_eq!(earlier_names(&relation, &[("id", 23), ("title", 23), ("x", 23)], &key), ["id"]);
        assert_eq!(earlier_names(&relation, &[("title", 23), ("id", 23)], &key), ["id"]);
    }

    #[test]
    fn the_key_is_the_primary_key_in_its_order_if_every_change_carries_it() {
        assert_eq!(key_of(b'd', &[("a", true), ("x", false), ("b", true)], &["b", "a"]), [2, 0]);
        assert_eq!(key_of(b'f', &[("a", true), ("b", true)], &["b"]), [1]);
        assert_eq!(key_of(b'n', &[("a", false), ("b", false)], &["b"]), [1]);
        // Another unique index is the identity: a delete does not tell the primary key.
        assert_eq!(key_of(b'i', &[("id", false), ("code", true)], &["id"]), [1]);
        // The primary key was dropped since, or is not known.
        assert_eq!(key_of(b'd', &[("a", true), ("b", false)], &[]), [0]);
        assert_eq!(key_of(b'f', &[("a", true), ("b", true)], &[]), [] as [usize; 0]);
    }
}
