//! Types of what columns are in the JSON of events, as far as a source knows them before it has seen a row.

/// A type of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JsonType {
    /// `true` or `false`.
    Boolean,
    /// A whole number of at most 64 bits, with its sign.
    Integer,
    /// Any number, or text where it is none that JSON has: `NaN`, `Infinity`.
    Number,
    /// Text.
    Text,
    /// A list.
    List,
    /// An object.
    Object,
    /// Anything.
    Any,
}

/// A column, and what is known of its values in events.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ColumnType {
    /// Its name, exactly as the source has it.
    pub name: String,
    /// What its values are, where they are not null.
    pub json: JsonType,
    /// Whether they may be null.
    pub is_nullable: bool,
    /// Whether an update may leave it out of the new row, because its value is large and did not change.
    pub may_be_left_out: bool,
    /// Whether it is of the table's primary key.
    #[serde(default)]
    pub is_key: bool,
}
