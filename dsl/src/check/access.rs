//! How vertices of a type are fetched by id, so that their parents can be asked for.
//!
//! In this order: what `graph.types` says; `_entities` of a federated graph; a root field that takes a list of ids; one that takes a
//! filter with a list of ids and answers a connection; one that takes one id; a filter of a list that may be cut; Relay's
//! `nodes(ids:)` and `node(id:)`. Relay comes last because its ids are global: they must be what the type's key answers, which the
//! schema cannot show.

use super::{Checker, Wanted};
use crate::definition::AccessText;
use crate::diagnostic::Diagnostic;
use crate::query::can_be_cut;
use crate::schema::{ArgumentDef, FieldDef, Schema, TypeRef};
use crate::suggest::suggestion;

/// How vertices are fetched: a root field, and where it takes ids.
pub(crate) struct Way {
    /// The root field.
    pub field: String,
    /// Its argument, and the way into it.
    pub argument: Vec<String>,
    /// What the field answers.
    pub answers: String,
    /// From what it answers to the vertices.
    pub way: &'static [&'static str],
    /// The type of an id.
    pub id: String,
    /// Whether many are taken at a time.
    pub many: bool,
}

/// Names of the condition that a value is one of a list, in filters of input objects.
const IN: [&str; 6] = ["in", "_in", "IN", "equalToAnyOf", "anyOf", "inArray"];

impl Checker<'_> {
    /// Entries of `graph.types` that name no way; those of unknown types are told elsewhere.
    pub(super) fn declared_ways(&mut self) {
        for (name, ty) in self.graph.types.iter().filter(|(name, _)| self.schema.get(name).is_some()) {
            let Some(declared) = &ty.access else { continue };
            self.found.extend(declared_way(self.schema, name, declared).err().map(|diagnostic| *diagnostic));
        }
    }

    /// The way that is declared, or else that the schema shows.
    pub(super) fn way(&self, name: &str) -> Option<Way> {
        match self.graph.types.get(name).and_then(|ty| ty.access.as_ref()) {
            Some(declared) => declared_way(self.schema, name, declared).ok(),
            None => way_to(self.schema, name),
        }
    }

    /// `None`: there is no way, which is said.
    pub(super) fn access(&mut self, wanted: &Wanted) -> Option<Way> {
        let name = wanted.child_type.as_str();
        let way = self.way(name);
        // What is wrong with a declared one was told.
        if way.is_none() && self.graph.types.get(name).is_none_or(|ty| ty.access.is_none()) {
            let key = self.schema.key_name(name);
            let message = format!(
                "`{name}` cannot be fetched by its `{key}`, so the parents of a changed one cannot be asked for"
            );
            let help = format!(
                "name a root field that takes it, or a list of them, in the pipeline:\n\
                 graph: {{ types: {{ {name}: {{ field: <field>, argument: <argument> }} }} }}\n\
                 (or hint how the edge is stored, under `graph.edges`)"
            );
            self.found.push(wanted.spot.error(message).help(help));
        }
        way
    }
}

/// The way that the schema shows.
pub(crate) fn way_to(schema: &Schema, name: &str) -> Option<Way> {
    entities(schema, name)
        .or_else(|| found(schema, name, list_of_ids))
        .or_else(|| found(schema, name, |s, n, f| filter(s, n, f).filter(|way| !way.way.is_empty() || !can_be_cut(f))))
        .or_else(|| found(schema, name, one_id))
        .or_else(|| found(schema, name, filter))
        .or_else(|| relay(schema, name, "nodes", &["ids"]))
        .or_else(|| relay(schema, name, "node", &["id", schema.key_name(name)]))
}

fn found(schema: &Schema, name: &str, way: impl Fn(&Schema, &str, &FieldDef) -> Option<Way>) -> Option<Way> {
    schema.root_fields().iter().find_map(|field| way(schema, name, field))
}

