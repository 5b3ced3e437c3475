//! Arguments held against the schema.

use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value};

use super::Document;
use crate::diagnostic::{Diagnostic, Spot};
use crate::schema::{ArgumentDef, Schema, TypeKind, TypeRef};
use crate::suggest::suggestion;

/// A variable that may be used here, and its type.
pub(super) type Variable<'a> = Option<(&'a str, &'a TypeRef)>;

/// Unknown, missing and ill-typed arguments.
pub(super) fn check_arguments(
    document: &Document,
    schema: &Schema,
    defined: &[ArgumentDef],
    given: &[(Positioned<Name>, Positioned<Value>)],
    variable: Variable,
    owner: &Spot,
    found: &mut Vec<Diagnostic>,
) {
    for (i, (name, value)) in given.iter().enumerate() {
        let spot = document.name_spot(name);
        if given[..i].iter().any(|(earlier, _)| earlier.node == name.node) {
            found.push(spot.error(format!("the argument `{}` stands here twice", name.node)));
        }
        match defined.iter().find(|a| a.name == name.node.as_str()) {
            None => {
                let help = suggestion(&name.node, defined.iter().map(|a| a.name.as_str()));
                let help =
                    help.or_else(|| Some("nothing here takes arguments".to_owned()).filter(|_| defined.is_empty()));
                found.push(spot.error(format!("unknown argument `{}`", name.node)).maybe_help(help));
            }
            Some(argument) => {
                let place = |pos: Pos| document.spot(pos, value.node.to_string().chars().count());
                if let Err(problem) = fits(schema, &value.node, &argument.ty, argument.has_default, variable) {
                    found.push(place(value.pos).error(problem.0).maybe_help(problem.1));
                }
            }
        }
    }
    for argument in defined.iter().filter(|a| a.is_required()) {
        if !given.iter().any(|(name, _)| name.node.as_str() == argument.name) {
            let message = format!("the argument `{}: {}` is missing", argument.name, argument.ty);
            found.push(owner.error(message));
        }
    }
}

/// Cause and remedy.
struct Problem(String, Option<String>);

fn fits(schema: &Schema, value: &Value, ty: &TypeRef, default: bool, variable: Variable) -> Result<(), Problem> {
    match (value, ty) {
        (Value::Variable(name), ty) => {
            let Some((known, has)) = variable else {
                let help = "a query of an index has one variable, and the root field takes it".to_owned();
                return Err(Problem(format!("the variable `${name}` has no place here"), Some(help)));
            };
            if known != name.as_str() {
                return Err(Problem(
                    format!("the variable `${name}` is not defined"),
                    Some(format!("did you mean `${known}`?")),
                ));
            }
            let wanted = if default { ty.nullable() } else { ty };
            if has.fits(wanted) {
                return Ok(());
            }
            let help = format!("declare it as `${name}: {ty}`");
            Err(Problem(format!("the variable `${name}` is of type `{has}`, and `{ty}` is expected"), Some(help)))
        }
        (Value::Null, TypeRef::NonNull(_)) => Err(Problem(format!("null, where `{ty}` is expected"), None)),
        (Value::Null, _) => Ok(()),
        (value, TypeRef::NonNull(inner)) => fits(schema, value, inner, false, variable),
        (Value::List(items), TypeRef::List(inner)) => {
            items.iter().try_for_each(|item| fits(schema, item, inner, false, variable))
        }
        // A single value stands for a list of one.
        (value, TypeRef::List(inner)) => fits(schema, value, inner, false, variable),
        (value, TypeRef::Named(name)) => named(schema, value, name, variable),
    }
}

fn named(schema: &Schema, value: &Value, name: &str, variable: Variable) -> Result<(), Problem> {
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
        (_, TypeKind::Input) => return input(schema, value, &ty.inputs, name, variable),
        _ => true,
    };
    if fine { Ok(()) } else { Err(expected()) }
}

fn input(
    schema: &Schema,
    value: &Value,
    inputs: &[ArgumentDef],
    name: &str,
    variable: Variable,
) -> Result<(), Problem> {
    let Value::Object(members) = value else {
        return Err(Problem(format!("`{value}`, where `{name}` is expected"), None));
    };
    for (key, value) in members {
        match inputs.iter().find(|input| input.name == key.as_str()) {
            Some(field) => fits(schema, value, &field.ty, field.has_default, variable)?,
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
