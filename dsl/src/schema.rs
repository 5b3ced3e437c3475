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
    /// The field that vertices of a type are told apart by, where it is not `id`.
    keys: BTreeMap<String, String>,
}

/// Where the id of an object stands in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity<'a> {
    /// The object's type, where the field cannot be selected of every object that there can be.
    pub on: Option<&'a str>,
    /// The field.
    pub field: &'a str,
    /// Whether another type that the object can have has a key of the same name and another type of value, so that both cannot
    /// have the same response key.
    pub contested: bool,
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

    /// The same schema, where types have other keys than `id`.
    pub(crate) fn with_keys(&self, keys: BTreeMap<String, String>) -> Self {
        Self { keys, ..self.clone() }
    }

    /// The name of the field that vertices of a type would be told apart by.
    pub(crate) fn key_name(&self, type_name: &str) -> &str {
        self.keys.get(type_name).map_or("id", String::as_str)
    }

    /// Whether a field holds one value that can be asked for as it is.
    pub(crate) fn is_single_value(&self, field: &FieldDef) -> bool {
        !field.ty.is_list() && !self.is_composite(field.ty.name()) && !field.needs_arguments()
    }

    /// Whether it holds one, and always does: such a field can be a key.
    pub(crate) fn is_always_a_value(&self, field: &FieldDef) -> bool {
        matches!(field.ty, TypeRef::NonNull(_)) && self.is_single_value(field)
    }

    /// The field that vertices of the type are told apart by; `None`: the type is no vertex.
    pub(crate) fn key(&self, type_name: &str) -> Option<&FieldDef> {
        let key = self.field(type_name, self.key_name(type_name))?;
        (self.is_single_value(key) && type_name != self.query).then_some(key)
    }

    /// Whether objects of the type are vertices.
    pub(crate) fn is_vertex(&self, type_name: &str) -> bool {
        self.key(type_name).is_some()
    }

    /// The vertex types among the object types that a value of the type can have.
    pub(crate) fn vertices(&self, type_name: &str) -> Vec<&str> {
        self.possible(type_name).into_iter().filter(|name| self.is_vertex(name)).collect()
    }

    /// Where the ids of objects of the type stand in an answer.
    pub(crate) fn identities<'a>(&'a self, type_name: &'a str) -> Vec<Identity<'a>> {
        let members = self.vertices(type_name);
        let key = |name: &str| self.key(name).map(|key| (key.name.as_str(), key.ty.nullable()));
        let Some(first) = members.first().and_then(|name| key(name)) else { return Vec::new() };
        let alike =
            members.len() == self.possible(type_name).len() && members.iter().all(|name| key(name) == Some(first));
        if alike && self.field(type_name, first.0).is_some() {
            return vec![Identity { on: None, field: first.0, contested: false }];
        }
        let identity = |name: &'a str| {
            let (field, ty) = self.key(name).map(|key| (key.name.as_str(), key.ty.nullable()))?;
            let differs = |other: &&str| key(other).is_some_and(|(f, t)| f == field && t != ty);
            Some(Identity { on: Some(name), field, contested: members.iter().any(differs) })
        };
        members.iter().filter_map(|name| identity(name)).collect()
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

    /// Where a connection's members are: `edges.node`, or `nodes`. `None`: the type is no connection of objects.
    pub(crate) fn connection(&self, type_name: &str) -> Option<(&'static [&'static str], &str)> {
        const WAYS: [&[&str]; 2] = [&["edges", "node"], &["nodes"]];
        if self.is_abstract(type_name) || self.is_vertex(type_name) {
            return None;
        }
        let way = |way: &&'static [&'static str]| {
            let list =
                way.first().and_then(|first| self.field(type_name, first)).is_some_and(|field| field.ty.is_list());
            let node = self.walk(type_name, way).filter(|node| list && self.is_composite(node))?;
            Some((*way, node))
        };
        WAYS.iter().find_map(way)
    }

    /// The same, of vertices.
    pub(crate) fn vertex_connection(&self, type_name: &str) -> Option<(&'static [&'static str], &str)> {
        self.connection(type_name).filter(|(_, node)| !self.vertices(node).is_empty())
    }
}