fn declared_way(schema: &Schema, name: &str, declared: &AccessText) -> Result<Way, Box<Diagnostic>> {
    let AccessText { field, argument } = declared;
    let Some(root) = schema.root_fields().iter().find(|f| f.name == field.value) else {
        let fields = schema.root_fields().iter().map(|f| f.name.as_str());
        let message = format!("the schema has no root field `{}`", field.shown);
        return Err(Box::new(field.spot.error(message).maybe_help(suggestion(&field.value, fields))));
    };
    let path: Vec<&str> = argument.value.split('.').collect();
    let (mut known, mut taken): (&[ArgumentDef], Option<&ArgumentDef>) = (&root.arguments, None);
    for segment in &path {
        let Some(next) = known.iter().find(|a| a.name == *segment) else {
            let names = known.iter().map(|a| a.name.as_str());
            let message = match taken {
                None => format!("the root field `{}` has no argument `{segment}`", root.name),
                Some(input) => format!("`{}` has no field `{segment}`", input.ty.name()),
            };
            return Err(Box::new(argument.spot.error(message).maybe_help(suggestion(segment, names))));
        };
        known = schema.get(next.ty.name()).map_or(&[], |ty| &ty.inputs);
        taken = Some(next);
    }
    let (Some(taken), Some(first)) = (taken, path.first()) else { return Err(Box::new(no_ids(argument, "nothing"))) };
    let Some((way, _)) = answers(schema, root, name) else {
        let message = format!("the root field `{}` answers `{}`, not `{name}`", root.name, root.ty);
        return Err(Box::new(field.spot.error(message)));
    };
    let leaf = schema.get(taken.ty.name()).is_some_and(|ty| ty.is_leaf());
    if !leaf {
        return Err(Box::new(no_ids(argument, &taken.ty.to_string())));
    }
    if let Some(other) = root.arguments.iter().find(|a| a.is_required() && a.name != *first) {
        let message = format!("the root field `{}` needs the argument `{}` as well", root.name, other.name);
        return Err(Box::new(field.spot.error(message)));
    }
    Ok(Way {
        field: root.name.clone(),
        argument: path.into_iter().map(str::to_owned).collect(),
        answers: root.ty.name().to_owned(),
        way,
        id: taken.ty.name().to_owned(),
        many: taken.ty.is_list(),
    })
}

fn no_ids(argument: &crate::yaml::Text, takes: &str) -> Diagnostic {
    let message = format!("the argument `{}` takes `{takes}`, neither an id nor a list of ids", argument.shown);
    argument.spot.error(message).help("name the way into the object with dots, such as `filter.id.in`")
}

/// Whether a root field answers vertices of a type: the way to them, and whether there can be many.
fn answers(schema: &Schema, root: &FieldDef, name: &str) -> Option<(&'static [&'static str], bool)> {
    let answered = root.ty.name();
    if let Some((way, node)) = schema.vertex_connection(answered) {
        return (schema.possible(node).contains(name)).then_some((way, true));
    }
    (schema.possible(answered).contains(name)).then_some((&[], root.ty.is_list()))
}

/// Whether a type's key, or a global id, may be given where a type is expected.
fn takes_key(schema: &Schema, name: &str, ty: &TypeRef) -> bool {
    let key = schema.key(name).map_or("ID", |key| key.ty.name());
    schema.get(ty.name()).is_some_and(|ty| ty.is_leaf()) && [key, "ID"].contains(&ty.name())
}

fn no_others(root: &FieldDef, argument: &str) -> bool {
    !root.arguments.iter().any(|a| a.is_required() && a.name != argument)
}

fn exactly(root: &FieldDef, schema: &Schema, name: &str) -> Option<(&'static [&'static str], bool)> {
    let answered = schema.vertex_connection(root.ty.name()).map_or(root.ty.name(), |(_, node)| node);
    answers(schema, root, name).filter(|_| answered == name)
}

