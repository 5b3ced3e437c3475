//! Pipeline text → checked [`plan::Plan`]. Pure: no I/O, no async runtime; the caller hands in texts and variables.
//!
//! [`parse`] reads `pipeline.yaml` and the GraphQL files it names; the caller then gets the graph's [`Schema`] (a file, or
//! the answer to [`INTROSPECTION_QUERY`]), and [`check()`] holds one against the other. All errors are found in one go, each
//! with its file, line, caret, cause and suggestion.

mod check;
mod definition;
mod diagnostic;
mod keys;
pub mod plan;
mod proposal;
mod query;
mod reference;
mod render;
mod schema;
mod suggest;
mod text;
pub mod written;
mod yaml;

pub use check::{check, check_rules};
pub use definition::{Definition, Prints, StreamPrint, parse};
pub use diagnostic::{Diagnostic, Severity};
pub use proposal::{Known, KnownTable, Proposal, ProposalError, propose_pipeline};
pub use reference::{json_schema, reference_page};
pub use render::{GraphFormat, render_graph, render_plan};
pub use schema::{INTROSPECTION_QUERY, Schema, SchemaError};
pub use yaml::duration;

use std::sync::Arc;
use std::time::Duration;

use tributary_event::{ColumnType, TableName};
use tributary_expression::{Function, FunctionSet, Signature};

/// What a call of a WebAssembly component may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ComponentLimits {
    /// Time.
    pub deadline: Duration,
    /// Bytes of memory.
    pub memory: u64,
}

/// Why a file is no function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The cause.
    pub why: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What a pipeline's text refers to. Implementations read files and the environment; tests hand in maps.
pub trait Inputs {
    /// The text of a file. Paths are relative to the pipeline's file. `Err` says why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;

    /// The value of a variable; `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The functions that programs and steps may call.
    fn functions(&self) -> FunctionSet {
        FunctionSet::default()
    }

    /// The function that the WebAssembly component in a file is, by this signature. Paths are relative to the pipeline's file.
    fn component(&self, path: &str, limits: ComponentLimits, signature: Signature) -> Result<Function, Unusable> {
        let _ = (path, limits, signature);
        Err(Unusable {
            why: "this program was built without WebAssembly".to_owned(),
            remedy: Some("build it with `cargo build --release --features wasm`".to_owned()),
        })
    }

    /// The streams that are written in Rust. They stand behind those of the text.
    fn streams(&self) -> &[written::Stream] {
        &[]
    }

    /// The columns that events of a captured table have; `None` if its source was not asked. Programs of streams that are right whatever
    /// columns hold are taken without them.
    fn columns(&self, table: &TableName) -> Option<Vec<ColumnType>> {
        let _ = table;
        None
    }

    /// The schema of a GraphQL service, by the service's name; `None` if it was not asked.
    fn schema(&self, service: &str) -> Option<Arc<Schema>> {
        let _ = service;
        None
    }
}
