//! How a GraphQL value is indexed, by its type.
//!
//! Strings, ids and enums are keywords (`@text` makes full text of them), `Int` is a long, `Float` a double. Custom scalars are
//! what `graph.scalars` says; names that everybody uses alike need no line there. `Decimal` is among them as a double: good
//! for ranges and sorting, at the price of digits beyond the 16th; who needs them exact declares `Decimal: keyword`.

use std::collections::BTreeMap;

use crate::diagnostic::Spot;
use crate::plan::{LeafType, SentAs};
use crate::schema::{Schema, TypeKind};

/// Scalars that need no declaration.
const WELL_KNOWN: [(&str, LeafType); 25] = [
    ("Date", LeafType::Date),
    ("DateTime", LeafType::Date),
    ("LocalDate", LeafType::Date),
    ("LocalDateTime", LeafType::Date),
    ("NaiveDate", LeafType::Date),
    ("NaiveDateTime", LeafType::Date),
    ("Timestamp", LeafType::Date),
    ("Time", LeafType::Keyword),
    ("Long", LeafType::Long),
    ("BigInt", LeafType::Long),
    ("Int64", LeafType::Long),
    ("Decimal", LeafType::Double),
    ("BigDecimal", LeafType::Double),
    ("Double", LeafType::Double),
    ("UUID", LeafType::Keyword),
    ("Uuid", LeafType::Keyword),
    ("URL", LeafType::Keyword),
    ("Url", LeafType::Keyword),
    ("URI", LeafType::Keyword),
    ("Email", LeafType::Keyword),
    ("EmailAddress", LeafType::Keyword),
    ("JSON", LeafType::Object),
    ("JSONObject", LeafType::Object),
    ("Json", LeafType::Object),
    ("Map", LeafType::Object),
];

/// Scalars by configuration, and where they are declared.
pub(crate) type Scalars = BTreeMap<String, (LeafType, Spot)>;

/// `None`: a custom scalar that nothing is known of.
pub(super) fn leaf_type(schema: &Schema, scalars: &Scalars, type_name: &str) -> Option<LeafType> {
    if let Some((leaf, _)) = scalars.get(type_name) {
        return Some(leaf.clone());
    }
    match type_name {
        "String" | "ID" => Some(LeafType::Keyword),
        "Int" => Some(LeafType::Long),
        "Float" => Some(LeafType::Double),
        "Boolean" => Some(LeafType::Boolean),
        _ if schema.get(type_name).is_some_and(|t| t.kind == TypeKind::Enum) => Some(LeafType::Keyword),
        _ => WELL_KNOWN.iter().find(|(name, _)| *name == type_name).map(|(_, leaf)| leaf.clone()),
    }
}

/// How a variable of a type takes ids: numbers as numbers.
pub(crate) fn sent_as(schema: &Schema, scalars: &Scalars, type_name: &str) -> SentAs {
    match leaf_type(schema, scalars, type_name) {
        Some(LeafType::Long | LeafType::Double) => SentAs::Number,
        _ => SentAs::Text,
    }
}

/// The word of `graph.scalars`, or of a message.
pub(super) fn word(leaf: &LeafType) -> &'static str {
    match leaf {
        LeafType::Keyword => "keyword",
        LeafType::Text { .. } => "text",
        LeafType::Long => "long",
        LeafType::Double => "double",
        LeafType::Boolean => "boolean",
        LeafType::Date => "date",
        LeafType::Object => "object",
        LeafType::Ignore => "ignore",
    }
}
