//! Arguments held against the schema.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql_parser::types::{OperationDefinition, Selection, SelectionSet};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value};
use serde_json::Value as Json;

use super::Document;
use super::leaf::{Scalars, leaf_type};
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::LeafType;
use crate::schema::{ArgumentDef, Schema, TypeDef, TypeKind, TypeRef};
use crate::suggest::{closest, listed, suggestion};

/// Values of variables by the pipeline's word, and where they are written.
pub(crate) type Constants = BTreeMap<String, (Json, Spot)>;

/// The variables of an operation.
#[derive(Clone, Copy)]
pub(crate) struct Variables<'a> {
    /// All, with their types.
    pub declared: &'a [(String, TypeRef)],
    /// One of which it was said that its type is wrong.
    pub ill_typed: Option<&'a str>,
    /// The one that takes the ids, where it must not be used.
    pub ids: Option<&'a str>,
}

/// Unknown, missing and ill-typed arguments.
pub(crate) fn check_arguments(
    document: &Document,
    schema: &Schema,
    defined: &[ArgumentDef],
    given: &[(Positioned<Name>, Positioned<Value>)],
    variables: Variables<'_>,
    owner: &Spot,
    found: &mut Vec<Diagnostic>,
) {
    // What is written like an argument that is missing was meant for it.
    let mut meant: Vec<&str> = Vec::new();
    for (i, (name, value)) in given.iter().enumerate() {
        let spot = document.name_spot(name);
        if given[..i].iter().any(|(earlier, _)| earlier.node == name.node) {
            found.push(spot.error(format!("the argument `{}` stands here twice", name.node)));
        }
        match defined.iter().find(|a| a.name == name.node.as_str()) {
            None => {
                meant.extend(closest(&name.node, defined.iter().map(|a| a.name.as_str())));
                let help = suggestion(&name.node, defined.iter().map(|a| a.name.as_str()));
                let help =
                    help.or_else(|| Some("nothing here takes arguments".to_owned()).filter(|_| defined.is_empty()));
                found.push(spot.error(format!("unknown argument `{}`", name.node)).maybe_help(help));
            }
            Some(argument) => {
                let place = |pos: Pos| document.spot(pos, value.node.to_string().chars().count());
                if let Err(problem) = fits(schema, &value.node, &argument.ty, argument.has_default, variables) {
                    found.push(place(value.pos).error(problem.0).maybe_help(problem.1));
                }
            }
        }
    }
    for argument in defined.iter().filter(|a| a.is_required()) {
        if !given.iter().any(|(name, _)| name.node.as_str() == argument.name) && !meant.contains(&&*argument.name) {
            let message = format!("the argument `{}: {}` is missing", argument.name, argument.ty);
            let fitting = variables.declared.iter().map(|(name, ty)| (name.as_str(), ty));
            let mut fitting = fitting.filter(|(name, ty)| Some(*name) != variables.ids && ty.fits(&argument.ty));
            let help = fitting.next().map(|(name, _)| format!("write `{}: ${name}`", argument.name));
            found.push(owner.error(message).maybe_help(help));
        }
    }
}

/// The type that is expected where an operation's root fields use a variable.
pub(super) fn wanted<'s>(schema: &'s Schema, operation: &OperationDefinition, variable: &str) -> Option<&'s TypeRef> {
    operation.selection_set.node.items.iter().find_map(|item| {
        let Selection::Field(field) = &item.node else { return None };
        let defined = schema.field(schema.query_type(), &field.node.name.node)?;
        field
            .node
            .arguments
            .iter()
            .find_map(|(name, value)| wanted_within(schema, &value.node, &defined.argument(&name.node)?.ty, variable))
    })
}

fn wanted_within<'s>(schema: &'s Schema, value: &Value, ty: &'s TypeRef, variable: &str) -> Option<&'s TypeRef> {
    match value {
        Value::Variable(name) => (name == variable).then_some(ty),
        Value::List(items) => {
            let element = ty.element().unwrap_or(ty);
            items.iter().find_map(|item| wanted_within(schema, item, element, variable))
        }
        Value::Object(fields) => {
            let inputs = &schema.get(ty.name())?.inputs;
            fields.iter().find_map(|(name, value)| {
                let input = inputs.iter().find(|input| input.name == name.as_str())?;
                wanted_within(schema, value, &input.ty, variable)
            })
        }
        _ => None,
    }
}

/// Cause and remedy.
struct Problem(String, Option<String>);

