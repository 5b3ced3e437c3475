//! Functions of users: written outside of this project, called by programs and by steps. Each has a signature, by which programs that
//! call it are checked, and what it does, which may panic: that costs the event.

mod argument;
mod language;
mod set;
mod types;

pub use self::argument::{Answers, Argument, Change, Declared, Json, Outcome, each_read, read};
pub use self::set::{FunctionError, FunctionSet};
pub use self::types::{Fit, Type};

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use vrl::compiler::Parameter as LanguageParameter;
use vrl::value::Value;

use self::language::lasting;

/// What a function makes of one event's arguments, or why it makes nothing of them.
pub type Made = Result<Value, String>;

type Each = dyn Fn(&[Value]) -> Made + Send + Sync;
type Together = dyn Fn(&[Vec<Value>]) -> Result<Vec<Made>, String> + Send + Sync;

/// A function.
#[derive(Clone)]
pub struct Function(Arc<Definition>);

struct Definition {
    name: &'static str,
    parameters: Vec<Parameter>,
    /// The same, as the language wants them.
    declared: &'static [LanguageParameter],
    answers: Type,
    can_fail: bool,
    body: Body,
    /// What it is made of, where that is not this program: another one is another function.
    made_of: String,
}

/// A parameter of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it takes. What takes null may be left out.
    pub takes: Type,
}

/// What a function does.
enum Body {
    /// One event at a time.
    Each(Box<Each>),
    /// Many at a time.
    Together(Box<Together>),
}

/// The signature of a function, before it is known what it does.
#[derive(Debug, Clone)]
pub struct Signature {
    name: String,
    parameters: Vec<Parameter>,
    answers: Type,
    can_fail: bool,
    made_of: String,
}

impl Signature {
    /// A function of this name without parameters, which answers anything and can fail.
    pub fn new(name: impl Into<String>) -> Self {
        let (parameters, made_of) = (Vec::new(), String::new());
        Self { name: name.into(), parameters, answers: Type::any(), can_fail: true, made_of }
    }

    /// One more parameter.
    pub fn parameter(mut self, name: impl Into<String>, takes: Type) -> Self {
        self.parameters.push(Parameter { name: name.into(), takes });
        self
    }

    /// What it answers, and whether it can fail instead.
    pub fn answers(self, answers: Type, can_fail: bool) -> Self {
        Self { answers, can_fail, ..self }
    }

    /// What it is said to take.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// What it is said to answer.
    pub fn answer(&self) -> &Type {
        &self.answers
    }

    /// What it is made of, where that is not this program.
    pub fn made_of(self, made_of: impl Into<String>) -> Self {
        Self { made_of: made_of.into(), ..self }
    }

    /// A function that is called for one event after the other.
    pub fn each(self, body: impl Fn(&[Value]) -> Made + Send + Sync + 'static) -> Function {
        self.function(Body::Each(Box::new(body)))
    }

    /// A function that is called for many events at a time. An error is about all of them: then they are halved until the one that is to
    /// blame stands alone, so it must not matter how often it is called.
    pub fn together(
        self,
        body: impl Fn(&[Vec<Value>]) -> Result<Vec<Made>, String> + Send + Sync + 'static,
    ) -> Function {
        self.function(Body::Together(Box::new(body)))
    }

    fn function(self, body: Body) -> Function {
        let Self { name, parameters, answers, can_fail, made_of } = self;
        let (name, declared) = lasting(&name, &parameters);
        Function(Arc::new(Definition { name, parameters, declared, answers, can_fail, body, made_of }))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if self.0.made_of.is_empty() { Ok(()) } else { write!(f, " of {}", self.0.made_of) }
    }
}

/// Its signature.
impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.0.name)?;
        for (place, parameter) in self.0.parameters.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {}", parameter.name, parameter.takes)?;
        }
        write!(f, ") -> {}", self.0.answers)?;
        if self.0.can_fail { f.write_str(", or a failure") } else { Ok(()) }
    }
}

impl Function {
    /// What it is called by.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// What it takes.
    pub fn parameters(&self) -> &[Parameter] {
        &self.0.parameters
    }

    /// What it answers.
    pub fn answers(&self) -> &Type {
        &self.0.answers
    }

    /// Whether it can fail, without panicking.
    pub fn can_fail(&self) -> bool {
        self.0.can_fail
    }

    /// Calls it for many events: what it makes of each one's arguments, in their order. What is left out of them is null.
    pub fn call(&self, calls: &[Vec<Value>]) -> Vec<Made> {
        match &self.0.body {
            Body::Each(body) => calls.iter().map(|arguments| one(body, arguments)).collect(),
            Body::Together(body) => many(body, calls),
        }
    }

    fn call_one(&self, arguments: Vec<Value>) -> Made {
        match &self.0.body {
            Body::Each(body) => one(body, &arguments),
            Body::Together(body) => many(body, &[arguments]).pop().unwrap_or_else(|| Err("it answered nothing".into())),
        }
    }
}

fn one(body: &Each, arguments: &[Value]) -> Made {
    guarded(|| body(arguments)).unwrap_or_else(Err)
}

fn many(body: &Together, calls: &[Vec<Value>]) -> Vec<Made> {
    if calls.is_empty() {
        return Vec::new();
    }
    let why = match guarded(|| body(calls)).and_then(|made| made) {
        Ok(made) if made.len() == calls.len() => return made,
        // However few they are, its answers belong to nobody.
        Ok(made) => {
            let why = format!("it was given {} calls and made {} answers", calls.len(), made.len());
            return calls.iter().map(|_| Err(why.clone())).collect();
        }
        Err(why) => why,
    };
    if calls.len() == 1 {
        return vec![Err(why)];
    }
    let (first, second) = calls.split_at(calls.len() / 2);
    let mut made = many(body, first);
    made.extend(many(body, second));
    made
}

/// Runs code that may panic.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| format!("it panicked: {}", said(panic.as_ref())))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests;
