//! How a GraphQL value is indexed, by its type.
//!
//! Strings, ids and enums are keywords (`@text` makes full text of them), `Int` is a long, `Float` a double. Custom scalars are
//! what `graph.scalars` says; names that everybody uses alike need no line there. `Decimal` is among them as a double: good
//! for ranges and sorting, at the price of digits beyond the 16th; who needs them exact declares `Decimal: keyword`.

use std::collections::BTreeMap;

use crate::diagnostic::Spot;
use crate::plan::{LeafType, SentAs};
use crate::schema::{Schema, TypeKind};

/// Scalars that need no declaration, in lower case: of the usual libraries, and of servers that name them as PostgreSQL does.
const WELL_KNOWN: [(&str, LeafType); 44] = [
    ("date", LeafType::Date),
    ("datetime", LeafType::Date),
    ("datetimeiso", LeafType::Date),
    ("localdate", LeafType::Date),
    ("localdatetime", LeafType::Date),
    ("naivedate", LeafType::Date),
    ("naivedatetime", LeafType::Date),
    ("timestamp", LeafType::Date),
    ("timestamptz", LeafType::Date),
    ("instant", LeafType::Date),
    ("time", LeafType::Keyword),
    ("timetz", LeafType::Keyword),
    ("localtime", LeafType::Keyword),
    ("long", LeafType::Long),
    ("bigint", LeafType::Long),
    ("int64", LeafType::Long),
    ("int8", LeafType::Long),
    ("smallint", LeafType::Long),
    ("positiveint", LeafType::Long),
    ("nonnegativeint", LeafType::Long),
    ("decimal", LeafType::Double),
    ("bigdecimal", LeafType::Double),
    ("bigfloat", LeafType::Double),
    ("numeric", LeafType::Double),
    ("float8", LeafType::Double),
    ("float4", LeafType::Double),
    ("double", LeafType::Double),
    ("uuid", LeafType::Keyword),
    ("guid", LeafType::Keyword),
    ("url", LeafType::Keyword),
    ("uri", LeafType::Keyword),
    ("email", LeafType::Keyword),
    ("emailaddress", LeafType::Keyword),
    ("nonemptystring", LeafType::Keyword),
    ("citext", LeafType::Keyword),
    ("character", LeafType::Keyword),
    ("bpchar", LeafType::Keyword),
    ("cursor", LeafType::Keyword),
    ("inet", LeafType::Keyword),
    ("json", LeafType::Object),
    ("jsonb", LeafType::Object),
    ("jsonobject", LeafType::Object),
    ("object", LeafType::Object),
    ("map", LeafType::Object),
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
        // A composite type of that name is none of them.
        _ if schema.is_composite(type_name) => None,
        _ => {
            let lower = type_name.to_ascii_lowercase();
            WELL_KNOWN.iter().find(|(name, _)| *name == lower).map(|(_, leaf)| leaf.clone())
        }
    }
}

/// Whether it is known how to index values of a type.
pub(crate) fn is_known(schema: &Schema, type_name: &str) -> bool {
    leaf_type(schema, &Scalars::new(), type_name).is_some()
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