fn fits(schema: &Schema, value: &Value, ty: &TypeRef, default: bool, variables: Variables<'_>) -> Result<(), Problem> {
    match (value, ty) {
        (Value::Variable(name), ty) => {
            if variables.ids == Some(name.as_str()) {
                let message = format!("the variable `${name}` takes the ids, which the root field alone is asked by");
                return Err(Problem(message, None));
            }
            let Some((_, has)) = variables.declared.iter().find(|(known, _)| known == name.as_str()) else {
                let like = closest(name, variables.declared.iter().map(|(known, _)| known.as_str()));
                let help = like.map(|known| format!("did you mean `${known}`?"));
                return Err(Problem(format!("the variable `${name}` is not defined"), help));
            };
            let wanted = if default { ty.nullable() } else { ty };
            if has.fits(wanted) || variables.ill_typed == Some(name.as_str()) {
                return Ok(());
            }
            let help = format!("declare it as `${name}: {ty}`");
            Err(Problem(format!("the variable `${name}` is of type `{has}`, and `{ty}` is expected"), Some(help)))
        }
        (Value::Null, TypeRef::NonNull(_)) => Err(Problem(format!("null, where `{ty}` is expected"), None)),
        (Value::Null, _) => Ok(()),
        (value, TypeRef::NonNull(inner)) => fits(schema, value, inner, false, variables),
        (Value::List(items), TypeRef::List(inner)) => {
            items.iter().try_for_each(|item| fits(schema, item, inner, false, variables))
        }
        // A single value stands for a list of one.
        (value, TypeRef::List(inner)) => fits(schema, value, inner, false, variables),
        (value, TypeRef::Named(name)) => named(schema, value, name, variables),
    }
}

fn named(schema: &Schema, value: &Value, name: &str, variables: Variables<'_>) -> Result<(), Problem> {
    let expected = || Problem(format!("`{value}`, where `{name}` is expected"), None);
    let Some(ty) = schema.get(name) else { return Ok(()) };
    let whole = |n: &Value| matches!(n, Value::Number(n) if n.is_i64() || n.is_u64());
    let fine = match (name, ty.kind) {
        ("Int", _) => whole(value),
        ("Float", _) => matches!(value, Value::Number(_)),
        ("String", _) => matches!(value, Value::String(_)),
        ("Boolean", _) => matches!(value, Value::Boolean(_)),
        ("ID", _) => matches!(value, Value::String(_)) || whole(value),
        (_, TypeKind::Enum) => match value {
            Value::Enum(member) if ty.values.iter().any(|v| v == member.as_str()) => true,
            Value::Enum(member) => {
                let help = suggestion(member, ty.values.iter().map(String::as_str));
                return Err(Problem(format!("`{member}` is no value of `{name}`"), help));
            }
            _ => false,
        },
        (_, TypeKind::Input) => return input(schema, value, &ty.inputs, name, variables),
        _ => true,
    };
    if fine { Ok(()) } else { Err(expected()) }
}

fn input(
    schema: &Schema,
    value: &Value,
    inputs: &[ArgumentDef],
    name: &str,
    variables: Variables<'_>,
) -> Result<(), Problem> {
    let Value::Object(members) = value else {
        return Err(Problem(format!("`{value}`, where `{name}` is expected"), None));
    };
    for (key, value) in members {
        match inputs.iter().find(|input| input.name == key.as_str()) {
            Some(field) => fits(schema, value, &field.ty, field.has_default, variables)?,
            None => {
                let help = suggestion(key, inputs.iter().map(|i| i.name.as_str()));
                return Err(Problem(format!("`{name}` has no field `{key}`"), help));
            }
        }
    }
    match inputs.iter().find(|i| i.is_required() && !members.contains_key(i.name.as_str())) {
        Some(missing) => {
            Err(Problem(format!("the field `{}: {}` of `{name}` is missing", missing.name, missing.ty), None))
        }
        None => Ok(()),
    }
}

