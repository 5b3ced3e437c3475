//! What becomes of every type: the table of the documentation, made of the kinds of columns themselves.

use super::super::binlog::{ColumnMap, types};
use super::charset::Charset;
use super::{Described, Kind};
use crate::settings::{BinaryHandling, TimePrecision, ValueOptions};

/// A type: what users write, its number and what belongs to it in the log, what the catalog says of it, and what a consumer with schemas would declare.
struct Row {
    name: &'static str,
    code: u8,
    meta: u16,
    catalog: &'static str,
    avro: &'static str,
}

const LATIN: &str = "char latin1";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "TINYINT, BOOLEAN", code: types::TINY, meta: 0, catalog: "tinyint", avro: "int" },
    Row { name: "SMALLINT, MEDIUMINT, INT", code: types::LONG, meta: 0, catalog: "int", avro: "int" },
    Row { name: "INT UNSIGNED, BIGINT", code: types::LONGLONG, meta: 0, catalog: "bigint", avro: "long" },
    Row { name: "BIGINT UNSIGNED", code: types::LONGLONG, meta: 0, catalog: "bigint unsigned", avro: "long, above 2^63-1 none" },
    Row { name: "YEAR", code: types::YEAR, meta: 0, catalog: "year", avro: "int (Debezium `Year`)" },
    Row { name: "FLOAT", code: types::FLOAT, meta: 4, catalog: "float", avro: "float" },
    Row { name: "DOUBLE", code: types::DOUBLE, meta: 8, catalog: "double", avro: "double" },
    Row { name: "DECIMAL(p,s)", code: types::NEWDECIMAL, meta: 10 << 8 | 2, catalog: "decimal", avro: "bytes, `decimal`" },
    Row { name: "BIT(1)", code: types::BIT, meta: 1, catalog: "bit", avro: "boolean" },
    Row { name: "BIT(n)", code: types::BIT, meta: 1 << 8 | 1, catalog: "bit", avro: "bytes (Debezium `Bits`)" },
    Row { name: "DATE", code: types::DATE, meta: 0, catalog: "date", avro: "int, `date`" },
    Row { name: "TIME(0–6)", code: types::TIME2, meta: 3, catalog: "time", avro: "long, `time-micros`" },
    Row { name: "DATETIME(0–3)", code: types::DATETIME2, meta: 3, catalog: "datetime", avro: "long, `local-timestamp-millis`" },
    Row { name: "DATETIME(4–6)", code: types::DATETIME2, meta: 6, catalog: "datetime", avro: "long, `local-timestamp-micros`" },
    Row { name: "TIMESTAMP(0–6)", code: types::TIMESTAMP2, meta: 3, catalog: "timestamp", avro: "string (Debezium `ZonedTimestamp`)" },
    Row { name: "CHAR, VARCHAR, TEXT", code: types::VARCHAR, meta: 20, catalog: LATIN, avro: "string" },
    Row { name: "VARBINARY, BLOB", code: types::BLOB, meta: 2, catalog: "blob", avro: "bytes" },
    Row { name: "BINARY(n)", code: types::STRING, meta: 4, catalog: "binary", avro: "bytes" },
    Row { name: "ENUM", code: types::ENUM, meta: 1, catalog: "enum", avro: "string (Debezium `Enum`)" },
    Row { name: "SET", code: types::SET, meta: 1, catalog: "set", avro: "string (Debezium `EnumSet`)" },
    Row { name: "JSON of MySQL", code: types::JSON, meta: 4, catalog: "json", avro: "string (Debezium `Json`)" },
    Row { name: "JSON of MariaDB", code: types::BLOB, meta: 4, catalog: LATIN, avro: "string (Debezium `Json`)" },
    Row { name: "POINT", code: types::GEOMETRY, meta: 4, catalog: "point", avro: "record (Debezium `Point`)" },
    Row { name: "GEOMETRY and others", code: types::GEOMETRY, meta: 4, catalog: "geometry", avro: "record (Debezium `Geometry`)" },
    Row { name: "VECTOR of MySQL", code: types::VECTOR, meta: 4, catalog: "vector", avro: "array of float" },
    Row { name: "VECTOR of MariaDB", code: types::VARCHAR, meta: 8, catalog: "vector", avro: "array of float" },
    Row { name: "UUID (MariaDB)", code: types::STRING, meta: 16, catalog: "uuid", avro: "string" },
    Row { name: "INET4, INET6 (MariaDB)", code: types::STRING, meta: 16, catalog: "inet6", avro: "string" },
];