fn list_of_ids(schema: &Schema, name: &str, root: &FieldDef) -> Option<Way> {
    let (way, many) = exactly(root, schema, name)?;
    let key = schema.key_name(name);
    let names = ["ids".to_owned(), format!("{key}s"), format!("{key}_in"), format!("{key}In")];
    let takes = |a: &&ArgumentDef| {
        names.contains(&a.name)
            && a.ty.element().is_some_and(|e| !e.is_list())
            && takes_key(schema, name, &a.ty)
            && no_others(root, &a.name)
    };
    let argument = root.arguments.iter().find(takes).filter(|_| many)?;
    Some(Way {
        field: root.name.clone(),
        argument: vec![argument.name.clone()],
        answers: root.ty.name().to_owned(),
        way,
        id: argument.ty.name().to_owned(),
        many: true,
    })
}

/// `filter: { id: { in: [ID!] } }`, `where: { id_in: [ID!] }`.
fn filter(schema: &Schema, name: &str, root: &FieldDef) -> Option<Way> {
    let (way, many) = exactly(root, schema, name)?;
    let key = schema.key_name(name);
    let list = |field: &&ArgumentDef| field.ty.element().is_some() && takes_key(schema, name, &field.ty);
    let inputs = |ty: &TypeRef| schema.get(ty.name()).map_or(&[][..], |ty| &ty.inputs);
    for argument in root.arguments.iter().filter(|a| !a.ty.is_list() && no_others(root, &a.name)) {
        let fields = inputs(&argument.ty);
        let condition = fields.iter().filter(|f| f.name == key && !f.ty.is_list()).find_map(|field| {
            let member = inputs(&field.ty).iter().filter(|f| IN.contains(&f.name.as_str())).find(list)?;
            Some((vec![field.name.clone(), member.name.clone()], member))
        });
        let flat = || {
            let member =
                fields.iter().filter(|f| f.name == format!("{key}_in") || f.name == format!("{key}In")).find(list)?;
            Some((vec![member.name.clone()], member))
        };
        if let Some((inner, member)) = condition.or_else(flat).filter(|_| many) {
            return Some(Way {
                field: root.name.clone(),
                argument: [argument.name.clone()].into_iter().chain(inner).collect(),
                answers: root.ty.name().to_owned(),
                way,
                id: member.ty.name().to_owned(),
                many: true,
            });
        }
    }
    None
}

fn one_id(schema: &Schema, name: &str, root: &FieldDef) -> Option<Way> {
    let (way, _) = exactly(root, schema, name).filter(|(_, many)| !many)?;
    let key = schema.key_name(name);
    let argument = root
        .arguments
        .iter()
        .find(|a| a.name == key)
        .filter(|a| !a.ty.is_list() && takes_key(schema, name, &a.ty) && no_others(root, &a.name))?;
    Some(Way {
        field: root.name.clone(),
        argument: vec![argument.name.clone()],
        answers: root.ty.name().to_owned(),
        way,
        id: argument.ty.name().to_owned(),
        many: false,
    })
}

fn entities(schema: &Schema, name: &str) -> Option<Way> {
    let root = schema.root_fields().iter().find(|f| f.name == "_entities")?;
    root.argument("representations")?;
    let answers = root.ty.name();
    (schema.possible(answers).contains(name)).then(|| Way {
        field: "_entities".to_owned(),
        argument: vec!["representations".to_owned()],
        answers: answers.to_owned(),
        way: &[],
        id: "_Any".to_owned(),
        many: true,
    })
}

fn relay(schema: &Schema, name: &str, field: &str, arguments: &[&str]) -> Option<Way> {
    let root = schema.root_fields().iter().find(|f| f.name == field)?;
    let argument = arguments.iter().find_map(|argument| root.argument(argument))?;
    let many = field == "nodes";
    let is_global = schema.key(name).is_some_and(|key| key.ty.name() == "ID");
    if !is_global
        || argument.ty.name() != "ID"
        || argument.ty.is_list() != many
        || root.ty.is_list() != many
        || !no_others(root, &argument.name)
        || !schema.possible(root.ty.name()).contains(name)
    {
        return None;
    }
    Some(Way {
        field: root.name.clone(),
        argument: vec![argument.name.clone()],
        answers: root.ty.name().to_owned(),
        way: &[],
        id: "ID".to_owned(),
        many,
    })
}
