//! What becomes of every type: the table of the documentation, made of the codecs themselves.

use super::time::Precision;
use super::value::Codec;
use crate::settings::{BinaryHandling, ValueOptions};

/// A kind of column: what users write, the type's OID and modifier, and what a consumer with schemas would declare.
struct Kind {
    name: &'static str,
    oid: u32,
    modifier: i32,
    avro: &'static str,
}

/// The built-in types that are more than text.
#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { name: "boolean", oid: 16, modifier: -1, avro: "boolean" },
    Kind { name: "bit(1)", oid: 1560, modifier: 1, avro: "boolean" },
    Kind { name: "bit(n), varbit", oid: 1562, modifier: -1, avro: "bytes (Debezium `Bits`)" },
    Kind { name: "smallint", oid: 21, modifier: -1, avro: "int" },
    Kind { name: "integer", oid: 23, modifier: -1, avro: "int" },
    Kind { name: "bigint, oid", oid: 20, modifier: -1, avro: "long" },
    Kind { name: "real", oid: 700, modifier: -1, avro: "float" },
    Kind { name: "double precision", oid: 701, modifier: -1, avro: "double" },
    Kind { name: "numeric(p,s)", oid: 1700, modifier: ((12 << 16) | 2) + 4, avro: "bytes, `decimal`" },
    Kind { name: "numeric", oid: 1700, modifier: -1, avro: "record (Debezium `VariableScaleDecimal`)" },
    Kind { name: "money", oid: 790, modifier: -1, avro: "bytes, `decimal`" },
    Kind { name: "date", oid: 1082, modifier: -1, avro: "int, `date`" },
    Kind { name: "time(0…3)", oid: 1083, modifier: 3, avro: "int, `time-millis`" },
    Kind { name: "time", oid: 1083, modifier: -1, avro: "long, `time-micros`" },
    Kind { name: "timestamp(0…3)", oid: 1114, modifier: 3, avro: "long, `local-timestamp-millis`" },
    Kind { name: "timestamp", oid: 1114, modifier: -1, avro: "long, `local-timestamp-micros`" },
    Kind { name: "timestamptz", oid: 1184, modifier: -1, avro: "string (Debezium `ZonedTimestamp`)" },
    Kind { name: "timetz", oid: 1266, modifier: -1, avro: "string (Debezium `ZonedTime`)" },
    Kind { name: "interval", oid: 1186, modifier: -1, avro: "long (Debezium `MicroDuration`)" },
    Kind { name: "bytea", oid: 17, modifier: -1, avro: "bytes" },
    Kind { name: "point", oid: 600, modifier: -1, avro: "record (Debezium `Point`)" },
];

/// Types of extensions, by name.
const EXTENSIONS: &[(&str, &str)] = &[
    ("hstore", "string (Debezium `Json`)"),
    ("geometry", "record (Debezium `Geometry`)"),
    ("geography", "record (Debezium `Geography`)"),
    ("vector", "array of double"),
    ("halfvec", "array of double"),
    ("sparsevec", "record (Debezium `SparseDoubleVector`)"),
];

/// The form of a codec's values in JSON.
fn json(codec: &Codec) -> &'static str {
    match codec {
        Codec::Bool | Codec::Bit => "boolean",
        Codec::Int => "number",
        Codec::Float4 | Codec::Float8 => "number; `\"NaN\"`, `\"Infinity\"`, `\"-Infinity\"`",
        Codec::Numeric(Some(_)) | Codec::Money => "base64 of the unscaled value; text or number with `decimals`",
        Codec::Numeric(None) => "`{\"scale\", \"value\"}`; text or number with `decimals`",
        Codec::Date => "days since 1970-01-01",
        Codec::Time(Precision::Millis) => "milliseconds since midnight",
        Codec::Time(Precision::Micros) => "microseconds since midnight",
        Codec::Time(Precision::Nanos) => "nanoseconds since midnight",
        Codec::Timestamp(Precision::Millis) => "milliseconds since 1970-01-01",
        Codec::Timestamp(Precision::Micros) => "microseconds since 1970-01-01",
        Codec::Timestamp(Precision::Nanos) => "nanoseconds since 1970-01-01",
        Codec::TimestampTz(_)
        | Codec::TimeTz
        | Codec::IsoDate
        | Codec::Time(Precision::Iso)
        | Codec::Timestamp(Precision::Iso)
        | Codec::Interval(true) => "ISO 8601 text in UTC",
        Codec::Interval(false) => "microseconds, a month being 365.25 / 12 days",
        Codec::Bits => "base64, the last bit being the lowest of the first byte",
        Codec::Bytea(BinaryHandling::Base64) => "base64",
        Codec::Bytea(BinaryHandling::Base64Url) => "base64 for URLs",
        Codec::Bytea(BinaryHandling::Hex) => "hexadecimal digits",
        Codec::Point => "`{\"x\", \"y\", \"wkb\", \"srid\"}`",
        Codec::Geometry => "`{\"wkb\", \"srid\"}`",
        Codec::Hstore(false) => "text that is a JSON object",
        Codec::Hstore(true) => "object",
        Codec::Vector => "array of numbers",
        Codec::SparseVector => "`{\"dimensions\", \"vector\"}`, the latter pairs of index and number",
        Codec::Array { .. } => "array; nested for several dimensions; lower bounds are dropped",
        Codec::Text => "text",
    }
}

/// The table, in Markdown.
pub fn table() -> String {
    let options = ValueOptions::default();
    let mut out = "| PostgreSQL | JSON | Avro-ready type |\n|---|---|---|\n".to_owned();
    let mut row = |name: &str, codec: &Codec, avro: &str| {
        out += &format!("| {name} | {} | {avro} |\n", json(codec));
    };
    for kind in KINDS {
        row(kind.name, &Codec::builtin(kind.oid, kind.modifier, options), kind.avro);
    }
    for (name, avro) in EXTENSIONS {
        row(name, &Codec::of_extension(name, options).unwrap_or(Codec::Text), avro);
    }
    row("arrays", &Codec::Array { element: Box::new(Codec::Int), delimiter: b',' }, "array");
    let others = "text, varchar, char, name, uuid, json, jsonb, xml, enums, ranges and multiranges, network types, line, box and \
                  other geometric types, tsvector, pg_lsn, reg types, composite types, citext, ltree and other extensions";
    row(others, &Codec::builtin(25, -1, options), "string");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_table_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/POSTGRESQL.md");
        crate::documentation::has_table(path, "| PostgreSQL | JSON |", &table());
    }

    #[test]
    fn no_type_of_the_table_is_plain_text_by_accident() {
        for kind in KINDS {
            assert_ne!(Codec::builtin(kind.oid, kind.modifier, ValueOptions::default()), Codec::Text, "{}", kind.name);
        }
        for (name, _) in EXTENSIONS {
            assert!(Codec::of_extension(name, ValueOptions::default()).is_some(), "{name}");
        }
    }
}