impl Row {
    fn kind(&self) -> Kind {
        let mut words = self.catalog.split(' ');
        let type_name = words.next().unwrap_or_default().to_owned();
        let more = words.next();
        let charset = more.filter(|_| self.catalog == LATIN).map(str::to_owned);
        let described = Described {
            unsigned: more == Some("unsigned"),
            charset,
            labels: Vec::new(),
            is_point: type_name == "point",
            type_name,
        };
        let map = ColumnMap { type_code: self.code, meta: self.meta, ..ColumnMap::default() };
        Kind::of(&map, &described).unwrap_or_else(|why| panic!("{}: {why}", self.name))
    }
}

/// The form of a kind's values in JSON.
fn json(kind: &Kind, options: ValueOptions) -> &'static str {
    let is_coarse = |digits: u8| digits <= 3;
    let moment = "text in UTC, `2020-01-02T03:04:05.678Z`, with the digits of the column";
    match kind {
        Kind::Int { bytes: 8, unsigned: true } => "number, up to 2^64-1",
        Kind::Int { .. } | Kind::Float | Kind::Double => "number",
        Kind::Year => "number; `0000` is 0",
        Kind::Decimal { .. } => "base64 of the unscaled value; text or number with `decimals`",
        Kind::Bit { bits: 1 } => "boolean",
        Kind::Bit { .. } => "base64, the lowest byte first",
        Kind::Date => "days since 1970-01-01",
        Kind::Time { .. } | Kind::OldTime => match options.times {
            TimePrecision::Adaptive | TimePrecision::Milliseconds => "milliseconds, with a sign",
            TimePrecision::AdaptiveTimeMicroseconds | TimePrecision::Microseconds => "microseconds, with a sign",
            TimePrecision::Nanoseconds => "nanoseconds, with a sign",
            TimePrecision::Iso => "ISO 8601 text",
        },
        Kind::Datetime { digits } if is_coarse(*digits) => "milliseconds since 1970-01-01, without a zone",
        Kind::OldDatetime => "milliseconds since 1970-01-01, without a zone",
        Kind::Datetime { .. } => "microseconds since 1970-01-01, without a zone",
        Kind::Timestamp { .. } | Kind::OldTimestamp => moment,
        Kind::Text(Charset::Binary) | Kind::Binary { padded: None } => binary(options.binary),
        Kind::Binary { padded: Some(_) } => "the same, with the zeros at the end that the log leaves out",
        Kind::Text(_) => "text, whatever its character set",
        Kind::Enum(_) => "label; `\"\"` for what is none",
        Kind::Set(_) => "labels with commas between them",
        Kind::Json => "text, as the server prints it",
        Kind::Geometry { is_point: true } => "`{\"x\", \"y\", \"wkb\", \"srid\"}`",
        Kind::Geometry { is_point: false } => "`{\"wkb\", \"srid\"}`",
        Kind::Vector => "array of numbers",
        Kind::Uuid | Kind::Inet4 | Kind::Inet6 => "text",
    }
}

fn binary(binary: BinaryHandling) -> &'static str {
    match binary {
        BinaryHandling::Base64 => "base64",
        BinaryHandling::Base64Url => "base64 for URLs",
        BinaryHandling::Hex => "hexadecimal digits",
    }
}

/// The table, in Markdown.
fn table() -> String {
    let options = ValueOptions { times: TimePrecision::AdaptiveTimeMicroseconds, ..ValueOptions::default() };
    let mut out = "| MySQL, MariaDB | JSON | Avro-ready type |\n|---|---|---|\n".to_owned();
    for row in ROWS {
        out += &format!("| {} | {} | {} |\n", row.name, json(&row.kind(), options), row.avro);
    }
    out
}

#[test]
fn the_documentation_has_the_table_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/MYSQL.md");
    crate::documentation::has_table(path, "| MySQL, MariaDB | JSON |", &table());
}

#[test]
fn a_character_set_that_is_not_known_is_refused_by_its_name() {
    let map = ColumnMap { type_code: types::VARCHAR, meta: 20, ..ColumnMap::default() };
    let described = Described { charset: Some("cp851".to_owned()), ..Described::default() };
    let why = Kind::of(&map, &described).expect_err("it is not known");
    assert!(why.contains("cp851") && why.contains("utf8mb4"), "{why}");
}
