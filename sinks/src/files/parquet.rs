//! Events as a Parquet file: a column for each field of the events, beside those of the sink's own.
//!
//! The type of a column is what all of its values in this file are: boolean, INT64, DOUBLE or a string. Where they differ, are lists or
//! objects, or are numbers that a double would change, it is a string with the JSON of each. Whoever reads several files together may
//! have to join such types.
//!
//! Reference: Apache Parquet format, "Logical Types" (STRING, TIMESTAMP).

use std::collections::BTreeMap;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::Type;
use serde_json::value::RawValue;
use tributary_processor::sink::OutEvent;

use super::Unfit;

/// Columns of the sink's own: id, source, operation, sequence, and time of the commit.
const OWN: [&str; 5] = ["_id", "_source", "_op", "_seq", "_time"];
/// The column of events that are no objects.
const WHOLE: &str = "_data";

/// Fields of an event, as JSON.
type Fields = BTreeMap<String, Box<RawValue>>;

/// The values of a column, one for each event; none is null.
enum Values {
    Boolean(Vec<Option<bool>>),
    Integer(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Text(Vec<Option<String>>),
    /// Microseconds since the Unix epoch.
    Time(Vec<Option<i64>>),
}

/// A file with events, of which there is at least one.
pub(super) fn render(events: &[OutEvent]) -> Result<Vec<u8>, Unfit> {
    let rows: Vec<Fields> = events
        .iter()
        .enumerate()
        .map(|(n, e)| fields(e).map_err(|why| Unfit::Event(n, why)))
        .collect::<Result<_, _>>()?;
    let sequences = events.iter().enumerate().map(|(n, event)| {
        i64::try_from(event.sequence)
            .map(Some)
            .map_err(|_| Unfit::Event(n, format!("its sequence {} is beyond 63 bits", event.sequence)))
    });
    let mut columns = vec![
        ("_id".to_owned(), Values::Text(events.iter().map(|e| Some(e.id.clone())).collect())),
        ("_source".to_owned(), Values::Text(events.iter().map(|e| Some(e.source.to_string())).collect())),
        ("_op".to_owned(), Values::Text(events.iter().map(|e| Some(e.op.letter().to_string())).collect())),
        ("_seq".to_owned(), Values::Integer(sequences.collect::<Result<_, _>>()?)),
        ("_time".to_owned(), Values::Time(events.iter().map(|e| e.committed_us).collect())),
    ];
    let mut names: Vec<&String> = rows.iter().flat_map(Fields::keys).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let values: Vec<Option<&str>> = rows.iter().map(|row| row.get(name).map(|value| value.get())).collect();
        columns.push((name.clone(), values_of(&values)));
    }
    write(columns).map_err(|e| Unfit::File(format!("no Parquet file can be made of the events: {e}")))
}

/// The fields of an event.
fn fields(event: &OutEvent) -> Result<Fields, String> {
    let Some(content) = &event.content else { return Ok(Fields::new()) };
    let whole: Box<RawValue> = serde_json::from_slice(content).map_err(|e| format!("the event is no JSON: {e}"))?;
    if !whole.get().starts_with('{') {
        return Ok(Fields::from([(WHOLE.to_owned(), whole)]));
    }
    let fields: Fields = serde_json::from_str(whole.get()).map_err(|e| format!("the event is no JSON object: {e}"))?;
    match fields.keys().find(|name| OWN.contains(&name.as_str()) || *name == WHOLE) {
        Some(name) => Err(format!("it has a field {name:?}, which is a column of the sink's own; rename it in a step")),
        None => Ok(fields),
    }
}

/// Values of the type that all of them are.
fn values_of(json: &[Option<&str>]) -> Values {
    let json: Vec<Option<&str>> = json.iter().map(|value| value.filter(|text| *text != "null")).collect();
    fn all<T>(json: &[Option<&str>], read: impl Fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
        json.iter().map(|value| value.map_or(Some(None), |text| read(text).map(Some))).collect()
    }
    // Before the others, so that a column without any value is one of strings.
    if let Some(texts) = all(&json, |text| serde_json::from_str::<String>(text).ok()) {
        return Values::Text(texts);
    }
    if let Some(booleans) = all(&json, |text| text.parse().ok()) {
        return Values::Boolean(booleans);
    }
    if let Some(integers) = all(&json, |text| text.parse().ok()) {
        return Values::Integer(integers);
    }
    if let Some(doubles) = all(&json, double) {
        return Values::Double(doubles);
    }
    Values::Text(json.into_iter().map(|value| value.map(str::to_owned)).collect())
}

