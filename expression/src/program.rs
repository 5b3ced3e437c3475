//! A program: compiled once, run on every event.

use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use tributary_event::JsonType;
use vrl::compiler::runtime::{Runtime, Terminate};
use vrl::compiler::state::{ExternalEnv, LocalEnv};
use vrl::compiler::{CompileConfig, ExpressionError, TargetValueRef, TimeZone, TypeState, compile_with_state};
use vrl::diagnostic::DiagnosticList;
use vrl::path::{OwnedTargetPath, OwnedValuePath, PathPrefix};
use vrl::value::{Kind, Secrets, Value};

use crate::fields::Fields;
use crate::function::{FunctionSet, Type};
use crate::problem::Problem;
use crate::shape::{Shape, kind};

/// Between two looks at the clock so many expressions are run.
const EXPRESSIONS: u32 = 64;

/// The fields that an object can have, if there are no others.
fn fields(kind: &Kind) -> Option<Vec<String>> {
    let fields = kind.as_object().filter(|fields| kind.is_object() && fields.unknown_kind().is_undefined())?;
    Some(fields.known().keys().map(|field| field.as_str().to_owned()).collect())
}

/// Whether values of a kind may be null or absent. Of what may be anything, and of what is never there, nothing is said.
fn may_be_null(kind: &Kind) -> bool {
    let is_anything = kind.contains_object() && kind.contains_array() && kind.contains_boolean();
    let is_nothing = kind.is_null() || kind.is_undefined();
    !is_anything && !is_nothing && (kind.contains_null() || kind.contains_undefined())
}

/// A program that may be run.
#[derive(Clone)]
pub struct Program {
    /// What was compiled.
    code: String,
    /// What may be printed of it.
    text: String,
    program: vrl::compiler::Program,
    /// What it leaves behind.
    leaves: Shape,
    /// What it reads where nothing is, if descriptions are right.
    lacks: Vec<Lack>,
}

/// A part of an event that a program reads and that is never there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// Its path, such as `.after.titel`.
    pub path: String,
    /// The name that is not there.
    pub field: String,
    /// What is there in its place.
    pub beside: Vec<String>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({:?})", self.text)
    }
}

/// An event on its way through a stream.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The event: `.` in programs.
    pub event: Value,
    /// What is known about it beside that: `%` in programs.
    pub metadata: Value,
}

impl Flow {
    /// An event of which nothing else is known.
    pub fn new(event: Value) -> Self {
        Self { event, metadata: Value::Object(Default::default()) }
    }
}

/// Why a program did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It said `abort`, and perhaps why.
    Aborted(String),
    /// A call in it failed, which ends in `!`.
    Failed(String),
    /// It took longer than it may.
    TooLong(Duration),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborted(message) => write!(f, "it aborted: {message}"),
            Self::Failed(message) => f.write_str(message),
            Self::TooLong(limit) => write!(f, "it was stopped after {limit:?}"),
        }
    }
}

