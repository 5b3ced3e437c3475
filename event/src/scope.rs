//! Which rows a change is of: one, or several that one write of the source removes or sets together.

use bytestring::ByteString;

use crate::row::Value;

/// The rows that a change is of. A reader that keeps rows by their keys must look at it before it removes one: with any scope but
/// [`Scope::Row`] the key names more than one row, and has only the columns that are known.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Scope {
    /// The row of the key.
    #[default]
    Row,
    /// Every row of the partition that the known columns of the key name (Cassandra). Columns of the key that tell the rows of a
    /// partition apart are [`Value::Unchanged`] in the image.
    Partition,
    /// The rows of such a partition between two bounds.
    Range(Box<KeyRange>),
}

impl Scope {
    /// The word on the wire; none for a row, which is what no word means.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Self::Row => None,
            Self::Partition => Some("partition"),
            Self::Range(_) => Some("range"),
        }
    }

    /// Whether the change is of one row, which its key names.
    pub fn is_row(&self) -> bool {
        matches!(self, Self::Row)
    }
}

/// A range of rows of a partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyRange {
    /// Where it begins; none: with the first row.
    pub from: Option<Bound>,
    /// Where it ends; none: with the last row.
    pub to: Option<Bound>,
}

/// An end of a range.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The columns that tell the rows of a partition apart, by name, in the order of the key; the last ones may be missing.
    pub key: Vec<(ByteString, Value)>,
    /// Whether rows that have these values are in the range.
    pub inclusive: bool,
}