/// A number that is a double to its last digit: 15 digits always are, 16 or 17 where it was printed from one.
fn double(text: &str) -> Option<f64> {
    if !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let (digits, _) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let significant = digits.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    // A number that is not zero must not have become zero.
    let vanished = number == 0.0 && significant > 0;
    let printed = serde_json::Value::from(number).to_string();
    ((significant <= 15 && !vanished) || printed == text).then_some(number)
}

fn write(columns: Vec<(String, Values)>) -> Result<Vec<u8>, ParquetError> {
    let fields =
        columns.iter().map(|(name, values)| field(name, values).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("events").with_fields(fields).build()?);
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, properties)?;
    let mut group = writer.next_row_group()?;
    for (_, values) in columns {
        match values {
            Values::Boolean(values) => column::<BoolType>(&mut group, values)?,
            Values::Integer(values) | Values::Time(values) => column::<Int64Type>(&mut group, values)?,
            Values::Double(values) => column::<DoubleType>(&mut group, values)?,
            Values::Text(values) => {
                let bytes = values.into_iter().map(|text| text.map(|text| ByteArray::from(text.into_bytes())));
                column::<ByteArrayType>(&mut group, bytes.collect())?;
            }
        }
    }
    group.close()?;
    writer.close()?;
    Ok(file)
}

fn field(name: &str, values: &Values) -> Result<Type, ParquetError> {
    let (physical, logical) = match values {
        Values::Boolean(_) => (Physical::BOOLEAN, None),
        Values::Integer(_) => (Physical::INT64, None),
        Values::Double(_) => (Physical::DOUBLE, None),
        Values::Text(_) => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Values::Time(_) => {
            let time = LogicalType::timestamp(true, TimeUnit::MICROS);
            (Physical::INT64, Some(time))
        }
    };
    let builder = Type::primitive_type_builder(name, physical);
    builder.with_repetition(Repetition::OPTIONAL).with_logical_type(logical).build()
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, &mut Vec<u8>>,
    values: Vec<Option<T::T>>,
) -> Result<(), ParquetError> {
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = values.into_iter().flatten().collect();
    let missing = || ParquetError::General("the schema has fewer columns than there are".into());
    let mut column = group.next_column()?.ok_or_else(missing)?;
    column.typed::<T>().write_batch(&values, Some(&levels), None)?;
    column.close()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_numbers_that_they_do_not_change() {
        for text in
            ["0", "-1.5", "0.1", "123456789012345", "1e300", "0.0000000001234", "5e-324", "0.30000000000000004", "0e9"]
        {
            assert_eq!(double(text), Some(text.parse().expect(text)), "{text}");
        }
        for text in [
            "0.12345678901234567890",
            "12345678901234567890",
            "1e400",
            "1e-400",
            "true",
            "\"1\"",
            "[1]",
            "9007199254740993",
        ] {
            assert_eq!(double(text), None, "{text}");
        }
    }

    #[test]
    fn a_column_is_what_all_of_its_values_are() {
        let kind = |values: &[Option<&str>]| match values_of(values) {
            Values::Boolean(_) => "boolean".to_owned(),
            Values::Integer(_) => "integer".to_owned(),
            Values::Double(_) => "double".to_owned(),
            Values::Time(_) => "time".to_owned(),
            Values::Text(texts) => format!("{texts:?}"),
        };
        assert_eq!(kind(&[Some("true"), None, Some("null")]), "boolean");
        assert_eq!(kind(&[Some("1"), Some("-9223372036854775808")]), "integer");
        assert_eq!(kind(&[Some("1"), Some("0.5")]), "double");
        assert_eq!(kind(&[Some("1"), Some("9223372036854775808")]), r#"[Some("1"), Some("9223372036854775808")]"#);
        assert_eq!(kind(&[Some("\"a\""), None]), r#"[Some("a"), None]"#);
        assert_eq!(kind(&[Some("\"a\""), Some("1")]), r#"[Some("\"a\""), Some("1")]"#);
        assert_eq!(kind(&[None, Some("null")]), "[None, None]");
    }
}
