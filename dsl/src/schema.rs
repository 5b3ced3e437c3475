//! The graph's schema, as far as checking a query needs it. Knows nothing of pipelines.

mod introspection;
mod sdl;
mod shape;

pub use introspection::{INTROSPECTION_QUERY, SchemaError};
pub(crate) use sdl::type_ref;
pub(crate) use shape::{ArgumentDef, FieldDef, TypeDef, TypeKind, TypeRef};

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::Diagnostic;

/// A GraphQL schema.
#[derive(Debug, Clone)]
pub struct Schema {
    types: BTreeMap<String, TypeDef>,
    query: String,
    /// Directives of the server for queries, and their arguments.
    directives: BTreeMap<String, Vec<ArgumentDef>>,
}

impl Schema {
    /// From the answer to [`INTROSPECTION_QUERY`], with or without its `data` around it.
    pub fn from_introspection(json: &serde_json::Value) -> Result<Self, SchemaError> {
        introspection::read(json)
    }

    /// From a schema file. `file` is its name in diagnostics.
    pub fn from_sdl(text: &str, file: &str) -> Result<Self, Vec<Diagnostic>> {
        sdl::read(text, file)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&TypeDef> {
        self.types.get(name)
    }

    pub(crate) fn type_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.types.keys().map(String::as_str).filter(|name| !name.starts_with("__"))
    }

    /// The type of root fields.
    pub(crate) fn query_type(&self) -> &str {
        &self.query
    }

    pub(crate) fn root_fields(&self) -> &[FieldDef] {
        self.fields(&self.query)
    }

    pub(crate) fn directive(&self, name: &str) -> Option<&[ArgumentDef]> {
        self.directives.get(name).map(Vec::as_slice)
    }

    pub(crate) fn directive_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.directives.keys().map(String::as_str)
    }

    pub(crate) fn fields(&self, type_name: &str) -> &[FieldDef] {
        self.get(type_name).map_or(&[], |t| t.fields.as_slice())
    }

    pub(crate) fn field(&self, type_name: &str, field: &str) -> Option<&FieldDef> {
        self.fields(type_name).iter().find(|f| f.name == field)
    }

    /// Whether values of the type are objects.
    pub(crate) fn is_composite(&self, type_name: &str) -> bool {
        self.get(type_name).is_some_and(TypeDef::is_composite)
    }

    pub(crate) fn is_abstract(&self, type_name: &str) -> bool {
        self.get(type_name).is_some_and(|t| matches!(t.kind, TypeKind::Interface | TypeKind::Union))
    }

    /// The object types that a value of the type can have.
    pub(crate) fn possible(&self, type_name: &str) -> BTreeSet<&str> {
        match self.get(type_name) {
            Some(t) if t.kind == TypeKind::Object => BTreeSet::from([t.name.as_str()]),
            Some(t) => t.possible.iter().map(String::as_str).collect(),
            None => BTreeSet::new(),
        }
    }

    /// Whether the type has an `id` that vertices are told apart by.
    pub(crate) fn has_id(&self, type_name: &str) -> bool {
        self.field(type_name, "id").is_some_and(|id| {
            !id.ty.is_list()
                && ["ID", "String", "Int"].contains(&id.ty.name())
                && !id.arguments.iter().any(ArgumentDef::is_required)
        })
    }

    /// The vertex types among the object types that a value of the type can have.
    pub(crate) fn vertices(&self, type_name: &str) -> Vec<&str> {
        self.possible(type_name).into_iter().filter(|name| self.has_id(name)).collect()
    }

    /// The type at the end of a path of fields; no field on the way may need an argument.
    pub(crate) fn walk(&self, from: &str, path: &[&str]) -> Option<&str> {
        let mut reached = None;
        for segment in path {
            let field = self.field(reached.unwrap_or(from), segment).filter(|field| !field.needs_arguments())?;
            reached = Some(field.ty.name());
        }
        reached
    }

    /// Whether values of the type are pages that say whether another follows.
    pub(crate) fn tells_next_page(&self, type_name: &str) -> bool {
        self.walk(type_name, &["pageInfo", "hasNextPage"]).is_some()
    }

    /// Where a connection's vertices are: `edges.node`, or `nodes`. `None`: the type is no connection.
    pub(crate) fn connection(&self, type_name: &str) -> Option<(&'static [&'static str], &str)> {
        const WAYS: [&[&str]; 2] = [&["edges", "node"], &["nodes"]];
        if self.is_abstract(type_name) || self.has_id(type_name) {
            return None;
        }
        let way = |way: &&'static [&'static str]| {
            let list =
                way.first().and_then(|first| self.field(type_name, first)).is_some_and(|field| field.ty.is_list());
            let node = self.walk(type_name, way).filter(|node| list && !self.vertices(node).is_empty())?;
            Some((*way, node))
        };
        WAYS.iter().find_map(way)
    }
}
