//! The wire format: Debezium's JSON envelope with `schemas.enable=false`, written straight into a buffer.
//!
//! Value: `{"before":…,"after":…,"source":{…},"transaction":…,"op":"u","ts_ms":…,"ts_us":…}`; key: a JSON object of
//! the key columns. Consumers written for Debezium read it as it is. We add two members that such
//! consumers ignore: `sequence` (ours, strictly rising) and, only where values were left out,
//! `unchanged`, the names of the columns that `after` lacks, and `partial`, of those that changed to what was not sent; only of changes that are of
//! more than one row, `scope` (`partition` or `range`), with `range` beside it; where values were left out because the event was too large for its
//! topic, `whole` is the file that has them. A delete is followed by a tombstone.
//!
//! Reference: Debezium documentation 3.x, "Change events", PostgreSQL connector.

mod decode;
mod encode;
mod number;
mod text;

pub use decode::{DecodeError, Decoder};
pub use encode::{Encoder, encode_event_key, encode_key, encode_value};
pub use text::json_string;

/// The topic of a table: `<source>.<schema>.<table>`, where characters that topic names may not have become `_`. Logical
/// messages have the topic `<source>.message`: their table has no schema.
pub fn topic(source: &str, schema: &str, table: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let parts = [source, schema, table];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".").chars().map(legal).collect()
}

/// How exact decimals travel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecimalMode {
    /// Base64 of the unscaled value (`org.apache.kafka.connect.data.Decimal`), with its scale beside it
    /// where the column declares none (`VariableScaleDecimal`). Debezium's default.
    #[default]
    Precise,
    /// The digits, as a string.
    String,
    /// A JSON number; loses precision beyond 15 digits.
    Double,
}

#[cfg(test)]
mod tests;
