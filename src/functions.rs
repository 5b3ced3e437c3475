//! What a program of a user's own adds to the command: functions that programs and steps of pipelines call, and streams that are written in
//! Rust. The commands know them as they know what a pipeline's text says.

use std::panic::Location;

use tributary_dsl::written::{Defined, Stream};
pub use tributary_expression::function::{
    Answers, Argument, Change, Declared, Json, Outcome, Parameter, Type, each_read, read,
};
pub use tributary_expression::{Function, FunctionSet, Made, Signature, Value};

/// Functions and streams of a user. What is wrong with one is told before a command begins.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    functions: FunctionSet,
    streams: Vec<Stream>,
    problems: Vec<String>,
}

impl Functions {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the function of this name that `#[tributary::function]` is written on.
    #[track_caller]
    pub fn function<F: Declared>(self) -> Self {
        self.with(F::function())
    }

    /// Adds a function that was made by hand.
    #[track_caller]
    pub fn with(mut self, function: Function) -> Self {
        if let Err(problem) = self.functions.add(function) {
            let at = Location::caller();
            self.problems.push(format!("{}:{}: {problem}", at.file(), at.line()));
        }
        self
    }

    /// Adds the stream that `#[tributary::stream]` is written on.
    pub fn stream<S: Defined>(self) -> Self {
        self.with_stream(S::stream())
    }

    /// Adds a stream. Streams of Rust stand behind those of a pipeline's text, in the order in which they are added.
    pub fn with_stream(mut self, stream: Stream) -> Self {
        self.problems.extend_from_slice(stream.problems());
        self.streams.push(stream);
        self
    }

    /// The functions.
    pub fn functions(&self) -> &FunctionSet {
        &self.functions
    }

    /// The streams.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// What is wrong with them, each with its place in Rust.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }
}
