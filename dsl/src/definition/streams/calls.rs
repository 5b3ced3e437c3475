//! `call:` of a step: a function of the user, held to its signature.

use tributary_expression::{Fit, Function, Path, Program, Shape, Type};

use super::programs::looking;
use super::steps::taken;
use crate::keys::streams::steps as key;
use crate::plan::FunctionPlan;
use crate::suggest::suggestion;
use crate::yaml::{Map, Reader, Text};

/// The call, if it can be one.
pub(super) fn call(r: &mut Reader, map: &Map, shape: Option<&Shape>) -> Option<FunctionPlan> {
    let function = r.required(map, &key::FUNCTION).and_then(|name| function(r, &name));
    let with = r.optional(map, &key::WITH);
    let into = r.optional(map, &key::CALL_INTO);
    // One that is wrong was told of.
    if (with.is_none() && map.node(&key::WITH).is_some()) || (into.is_none() && map.node(&key::CALL_INTO).is_some()) {
        return None;
    }
    let programs: Vec<Option<Program>> = match &with {
        Some(texts) => texts.iter().map(|text| looking(r, text, shape, "an argument")).collect(),
        None => vec![Program::compile(".", shape?).ok().map(|(program, _)| program)],
    };
    if let Some((path, text)) = into.as_ref().filter(|(path, _)| !path.is_root()) {
        let read: Vec<String> = programs.iter().flatten().flat_map(Program::reads).collect();
        taken(r, (shape, &read), path, text);
    }
    let into = into.map_or_else(Path::root, |(path, _)| path);
    let function = function?;
    let place = map.node(&key::FUNCTION).map_or(map.place, |node| node.place);
    let (given, parameters) = (programs.len(), function.parameters());
    let needed = parameters.iter().rposition(|parameter| !parameter.takes.takes_null()).map_or(0, |last| last + 1);
    if given < needed || given > parameters.len() {
        let message = match with.is_some() {
            true => format!("`{}` is given {given} of its {} arguments", function.name(), parameters.len()),
            false => format!("`{}` cannot be given the event alone", function.name()),
        };
        r.error(place, message, Some(format!("it is `{function}`; say what it is given: `with: [.after.price]`")));
        return None;
    }
    for (number, (program, parameter)) in programs.iter().zip(parameters).enumerate() {
        let Some(answer) = program.as_ref().map(Program::answer) else { continue };
        if parameter.takes.takes(&answer) == Fit::Never {
            let message = format!(
                "`{}` of `{}` takes {}, and this is {answer}",
                parameter.name,
                function.name(),
                parameter.takes
            );
            let place = with.as_ref().and_then(|texts| texts.get(number)).map_or(place, |text| text.place);
            r.error(place, message, Some(format!("it is `{function}`")));
            return None;
        }
    }
    if into.is_root() && Type::object().takes(function.answers()) == Fit::Never {
        let message =
            format!("`{}` answers {}, which cannot take the event's place", function.name(), function.answers());
        r.error(place, message, Some("say where its answer is put: `into: .score`".to_owned()));
        return None;
    }
    let with = programs.into_iter().collect::<Option<Vec<Program>>>()?;
    Some(FunctionPlan { function, with, into })
}

fn function(r: &mut Reader, name: &Text) -> Option<Function> {
    let found = r.functions.get(&name.value).cloned();
    if found.is_none() {
        let names: Vec<&str> = r.functions.iter().map(Function::name).collect();
        let help = match names.is_empty() {
            false => suggestion(&name.value, names),
            true => Some(
                "describe a component under `functions`, or compile a function of Rust into a program of your own (STREAMS.md, Functions)"
                    .to_owned(),
            ),
        };
        let error = name.spot.error(format!("there is no function `{}`", name.shown)).maybe_help(help);
        r.found.push(error);
    }
    found
}

/// What flows on behind a call.
pub(super) fn leaves(shape: &Shape, plan: &FunctionPlan) -> Shape {
    match plan.into.is_root() {
        true => Shape::objects_of(plan.function.answers()),
        false => shape.clone().with_a(&plan.into, plan.function.answers()),
    }
}