impl Program {
    /// Compiles a program that is to run on events of a shape. The warnings come with it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile(text: &str, shape: &Shape) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        Self::compile_with(text, shape, &FunctionSet::default())
    }

    /// The same of a program that may call these functions too.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn compile_with(
        text: &str,
        shape: &Shape,
        functions: &FunctionSet,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let described = compiled(text, &shape.described, functions);
        let certain = match shape.described == shape.certain {
            true => described.clone(),
            false => compiled(text, &shape.certain, functions),
        };
        let (program, described, certain, warnings) = match (described, certain) {
            // What is odd only because of a description is not worth a word.
            (Ok((program, described, _)), Ok((_, certain, warnings))) => (program, described, certain, warnings),
            // If a description is wrong it may leave anything.
            (Ok((program, described, warnings)), Err(_)) => (program, described, Kind::any_object(), warnings),
            (Err(_), Ok((program, certain, warnings))) => (program, certain.clone(), certain, warnings),
            // With the most that is known.
            (Err(problems), Err(_)) => return Err(Problem::all(problems)),
        };
        let lacks = lacks(&program, shape, &described);
        let leaves = Shape { described, certain };
        let program = Self { code: text.to_owned(), text: text.to_owned(), program, leaves, lacks };
        Ok((program, Problem::all(warnings)))
    }

    /// The same, which is printed as it was written: with the names of variables, whose values may be secret.
    pub fn written_as(self, shown: &str) -> Self {
        Self { text: shown.to_owned(), ..self }
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether what it answers is true or false.
    pub fn is_condition(&self) -> bool {
        self.program.final_type_info().result.kind().is_boolean()
    }

    /// Whether what it answers is an object.
    pub fn is_object(&self) -> bool {
        self.program.final_type_info().result.kind().is_object()
    }

    /// The fields that its answer can have; none: it may have others too, or be no object.
    pub fn answer_fields(&self) -> Option<Vec<String>> {
        fields(self.program.final_type_info().result.kind())
    }

    /// The same of what may be null instead.
    pub fn row_fields(&self) -> Option<Vec<String>> {
        if self.renames_fields() {
            return None;
        }
        let mut kind = self.program.final_type_info().result.kind().clone();
        kind.remove_null();
        fields(&kind)
    }

    /// Whether what it answers may be null, as far as it is known what that is.
    pub fn may_answer_null(&self) -> bool {
        may_be_null(self.program.final_type_info().result.kind())
    }

    /// The same of a field of its answer.
    pub fn may_answer_null_in(&self, field: &str) -> bool {
        let info = self.program.final_type_info();
        let fields = info.result.kind().as_object().filter(|_| !self.renames_fields());
        fields
            .is_some_and(|fields| fields.known().iter().any(|(name, kind)| name.as_str() == field && may_be_null(kind)))
    }

    /// Whether it gives fields names that nothing knows before it runs.
    pub fn renames_fields(&self) -> bool {
        // The language takes what it answers to have the fields that it was given.
        calls(&self.code, "map_keys")
    }

    /// What it answers.
    pub fn answer(&self) -> Type {
        Type(self.program.final_type_info().result.kind().clone())
    }

    /// Whether what it answers may be a value of a type.
    pub fn may_answer(&self, json: JsonType) -> bool {
        let info = self.program.final_type_info();
        info.result.kind().intersects(&kind(json))
    }

    /// Whether running it can fail.
    pub fn can_fail(&self) -> bool {
        let info = self.program.info();
        info.fallible || info.abortable
    }

    /// The shape of what it leaves behind.
    pub fn leaves(&self) -> Shape {
        self.leaves.clone()
    }

    /// What it reads though it is never there, if descriptions are right.
    pub fn lacks(&self) -> &[Lack] {
        &self.lacks
    }

    /// The paths of the event that it may read, such as `.after.status`.
    pub fn reads(&self) -> Vec<String> {
        self.program.info().target_queries.iter().map(ToString::to_string).collect()
    }

    /// The fields of the event that it may look at.
    pub fn fields(&self) -> Fields {
        // It copies the event around what it takes apart, which does not count as read.
        if calls(&self.code, "unnest") {
            return Fields::All;
        }
        let mut fields = Fields::default();
        self.program.info().target_queries.iter().for_each(|path| fields.add_path(path));
        fields
    }

    /// Whether it looks at what is known beside the event.
    pub fn reads_metadata(&self) -> bool {
        self.reads().iter().any(|path| path.starts_with('%'))
    }

    /// Whether it changes nothing of the event.
    pub fn only_looks(&self) -> bool {
        // What `del` takes away counts as read.
        self.program.info().target_assignments.is_empty() && !calls(&self.code, "del")
    }

    /// Runs it on an event, for so long at most: what it answers.
    ///
    /// # Errors
    /// It did not come to its end; the event may be changed in part.
    pub fn run(&self, flow: &mut Flow, limit: Duration) -> Result<Value, Failure> {
        let mut secrets = Secrets::default();
        let mut target = TargetValueRef { value: &mut flow.event, metadata: &mut flow.metadata, secrets: &mut secrets };
        let (begun, mut left) = (Instant::now(), EXPRESSIONS);
        let mut control = || {
            left -= 1;
            if left > 0 {
                return ControlFlow::Continue(());
            }
            left = EXPRESSIONS;
            if begun.elapsed() > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut run =
            || Runtime::default().resolve_with_control(&mut target, &self.program, &TimeZone::default(), &mut control);
        // A fault of the language must cost the event, not the process.
        let ended = catch_unwind(AssertUnwindSafe(&mut run));
        let Ok(ended) = ended else { return Err(Failure::Failed("it panicked".to_owned())) };
        ended.map_err(|terminated| match terminated {
            Terminate::Interrupted => Failure::TooLong(limit),
            Terminate::Abort(error @ ExpressionError::Abort { .. }) => Failure::Aborted(said(&error)),
            Terminate::Abort(error) | Terminate::Error(error) => Failure::Failed(said(&error)),
        })
    }
}

type Compiled = (vrl::compiler::Program, Kind, DiagnosticList);

/// A program for events of a kind, what it leaves behind, and warnings.
fn compiled(text: &str, events: &Kind, functions: &FunctionSet) -> Result<Compiled, DiagnosticList> {
    let external = ExternalEnv::new_with_kind(events.clone(), Kind::any_object());
    let state = TypeState { local: LocalEnv::default(), external };
    let compiled = compile_with_state(text, &functions.with_those_of_the_language(), &state, CompileConfig::default())?;
    let leaves = compiled.program.final_type_info().state.external.target_kind().clone();
    Ok((compiled.program, leaves, compiled.warnings))
}

/// What a program reads though it is never there. What it has put there itself is not told apart from what it finds, nor is what it only
/// asks for or takes away: nothing is said of those.
fn lacks(program: &vrl::compiler::Program, shape: &Shape, leaves: &Kind) -> Vec<Lack> {
    let info = program.info();
    let is_written = |path: &OwnedTargetPath| {
        info.target_assignments.iter().any(|written| {
            let (one, other) = (&written.path.segments, &path.path.segments);
            // A whole event that is put there has the field, or it was read before.
            let is_whole = one.is_empty();
            let first = OwnedValuePath { segments: other.iter().take(1).cloned().collect() };
            if is_whole {
                !leaves.at_path(&first).is_undefined()
            } else {
                one.starts_with(other) || other.starts_with(one)
            }
        })
    };
    let read = info.target_queries.iter().filter(|path| path.prefix == PathPrefix::Event && !is_written(path));
    let mut lacks: Vec<Lack> = Vec::new();
    for path in read {
        let Some((field, beside)) = shape.lacks(&path.path) else { continue };
        let lack = Lack { path: path.to_string(), field, beside };
        if !lacks.contains(&lack) {
            lacks.push(lack);
        }
    }
    lacks
}

/// Whether a text seems to call a function.
fn calls(text: &str, function: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(function).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let behind = text.get(at + function.len()..).unwrap_or_default().trim_start();
        !before.is_some_and(is_word) && behind.starts_with(['(', '!'])
    })
}

/// What an error says.
fn said(error: &ExpressionError) -> String {
    match error {
        ExpressionError::Abort { message, .. } => message.clone().unwrap_or_else(|| "without a message".to_owned()),
        error => error.to_string(),
    }
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
