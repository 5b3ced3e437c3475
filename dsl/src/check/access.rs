//! How vertices of a type are fetched by id, so that their parents can be asked for.
//!
//! In this order: what `graph.types` says; `_entities` of a federated graph; a root field that takes `ids` and answers a list of
//! the type; Relay's `nodes(ids:)`; Relay's `node(id:)`. Relay comes late because its ids are global: they must be what the
//! type's `id` answers, which the schema cannot show.

use super::{Checker, Wanted};
use crate::definition::AccessText;
use crate::diagnostic::Diagnostic;
use crate::plan::Access;
use crate::schema::{FieldDef, Schema, TypeRef};
use crate::suggest::suggestion;

/// How vertices are fetched, with the type that the root field answers, and the type of its variable.
pub(super) struct Way {
    pub access: Access,
    pub answers: String,
    pub variable: &'static str,
}

impl Checker<'_> {
    /// Entries of `graph.types` that name no way; those of unknown types are told elsewhere.
    pub(super) fn declared_ways(&mut self) {
        for (name, declared) in self.graph.types.iter().filter(|(name, _)| self.schema.get(name).is_some()) {
            self.found.extend(declared_way(self.schema, name, declared).err().map(|diagnostic| *diagnostic));
        }
    }

    /// `None`: there is no way, which is said.
    pub(super) fn access(&mut self, wanted: &Wanted) -> Option<Way> {
        let name = wanted.child_type.as_str();
        if let Some(declared) = self.graph.types.get(name) {
            return declared_way(self.schema, name, declared).ok();
        }
        let way = entities(self.schema, name)
            .or_else(|| listing(self.schema, name))
            .or_else(|| relay(self.schema, name, "nodes", "ids"))
            .or_else(|| relay(self.schema, name, "node", "id"));
        if way.is_none() {
            let message =
                format!("`{name}` cannot be fetched by id, so the parents of a changed one cannot be asked for");
            let help = format!(
                "name a root field that takes a list of ids, in the pipeline:\n\
                 graph: {{ types: {{ {name}: {{ field: <field>, argument: <argument> }} }} }}\n\
                 (or hint how the edge is stored, under `graph.edges`)"
            );
            self.found.push(wanted.spot.error(message).help(help));
        }
        way
    }
}

fn declared_way(schema: &Schema, name: &str, declared: &AccessText) -> Result<Way, Box<Diagnostic>> {
    let AccessText { field, argument, .. } = declared;
    let Some(root) = schema.root_fields().iter().find(|f| f.name == field.value) else {
        let fields = schema.root_fields().iter().map(|f| f.name.as_str());
        let message = format!("the schema has no root field `{}`", field.shown);
        return Err(Box::new(field.spot.error(message).maybe_help(suggestion(&field.value, fields))));
    };
    let Some(found) = root.argument(&argument.value) else {
        let arguments = root.arguments.iter().map(|a| a.name.as_str());
        let message = format!("the root field `{}` has no argument `{}`", root.name, argument.shown);
        return Err(Box::new(argument.spot.error(message).maybe_help(suggestion(&argument.value, arguments))));
    };
    if !root.ty.is_list() || !schema.possible(root.ty.name()).contains(name) {
        let message = format!("the root field `{}` answers `{}`, not a list of `{name}`", root.name, root.ty);
        return Err(Box::new(field.spot.error(message)));
    }
    let Some(variable) = list_of_ids(&found.ty) else {
        let message = format!("the argument `{}` takes `{}`, not a list of ids", found.name, found.ty);
        return Err(Box::new(argument.spot.error(message).help("its type must be a list of `ID` or `String`")));
    };
    if let Some(other) = root.arguments.iter().find(|a| a.is_required() && a.name != found.name) {
        let message = format!("the root field `{}` needs the argument `{}` as well", root.name, other.name);
        return Err(Box::new(field.spot.error(message)));
    }
    Ok(by_field(root, &found.name, variable))
}

fn by_field(root: &FieldDef, argument: &str, variable: &'static str) -> Way {
    let access = Access::Field { field: root.name.clone(), argument: argument.to_owned() };
    Way { access, answers: root.ty.name().to_owned(), variable }
}

fn list_of_ids(ty: &TypeRef) -> Option<&'static str> {
    match ty.element()?.nullable() {
        TypeRef::Named(name) if name == "ID" => Some("[ID!]!"),
        TypeRef::Named(name) if name == "String" => Some("[String!]!"),
        _ => None,
    }
}

fn entities(schema: &Schema, name: &str) -> Option<Way> {
    let root = schema.root_fields().iter().find(|f| f.name == "_entities")?;
    root.argument("representations")?;
    let answers = root.ty.name();
    (schema.possible(answers).contains(name)).then(|| Way {
        access: Access::Entities,
        answers: answers.to_owned(),
        variable: "[_Any!]!",
    })
}

fn listing(schema: &Schema, name: &str) -> Option<Way> {
    let fits = |root: &&FieldDef| {
        root.ty.element().is_some_and(|element| !element.is_list() && element.name() == name)
            && !root.arguments.iter().any(|a| a.is_required() && a.name != "ids")
            && root.argument("ids").is_some_and(|ids| list_of_ids(&ids.ty) == Some("[ID!]!"))
    };
    schema.root_fields().iter().find(fits).map(|root| by_field(root, "ids", "[ID!]!"))
}

fn relay(schema: &Schema, name: &str, field: &str, argument: &str) -> Option<Way> {
    let root = schema.root_fields().iter().find(|f| f.name == field)?;
    let many = argument == "ids";
    let takes = &root.argument(argument)?.ty;
    let takes_ids = if many { list_of_ids(takes) == Some("[ID!]!") } else { takes.name() == "ID" && !takes.is_list() };
    let answers = root.ty.name();
    let others = root.arguments.iter().any(|a| a.is_required() && a.name != argument);
    if !takes_ids || others || root.ty.is_list() != many || !schema.possible(answers).contains(name) {
        return None;
    }
    let access = if many { Access::Nodes } else { Access::Node };
    Some(Way { access, answers: answers.to_owned(), variable: if many { "[ID!]!" } else { "ID!" } })
}