/// A value of the pipeline, whose plain values are text, as a variable of a type takes it. `Err`: what is expected.
pub(super) fn constant(schema: &Schema, scalars: &Scalars, value: &Json, ty: &TypeRef) -> Result<Json, String> {
    let expected = || format!("`{ty}`");
    match (value, ty) {
        (Json::Null, TypeRef::NonNull(_)) => Err(expected()),
        (Json::Null, _) => Ok(Json::Null),
        (value, TypeRef::NonNull(inner)) => constant(schema, scalars, value, inner),
        (Json::Array(items), TypeRef::List(inner)) => {
            items.iter().map(|item| constant(schema, scalars, item, inner)).collect()
        }
        (value, TypeRef::List(inner)) => constant(schema, scalars, value, inner),
        (Json::Object(members), TypeRef::Named(name)) => {
            let Some(input) = schema.get(name).filter(|ty| ty.kind == TypeKind::Input) else {
                return if schema.get(name).is_some_and(TypeDef::is_leaf) {
                    Ok(value.clone())
                } else {
                    Err(expected())
                };
            };
            let member = |(key, value): (&String, &Json)| {
                let field = input.inputs.iter().find(|field| field.name == *key);
                let field = field.ok_or_else(|| format!("`{name}`, which has no field `{key}`"))?;
                Ok((key.clone(), constant(schema, scalars, value, &field.ty)?))
            };
            members.iter().map(member).collect()
        }
        (Json::String(text), TypeRef::Named(name)) => {
            let number = || text.parse::<serde_json::Number>().map(Json::Number).map_err(|_| expected());
            match leaf_type(schema, scalars, name) {
                Some(LeafType::Long | LeafType::Double) => number(),
                Some(LeafType::Boolean) => text.parse::<bool>().map(Json::Bool).map_err(|_| expected()),
                _ => match schema.get(name) {
                    Some(ty) if ty.kind == TypeKind::Enum && !ty.values.contains(text) => {
                        Err(format!("one of {}", listed(ty.values.iter().map(String::as_str))))
                    }
                    Some(ty) if ty.is_leaf() => Ok(value.clone()),
                    _ => Err(expected()),
                },
            }
        }
        _ => Err(expected()),
    }
}

/// Arguments with their values, as they stand in a query.
type Arguments = [(Positioned<Name>, Positioned<Value>)];

/// Whether a value names a variable, wherever in it.
pub(super) fn mentions(value: &Value, variable: &str) -> bool {
    let mut found = BTreeSet::new();
    variables_of(value, &mut found);
    found.contains(variable)
}

fn variables_of(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Variable(name) => {
            found.insert(name.to_string());
        }
        Value::List(items) => items.iter().for_each(|item| variables_of(item, found)),
        Value::Object(members) => members.values().for_each(|member| variables_of(member, found)),
        _ => {}
    }
}

/// Variables that nothing takes: servers refuse a query with one.
pub(crate) fn unused_variables(document: &Document) -> Vec<Diagnostic> {
    let Some((_, operation)) = document.operation() else { return Vec::new() };
    let used = variables_used(document);
    let names = operation.node.variable_definitions.iter().map(|definition| &definition.node.name);
    let unused = names.filter(|name| !used.contains(name.node.as_str()));
    let error = |name: &Positioned<Name>| {
        document.name_spot(name).error(format!("the variable `${}` is never used", name.node)).help("remove it")
    };
    unused.map(error).collect()
}

/// The variables that a document uses, in its operation and in its fragments.
fn variables_used(document: &Document) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut arguments = |arguments: &Arguments| {
        arguments.iter().for_each(|(_, value)| variables_of(&value.node, &mut found));
    };
    if let Some((_, operation)) = document.operation() {
        operation.node.directives.iter().for_each(|directive| arguments(&directive.node.arguments));
    }
    each_selection(document, &mut |item| {
        let directives = match item {
            Selection::Field(field) => {
                arguments(&field.node.arguments);
                &field.node.directives
            }
            Selection::FragmentSpread(spread) => &spread.node.directives,
            Selection::InlineFragment(fragment) => &fragment.node.directives,
        };
        directives.iter().for_each(|directive| arguments(&directive.node.arguments));
    });
    found
}

/// Response keys that stand, somewhere in a document, for something else than the field of that name without arguments.
pub(super) fn aliased(document: &Document) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    each_selection(document, &mut |item| {
        if let Selection::Field(field) = item {
            let key = &field.node.response_key().node;
            if *key != field.node.name.node || !field.node.arguments.is_empty() {
                found.insert(key.as_str());
            }
        }
    });
    found
}

fn each_selection<'a>(document: &'a Document, each: &mut dyn FnMut(&'a Selection)) {
    let operation = document.operation().map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.parsed.fragments.values().map(|fragment| &fragment.node.selection_set.node);
    operation.into_iter().chain(fragments).for_each(|set| each_within(set, each));
}

fn each_within<'a>(set: &'a SelectionSet, each: &mut dyn FnMut(&'a Selection)) {
    for item in &set.items {
        each(&item.node);
        match &item.node {
            Selection::Field(field) => each_within(&field.node.selection_set.node, each),
            Selection::InlineFragment(fragment) => each_within(&fragment.node.selection_set.node, each),
            Selection::FragmentSpread(_) => {}
        }
    }
}
