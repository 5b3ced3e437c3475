//! Programs in their places: compiled against what flows there, with what is wrong told where it is written.

use tributary_expression::{Lack, Problem, Program, Shape};

use crate::diagnostic::{Diagnostic, Spot};
use crate::suggest::suggestion;
use crate::yaml::{Place, Reader, Text};

/// Compiles a program, and tells what is wrong with it where it is written. Without a shape an earlier step was wrong, which was told.
pub(super) fn program(r: &mut Reader, text: &Text, shape: Option<&Shape>) -> Option<Program> {
    let (compiled, problems) = match Program::compile_with(&text.value, shape?, &r.functions) {
        Ok((program, mut warnings)) => {
            warnings.extend(program.lacks().iter().map(|lack| never_there(lack, &text.value)));
            (Some(program.written_as(&text.shown)), warnings)
        }
        Err(problems) => (None, problems),
    };
    for problem in problems {
        let spot = spot(r, text.place, &text.value, &problem);
        let found = diagnostic(&spot, &problem);
        r.found.push(found);
    }
    compiled
}

/// A part of the event that is never there is null, which is seldom meant.
fn never_there(lack: &Lack, program: &str) -> Problem {
    let start = program.find(&lack.path).unwrap_or_default();
    let end = if program.contains(&lack.path) { start + lack.path.len() } else { program.len() };
    let help = suggestion(&lack.field, lack.beside.iter().map(String::as_str));
    let message = format!("no event has `{}`: there is no `{}`, so this is always null", lack.path, lack.field);
    Problem { is_error: false, message, help, start, end }
}

/// The same of a program that changes nothing of the event, such as `a key`.
pub(super) fn looking(r: &mut Reader, text: &Text, shape: Option<&Shape>, what: &str) -> Option<Program> {
    let compiled = program(r, text, shape);
    if compiled.as_ref().is_some_and(|program| !program.only_looks()) {
        let message = format!("{what} changes nothing of the event, and this does");
        r.found.push(text.spot.error(message).help("put the change into a `transform` before it"));
    }
    compiled
}

fn diagnostic(spot: &Spot, problem: &Problem) -> Diagnostic {
    let found = if problem.is_error { spot.error(&problem.message) } else { spot.warning(&problem.message) };
    found.maybe_help(problem.help.clone())
}

/// Where a part of a program stands in the pipeline's text: on the line of its value, or on one of the lines below it.
fn spot(r: &Reader, place: Place, program: &str, problem: &Problem) -> Spot {
    let before = program.get(..problem.start).unwrap_or_default();
    let (number, line_start) = (before.matches('\n').count(), before.rfind('\n').map_or(0, |at| at + 1));
    let line = program.lines().nth(number).unwrap_or_default();
    let column = program.get(line_start..problem.start).unwrap_or_default().chars().count();
    let part = program.get(problem.start..problem.end).unwrap_or_default();
    let length = part.lines().next().unwrap_or_default().chars().count().max(1);
    // A block begins below its mark.
    let text = r.text_of(place);
    let first = text.line(place.start.0);
    let from: usize = first.chars().take(place.start.1.saturating_sub(1)).map(char::len_utf8).sum();
    let is_block = first.get(from..).is_some_and(|value| value.starts_with(['|', '>']));
    let number = place.start.0 + number + usize::from(is_block);
    match text.line(number).find(line).filter(|_| !line.is_empty()) {
        Some(at) => {
            let indent = text.line(number).get(..at).unwrap_or_default().chars().count();
            Spot::new(text, number, indent + column + 1, length)
        }
        None => r.spot(place),
    }
}
