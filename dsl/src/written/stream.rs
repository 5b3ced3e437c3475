//! A stream that is written in Rust.

use std::panic::Location;

use tributary_expression::function::{Argument, Outcome, read};
use tributary_expression::{Function, FunctionSet, Signature};

use super::step::{Call, Enrich, Lookup};
use super::{Sink, Written};

/// A stream. Its steps run one after the other; what is wrong with it is told by `check`, as of one in YAML, with the line of Rust.
#[derive(Debug, Clone)]
pub struct Stream {
    name: String,
    definition: Written,
    functions: FunctionSet,
    /// Why functions could not be added.
    problems: Vec<String>,
}

/// Something that defines a stream: what `#[tributary::stream]` is written on.
pub trait Defined {
    /// The stream.
    fn stream() -> Stream;
}

impl Stream {
    /// A stream of this name, of which nothing else is known.
    #[track_caller]
    pub fn named(name: impl Into<String>) -> Self {
        let (functions, problems) = (FunctionSet::default(), Vec::new());
        Self { name: name.into(), definition: Written::keys(), functions, problems }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What functions of its own could not be added, and why.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    pub(crate) fn definition(&self) -> &Written {
        &self.definition
    }

    pub(crate) fn functions(&self) -> &FunctionSet {
        &self.functions
    }

    /// Any key of `streams.<stream>`.
    #[track_caller]
    pub fn with(mut self, key: &str, value: impl Into<Written>) -> Self {
        self.definition.put(key, value.into());
        self
    }

    /// The table whose changes flow, or several.
    #[track_caller]
    pub fn from(self, tables: impl Into<Written>) -> Self {
        self.with("from", tables)
    }

    /// The stream whose events flow. It stands before this one.
    #[track_caller]
    pub fn from_stream(self, name: &str) -> Self {
        self.with("from", Written::keys().with("stream", name))
    }

    /// The topic of somebody else whose records flow.
    #[track_caller]
    pub fn from_topic(self, name: &str) -> Self {
        self.with("from", Written::keys().with("topic", name))
    }

    /// Which changes flow, by their letters: `["c", "u"]`.
    #[track_caller]
    pub fn ops<const N: usize>(self, letters: [&str; N]) -> Self {
        self.with("ops", letters)
    }

    /// Where it begins when it never ran: `now`, or `first`.
    #[track_caller]
    pub fn start(self, start: &str) -> Self {
        self.with("start", start)
    }

    /// What becomes of an event that a step fails for: `stop`, or `dead_letter`.
    #[track_caller]
    pub fn on_error(self, what: &str) -> Self {
        self.with("on_error", what)
    }

    /// A step of any kind: its key under `steps`, and what stands there.
    #[track_caller]
    pub fn step(mut self, kind: &str, value: impl Into<Written>) -> Self {
        self.definition.push("steps", Written::keys().with(kind, value));
        self
    }

    /// One more key of the last step: its `name`, or its own `on_error`.
    #[track_caller]
    pub fn and(mut self, key: &str, value: impl Into<Written>) -> Self {
        let value = value.into();
        if let super::Form::Keys(entries) = &mut self.definition.form
            && let Some((_, steps)) = entries.iter_mut().find(|(name, _)| name == "steps")
            && let super::Form::List(steps) = &mut steps.form
            && let Some(step) = steps.last_mut()
        {
            step.put(key, value);
        }
        self
    }

    /// Updates flow on only if one of these columns changed.
    #[track_caller]
    pub fn changed<const N: usize>(self, columns: [&str; N]) -> Self {
        self.step("changed", columns)
    }

    /// Events of which this program is not true end here.
    #[track_caller]
    pub fn filter(self, program: impl Into<Written>) -> Self {
        self.step("filter", program)
    }

    /// What this program leaves flows on.
    #[track_caller]
    pub fn transform(self, program: impl Into<Written>) -> Self {
        self.step("transform", program)
    }

    /// Something is added that a service knows.
    #[track_caller]
    pub fn enrich(self, enrich: Enrich) -> Self {
        self.step("enrich", enrich)
    }

    /// Something is added that a table has.
    #[track_caller]
    pub fn lookup(self, lookup: Lookup) -> Self {
        self.step("lookup", lookup)
    }

    /// An event becomes one for each element of a list.
    #[track_caller]
    pub fn split(self, each: &str, into: &str) -> Self {
        self.step("split", Written::keys().with("each", each).with("into", into))
    }

    /// A function is called.
    #[track_caller]
    pub fn call(self, call: Call) -> Self {
        let (written, function) = call.into_parts();
        let with = match function {
            Some(function) => self.function(function),
            None => self,
        };
        with.step("call", written)
    }

    /// What this makes of an event takes its place. It answers an object: `Json` of whatever serde can write, or a `Result` of it.
    #[track_caller]
    pub fn map<A, R>(self, map: impl Fn(A) -> R + Send + Sync + 'static) -> Self
    where
        A: for<'v> Argument<'v>,
        R: Outcome,
    {
        let name = format!("map_{}", self.next());
        self.by("transform", of_event(&name, map), &[])
    }

    /// Events of which this is not true end here.
    #[track_caller]
    pub fn filter_by<A, R>(self, filter: impl Fn(A) -> R + Send + Sync + 'static) -> Self
    where
        A: for<'v> Argument<'v>,
        R: Outcome,
    {
        let name = format!("filter_{}", self.next());
        self.by("filter", of_event(&name, filter), &[])
    }

    /// A step, a `filter` or a `transform`, that a function of this stream does: it is given the event, and what lies in it under these names.
    #[track_caller]
    pub fn by(self, kind: &str, function: Function, names: &[&str]) -> Self {
        let (name, can_fail) = (function.name(), function.can_fail());
        let given: Vec<String> =
            std::iter::once(".".to_owned()).chain(names.iter().map(|name| format!(".{name}"))).collect();
        let with = self.function(function);
        if kind == "filter" {
            let mark = if can_fail { "!" } else { "" };
            return with.step("filter", format!("{name}{mark}({})", given.join(", ")));
        }
        let call = Written::keys().with("function", name);
        with.step("call", if names.is_empty() { call } else { call.with("with", given) })
    }

    /// A function that this stream alone may call; it holds where there is another one of its name.
    #[track_caller]
    pub fn function(mut self, function: Function) -> Self {
        let same = self.functions.get(function.name()).is_some_and(|known| known.to_string() == function.to_string());
        if !same && let Err(problem) = self.functions.add(function) {
            let at = Location::caller();
            self.problems.push(format!("{}:{}: stream {}: {problem}", at.file(), at.line(), self.name));
        }
        self
    }

    /// Where events go.
    #[track_caller]
    pub fn to(self, sink: impl Into<Sink>) -> Self {
        let sink: Sink = sink.into();
        self.sink(sink)
    }

    /// Where events go, as a pipeline's text has it under `to`.
    #[track_caller]
    pub fn sink(mut self, sink: impl Into<Written>) -> Self {
        self.definition.push("to", sink.into());
        self
    }

    /// The number of the next step.
    fn next(&self) -> usize {
        self.definition.listed("steps").len() + 1
    }
}

/// A function of one parameter, the event.
fn of_event<A, R>(name: &str, body: impl Fn(A) -> R + Send + Sync + 'static) -> Function
where
    A: for<'v> Argument<'v>,
    R: Outcome,
{
    let signature = Signature::new(name).parameter("event", A::takes());
    let signature = signature.answers(R::answers(), R::CAN_FAIL || A::CAN_FAIL);
    signature.each(move |arguments| body(read::<A>("event", arguments, 0)?).made())
}
