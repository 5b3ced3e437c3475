//! Steps that have keys of their own. Each takes any key by `with`.

use tributary_expression::Function;
use tributary_expression::function::Declared;

use super::Written;

/// A program, which stands where this is called.
#[track_caller]
pub fn vrl(program: &str) -> Written {
    program.into()
}

macro_rules! keyed {
    ($($step:ident),*) => {$(
        impl $step {
            /// Any key that it has in a pipeline's text.
            #[track_caller]
            pub fn with(mut self, key: &str, value: impl Into<Written>) -> Self {
                self.0.put(key, value.into());
                self
            }
        }

        impl From<$step> for Written {
            fn from(step: $step) -> Self {
                step.0
            }
        }
    )*};
}

pub(super) use keyed;

keyed!(Enrich, Lookup);

/// What a service is asked for.
#[derive(Debug, Clone)]
pub struct Enrich(Written);

impl Enrich {
    /// A GraphQL service, by its name under `services`, and the file with the query of one variable.
    #[track_caller]
    pub fn graphql(service: &str, query: &str) -> Self {
        Self(Written::keys().with("service", service).with("query", query))
    }

    /// Another service, and the request: `GET /movies/{key}`.
    #[track_caller]
    pub fn rest(service: &str, request: &str) -> Self {
        Self(Written::keys().with("service", service).with("request", request))
    }

    /// What is asked for, in VRL.
    #[track_caller]
    pub fn key(self, program: impl Into<Written>) -> Self {
        self.with("key", program)
    }

    /// Where the answer is put.
    #[track_caller]
    pub fn into(self, path: &str) -> Self {
        self.with("into", path)
    }

    /// How long answers are kept: `30s`.
    #[track_caller]
    pub fn cache(self, ttl: impl Into<Written>) -> Self {
        self.with("cache", Written::keys().with("ttl", ttl))
    }
}

/// What a table is asked for.
#[derive(Debug, Clone)]
pub struct Lookup(Written);

impl Lookup {
    /// A table, by its name under `tables`.
    #[track_caller]
    pub fn table(table: &str) -> Self {
        Self(Written::keys().with("table", table))
    }

    /// What is looked for, in VRL.
    #[track_caller]
    pub fn key(self, program: impl Into<Written>) -> Self {
        self.with("key", program)
    }

    /// Where what is found is put.
    #[track_caller]
    pub fn into(self, path: &str) -> Self {
        self.with("into", path)
    }
}

/// A call of a function.
#[derive(Debug, Clone)]
pub struct Call {
    written: Written,
    function: Option<Function>,
}

impl Call {
    /// A function that `#[tributary::function]` is written on.
    #[track_caller]
    pub fn of<F: Declared>() -> Self {
        let function = F::function();
        Self { written: Written::keys().with("function", function.name()), function: Some(function) }
    }

    /// A function, by its name.
    #[track_caller]
    pub fn named(name: &str) -> Self {
        Self { written: Written::keys().with("function", name), function: None }
    }

    /// One more argument, in VRL. Without any it is given the event.
    #[track_caller]
    pub fn with(mut self, program: impl Into<Written>) -> Self {
        self.written.push("with", program.into());
        self
    }

    /// Where the answer is put. Without this it takes the event's place.
    #[track_caller]
    pub fn into(mut self, path: &str) -> Self {
        self.written.put("into", path.into());
        self
    }

    pub(super) fn into_parts(self) -> (Written, Option<Function>) {
        (self.written, self.function)
    }
}
