//! The steps of a stream.

use std::fmt;
use std::time::Duration;

use tributary_expression::{Function, Path, Program};

/// One step, and its name.
#[derive(Debug, Clone)]
pub struct Step {
    /// What messages and metrics call it: `filter-1`, or the name it was given.
    pub name: String,
    /// What it does.
    pub plan: StepPlan,
    /// What becomes of an event that it fails for, where that is not what the stream says.
    pub on_error: Option<OnError>,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum StepPlan {
    /// Updates flow on only if one of these columns changed.
    Changed(Vec<String>),
    /// Events of which it is not true end here.
    Filter(Program),
    /// What it leaves flows on.
    Transform(Program),
    /// Something is added that a service knows.
    Enrich(Box<EnrichPlan>),
    /// Something is added that a table has.
    Lookup(Box<LookupPlan>),
    /// A function of the user is called.
    Call(Box<FunctionPlan>),
    /// An event ends here whose key was seen a short while before.
    Dedupe(Box<DedupePlan>),
    /// Of the events of a key that come within a time only the last flows on.
    Collapse(Box<CollapsePlan>),
    /// An event becomes one for each element of a list.
    Split {
        /// The list.
        each: Path,
        /// Where the element is put; none: it replaces the event.
        into: Path,
    },
}

impl StepPlan {
    /// What its name begins with.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Changed(_) => "changed",
            Self::Filter(_) => "filter",
            Self::Transform(_) => "transform",
            Self::Enrich(_) => "enrich",
            Self::Lookup(_) => "lookup",
            Self::Call(_) => "call",
            Self::Split { .. } => "split",
            Self::Dedupe(_) => "dedupe",
            Self::Collapse(_) => "collapse",
        }
    }

    /// Whether what flows on is another event than what came. Otherwise it flows on as it is, or not at all.
    pub fn changes(&self) -> bool {
        !matches!(self, Self::Filter(_) | Self::Changed(_) | Self::Dedupe(_) | Self::Collapse(_))
    }

    /// Its programs.
    pub fn programs(&self) -> &[Program] {
        match self {
            Self::Filter(program) | Self::Transform(program) => std::slice::from_ref(program),
            Self::Enrich(enrich) => std::slice::from_ref(&enrich.key),
            Self::Lookup(lookup) => std::slice::from_ref(&lookup.key),
            Self::Call(call) => &call.with,
            Self::Dedupe(dedupe) => std::slice::from_ref(&dedupe.by),
            Self::Collapse(collapse) => std::slice::from_ref(&collapse.by),
            Self::Changed(_) | Self::Split { .. } => &[],
        }
    }
}

/// What becomes of an event that something fails for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Its partition stands still until somebody has done something.
    Stop,
    /// It is set aside, and later events of its key after it.
    DeadLetter,
}

/// Something is added that a service knows.
#[derive(Debug, Clone)]
pub struct EnrichPlan {
    /// The service that is asked.
    pub service: String,
    /// How.
    pub call: CallPlan,
    /// What is asked for.
    pub key: Program,
    /// Where the answer is put.
    pub into: Path,
    /// How keys are asked for together.
    pub batch: BatchSettings,
    /// How long answers are kept; none: each is asked for.
    pub cache: Option<CacheSettings>,
    /// What becomes of an event whose key the service does not know.
    pub missing: Missing,
}

/// Something is added that a table has.
#[derive(Debug, Clone)]
pub struct LookupPlan {
    /// The table.
    pub table: String,
    /// What is looked for.
    pub key: Program,
    /// Where what is found is put.
    pub into: Path,
    /// What becomes of an event whose key it does not have.
    pub missing: Missing,
    /// Which state of the table an event sees.
    pub wait: Wait,
}

/// Which state of a table an event sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// That of the moment.
    Nothing,
    /// One that has all changes that its source made before the event's own.
    Position,
}

/// A function of the user is called.
#[derive(Debug, Clone)]
pub struct FunctionPlan {
    /// Which.
    pub function: Function,
    /// What it is given.
    pub with: Vec<Program>,
    /// Where its answer is put; the root: it takes the event's place.
    pub into: Path,
}

/// An event ends here whose key was seen a short while before.
#[derive(Debug, Clone)]
pub struct DedupePlan {
    /// The key. Events of which it is null flow on.
    pub by: Program,
    /// So long a key is remembered after it was seen last.
    pub within: Duration,
    /// Bytes that the keys of one partition may take.
    pub limit: u64,
}

/// Of the events of a key that come within a time only the last flows on.
#[derive(Debug, Clone)]
pub struct CollapsePlan {
    /// The key. Events of which it is null flow on.
    pub by: Program,
    /// The time, in the events' own times, from the first of them.
    pub period: Duration,
    /// The same by the clock, for what no event follows.
    pub patience: Duration,
    /// Events of one partition that are held at most.
    pub keys: usize,
    /// Bytes of their records at most.
    pub limit: u64,
}

/// How a service is asked for keys.
#[derive(Clone)]
pub enum CallPlan {
    /// A GraphQL query of one variable.
    Graphql {
        /// Its text.
        query: String,
        /// The name of the operation, if it has one.
        operation: Option<String>,
        /// The variable that takes the key, or the list of keys.
        variable: String,
        /// Whether it takes a list.
        is_list: bool,
        /// Where the answer lies in `data`: names of fields, from the outside in.
        each: Vec<String>,
        /// Where an element of the answer has its key, if keys are asked for together.
        matched: Vec<String>,
    },
    /// A request whose body and answer are JSON.
    Rest {
        /// `GET`, `POST` or `PUT`.
        method: String,
        /// The path behind the service's URL, in which `{key}` stands for the key.
        path: String,
        /// Method and path as they are written: with the names of variables, whose values may be secret.
        shown: String,
        /// The body, of `.keys` or `.key`; none: nothing is sent.
        body: Option<Box<Program>>,
        /// Whether keys are asked for together.
        is_list: bool,
        /// Where the answer lies: names of fields, from the outside in.
        each: Vec<String>,
        /// Where an element of the answer has its key, if keys are asked for together.
        matched: Vec<String>,
    },
}

/// Without the path, in which variables have their values.
impl fmt::Debug for CallPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (each, matched) = match self {
            Self::Graphql { query, operation, variable, is_list, each, matched } => {
                write!(f, "Graphql {query:?} {operation:?} {variable:?} {is_list}")?;
                (each, matched)
            }
            Self::Rest { method: _, path: _, shown, body, is_list, each, matched } => {
                write!(f, "Rest {shown:?} {body:?} {is_list}")?;
                (each, matched)
            }
        };
        write!(f, " {each:?} {matched:?}")
    }
}

impl CallPlan {
    /// Whether keys are asked for together.
    pub fn is_list(&self) -> bool {
        match self {
            Self::Graphql { is_list, .. } | Self::Rest { is_list, .. } => *is_list,
        }
    }
}

/// How keys are asked for together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// So many at most.
    pub max: usize,
    /// How long the first waits for others.
    pub linger: Duration,
}

/// How long answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    /// What the service knew.
    pub ttl: Duration,
    /// That it knew nothing.
    pub missing: Duration,
    /// Bytes that they may take, about.
    pub max: u64,
    /// Whether they fall when a captured change names a vertex that they hold.
    pub changes: bool,
}

/// What becomes of an event whose key is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It flows on with null.
    Keep,
    /// It ends here.
    Drop,
    /// As if the step had failed.
    Error,
}
