//! A schema as a server answers it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{ArgumentDef, FieldDef, Schema, TypeDef, TypeKind, TypeRef};

/// What a server answers to this makes [`Schema::from_introspection`].
pub const INTROSPECTION_QUERY: &str = "query Introspection { __schema { queryType { name } types { ...T } \
directives { name locations args { ...V } } } } \
fragment T on __Type { kind name fields(includeDeprecated: true) { name args { ...V } type { ...R } } \
inputFields { ...V } interfaces { name } possibleTypes { name } enumValues(includeDeprecated: true) { name } } \
fragment V on __InputValue { name type { ...R } defaultValue } \
fragment R on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name \
ofType { kind name ofType { kind name } } } } } } }";

/// An answer to the introspection query that is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// There is no `__schema` in it.
    #[error(
        "the answer holds no `__schema`; servers can forbid introspection: name a schema file as `graph.schema` then"
    )]
    Missing,
    /// It has another shape.
    #[error("the answer to the introspection query does not have the expected shape: {0}")]
    Shape(String),
    /// A type is used and not there.
    #[error("the schema uses the type `{0}` and does not define it")]
    UnknownType(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    query_type: Named,
    types: Vec<Type>,
    #[serde(default)]
    directives: Vec<Directive>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Type {
    kind: String,
    name: String,
    fields: Option<Vec<Field>>,
    input_fields: Option<Vec<Argument>>,
    interfaces: Option<Vec<Named>>,
    possible_types: Option<Vec<Named>>,
    enum_values: Option<Vec<Named>>,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(rename = "type")]
    ty: Reference,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    name: String,
    #[serde(rename = "type")]
    ty: Reference,
    default_value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    kind: String,
    name: Option<String>,
    of_type: Option<Box<Reference>>,
}

#[derive(Deserialize)]
struct Directive {
    name: String,
    #[serde(default)]
    locations: Vec<String>,
    #[serde(default)]
    args: Vec<Argument>,
}

pub(super) fn read(json: &Json) -> Result<Schema, SchemaError> {
    let answer = json.get("data").unwrap_or(json).get("__schema").filter(|schema| schema.is_object());
    let answer =
        Answer::deserialize(answer.ok_or(SchemaError::Missing)?).map_err(|e| SchemaError::Shape(e.to_string()))?;
    let mut types = BTreeMap::new();
    for ty in answer.types {
        types.insert(ty.name.clone(), definition(ty)?);
    }
    let mut directives = BTreeMap::new();
    for directive in answer.directives {
        // Those of schemas (`@deprecated`) have no place in a query.
        if directive
            .locations
            .iter()
            .any(|l| ["QUERY", "FIELD", "FRAGMENT_SPREAD", "INLINE_FRAGMENT"].contains(&l.as_str()))
        {
            directives.insert(directive.name, arguments(directive.args)?);
        }
    }
    let schema = Schema { types, query: answer.query_type.name, directives, keys: BTreeMap::new() };
    match undefined(&schema) {
        Some(name) => Err(SchemaError::UnknownType(name)),
        None => Ok(schema),
    }
}

fn undefined(schema: &Schema) -> Option<String> {
    let fields = schema.types.values().flat_map(|t| &t.fields);
    let used = fields.flat_map(|f| f.arguments.iter().map(|a| a.ty.name()).chain([f.ty.name()]));
    let members = schema.types.values().flat_map(|t| &t.possible).map(String::as_str);
    used.chain(members).chain([schema.query.as_str()]).find(|name| !schema.types.contains_key(*name)).map(str::to_owned)
}

fn definition(ty: Type) -> Result<TypeDef, SchemaError> {
    let kind = match ty.kind.as_str() {
        "SCALAR" => TypeKind::Scalar,
        "OBJECT" => TypeKind::Object,
        "INTERFACE" => TypeKind::Interface,
        "UNION" => TypeKind::Union,
        "ENUM" => TypeKind::Enum,
        "INPUT_OBJECT" => TypeKind::Input,
        other => return Err(SchemaError::Shape(format!("`{}` is of the unknown kind `{other}`", ty.name))),
    };
    let names = |named: Option<Vec<Named>>| named.unwrap_or_default().into_iter().map(|n| n.name).collect();
    let fields = ty.fields.unwrap_or_default().into_iter();
    Ok(TypeDef {
        fields: fields
            .map(|f| Ok(FieldDef { name: f.name, arguments: arguments(f.args)?, ty: reference(f.ty)? }))
            .collect::<Result<_, SchemaError>>()?,
        interfaces: names(ty.interfaces),
        possible: names(ty.possible_types),
        values: names(ty.enum_values),
        inputs: arguments(ty.input_fields.unwrap_or_default())?,
        ..TypeDef::new(ty.name, kind)
    })
}

fn arguments(arguments: Vec<Argument>) -> Result<Vec<ArgumentDef>, SchemaError> {
    let argument =
        |a: Argument| Ok(ArgumentDef { name: a.name, ty: reference(a.ty)?, has_default: a.default_value.is_some() });
    arguments.into_iter().map(argument).collect()
}

fn reference(reference: Reference) -> Result<TypeRef, SchemaError> {
    let inner = |of: Option<Box<Reference>>| {
        let of = of.ok_or_else(|| SchemaError::Shape("a list or non-null type without its `ofType`".into()))?;
        self::reference(*of).map(Box::new)
    };
    match reference.kind.as_str() {
        "NON_NULL" => Ok(TypeRef::NonNull(inner(reference.of_type)?)),
        "LIST" => Ok(TypeRef::List(inner(reference.of_type)?)),
        _ => reference.name.map(TypeRef::Named).ok_or_else(|| SchemaError::Shape("a type without a name".into())),
    }
}
