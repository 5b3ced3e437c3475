//! The pipeline as written: every setting read, nothing checked against the graph yet.

use std::collections::BTreeMap;

use crate::Inputs;
use crate::diagnostic::Diagnostic;
use crate::plan::Secret;

/// A pipeline as written.
#[derive(Debug, Clone)]
pub struct Definition {
    endpoint: String,
    headers: BTreeMap<String, Secret>,
    schema_file: Option<String>,
}

impl Definition {
    /// URL of the GraphQL endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Headers for every request to it.
    pub fn headers(&self) -> &BTreeMap<String, Secret> {
        &self.headers
    }

    /// The schema file to check against instead of asking the endpoint; relative to the pipeline's file.
    pub fn schema_file(&self) -> Option<&str> {
        self.schema_file.as_deref()
    }
}

/// Reads a pipeline's text and the GraphQL files it names.
///
/// A definition can come with errors: then it is good enough for finding more of them, and [`crate::check`] refuses it.
pub fn parse(_file_name: &str, _text: &str, _inputs: &dyn Inputs) -> (Option<Definition>, Vec<Diagnostic>) {
    (None, Vec::new())
}
