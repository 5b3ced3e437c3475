//! Errors as GraphQL servers report them, and what they mean for the caller. Pure.

use serde::Deserialize;
use serde_json::Value as Json;
use tributary_event::ErrorClass;

use crate::graph::GraphError;

/// An error as a GraphQL server reports it (GraphQL specification, section 7.1.2).
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct ServerError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    path: Option<Vec<Json>>,
    #[serde(default)]
    extensions: Option<Json>,
}

/// Why a request gave no usable answer, by what a caller can do about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Trouble {
    /// It asked for too much at once: ask for less. `Definite` for a single vertex.
    TooMuch(GraphError),
    /// It took too long: ask for less. `Transient` for a single vertex.
    TooSlow(GraphError),
    /// Some vertex of the batch is at fault, and the answer does not say which: ask for less.
    Unclear(GraphError),
    /// What came back is no GraphQL answer. If the server answers other questions, some vertex of the batch is at fault: ask
    /// for less then.
    Unreadable(GraphError),
    /// The server rejects the query, or us, in the GraphQL way: whatever is asked for.
    Rejected(GraphError),
    /// It is not about the vertices asked for.
    Whole(GraphError),
}

impl Trouble {
    fn error(&mut self) -> &mut GraphError {
        match self {
            Self::TooMuch(e)
            | Self::TooSlow(e)
            | Self::Unclear(e)
            | Self::Unreadable(e)
            | Self::Rejected(e)
            | Self::Whole(e) => e,
        }
    }

    /// Adds what the server said.
    pub(super) fn because(mut self, said: &str) -> Self {
        self.error().message.push_str(&format!("; {said}"));
        self
    }

    pub(super) fn into_error(mut self) -> GraphError {
        let error = self.error();
        GraphError::new(error.class, std::mem::take(&mut error.message))
    }
}

/// How much a class decides among several errors.
pub(super) fn rank(class: ErrorClass) -> u8 {
    match class {
        ErrorClass::Definite => 0,
        ErrorClass::Transient => 1,
        ErrorClass::Fatal => 2,
    }
}

/// The error that decides among several about the same vertex: fatal, then one that may pass, then a definite one.
pub(super) fn worst(errors: &[ServerError], place: &str) -> GraphError {
    let worst = errors.iter().rev().max_by_key(|e| rank(e.class()));
    worst.map_or_else(|| GraphError::new(ErrorClass::Transient, place), |e| e.describe(place))
}

/// Messages of servers about a query that no longer fits their schema: graphql-js and its kin, async-graphql, graphql-ruby,
/// graphql-java, Hot Chocolate, Hasura, Ariadne.
const SCHEMA: &[&str] = &[
    "cannot query field",
    "unknown field",
    "unknown argument",
    "unknown type",
    "unknown directive",
    "unknown operation",
    "unknown fragment",
    "doesn't exist on type",
    "doesn't accept argument",
    "does not exist on",
    "not found in type",
    "fieldundefined",
    "unknownargument",
    "unknowntype",
    "syntax error:",
    "must have a selection",
    "must not have a selection",
    "nested too deep",
    "maximum depth",
    "max depth",
    "depth limit",
];

impl ServerError {
    fn code(&self) -> String {
        let code = self.extensions.as_ref().and_then(|e| e.get("code")).and_then(Json::as_str);
        code.unwrap_or_default().to_ascii_uppercase().replace(['-', ' '], "_")
    }

    pub(super) fn class(&self) -> ErrorClass {
        match self.code().as_str() {
            _ if self.refuses() && self.names_vertex() => ErrorClass::Transient,
            _ if self.refuses() => ErrorClass::Fatal,
            "GRAPHQL_VALIDATION_FAILED" | "GRAPHQL_PARSE_FAILED" => ErrorClass::Fatal,
            "NOT_FOUND" | "BAD_USER_INPUT" => ErrorClass::Definite,
            _ => ErrorClass::Transient,
        }
    }

    /// Whether the server does not let us have what was asked for.
    fn refuses(&self) -> bool {
        matches!(self.code().as_str(), "UNAUTHENTICATED" | "UNAUTHORIZED" | "FORBIDDEN" | "ACCESS_DENIED")
    }

    /// Whether its path leads to one vertex: into a list, or to the alias of one id.
    fn names_vertex(&self) -> bool {
        let alias = |root: &str| root.strip_prefix('_').is_some_and(|n| n.parse::<usize>().is_ok());
        self.path.as_ref().is_some_and(|path| path.iter().any(Json::is_u64)) || self.root().is_some_and(alias)
    }

    pub(super) fn names_schema(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        SCHEMA.iter().any(|words| message.contains(words))
    }

    pub(super) fn rejects_query(&self) -> bool {
        matches!(self.code().as_str(), "GRAPHQL_VALIDATION_FAILED" | "GRAPHQL_PARSE_FAILED")
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.code() == "NOT_FOUND"
    }

    /// Whether it says of a vertex itself, `depth` steps deep, that there is none (not of something within it).
    pub(super) fn denies(&self, depth: usize) -> bool {
        self.is_not_found() && self.has_path() && self.path.as_ref().is_some_and(|p| p.len() <= depth)
    }

    /// Whether the request as a whole is refused as too large. (With a path, a field says something about its own content.)
    pub(super) fn is_too_much(&self) -> bool {
        if self.has_path() {
            return false;
        }
        let (code, message) = (self.code(), self.message.to_ascii_lowercase());
        let cost =
            message.contains("cost") && ["exceed", "maximum", "limit", "too "].iter().any(|w| message.contains(w));
        ["COMPLEX", "TOO_LARGE", "COST_LIMIT", "COST_EXCEEDED", "MAX_COST"].iter().any(|c| code.contains(c))
            || message.contains("too complex")
            || message.contains("complexity")
            || message.contains("too large")
            || message.contains("too many ids")
            || cost
    }

    pub(super) fn is_too_slow(&self) -> bool {
        let code = self.code();
        code.contains("TIMEOUT") || code.contains("TIMED_OUT") || code.contains("DEADLINE_EXCEEDED")
    }

    pub(super) fn is_throttling(&self) -> bool {
        let code = self.code();
        code.contains("RATE_LIMIT") || code.contains("THROTTLED") || code == "TOO_MANY_REQUESTS"
    }

    pub(super) fn has_path(&self) -> bool {
        self.path.as_ref().is_some_and(|p| !p.is_empty())
    }

    /// Whether the server refuses introspection.
    pub(super) fn forbids_introspection(&self) -> bool {
        let message = self.message.to_ascii_lowercase();
        message.contains("introspection") || message.contains("__schema")
    }

    /// The index in the list of vertices that the error lies under, and whether it lies deeper than the vertex itself. The list
    /// is where the first index is on the way from the root field to the vertices.
    pub(super) fn under(&self, root: &str, way: &[String]) -> Option<(usize, bool)> {
        let path = self.path.as_ref()?;
        let at = path.iter().position(Json::is_u64)?;
        let steps = [root].into_iter().chain(way.iter().map(String::as_str));
        if at == 0 || at > way.len() + 1 || !path[..at].iter().zip(steps).all(|(a, b)| a.as_str() == Some(b)) {
            return None;
        }
        let index = usize::try_from(path[at].as_u64()?).ok()?;
        Some((index, path.len() > way.len() + 2))
    }

    /// The root field that the error lies under.
    pub(super) fn root(&self) -> Option<&str> {
        self.path.as_ref()?.first()?.as_str()
    }

    /// What the server said, and where.
    pub(super) fn said(&self, place: &str) -> String {
        format!("{place}: {}", self.words())
    }

    /// What the server said.
    pub(super) fn words(&self) -> String {
        let message = if self.message.is_empty() { "an error without a message" } else { &self.message };
        let mut said = excerpt(message);
        if let Some(path) = self.path.as_deref().filter(|p| !p.is_empty()) {
            let steps: Vec<String> =
                path.iter().map(|s| s.as_str().map_or_else(|| s.to_string(), str::to_owned)).collect();
            said.push_str(&format!(" (at {})", steps.join(".")));
        }
        let code = self.code();
        if !code.is_empty() {
            said.push_str(&format!(" [{}]", excerpt(&code)));
        }
        said
    }

    pub(super) fn describe(&self, place: &str) -> GraphError {
        if self.rejects_query() {
            return self.rejection(place);
        }
        let said = self.said(place);
        let remedy = if self.refuses() { " (the graph refuses us; check graph.headers)" } else { "" };
        GraphError::new(self.class(), format!("{said}{remedy}"))
    }

    pub(super) fn rejection(&self, place: &str) -> GraphError {
        let said = self.said(place);
        let message =
            format!("the server rejects the query: {said} (the schema may have changed; run `tributary check`)");
        GraphError::new(ErrorClass::Fatal, message)
    }
}

/// The beginning of a text, on one line.
pub(super) fn excerpt(text: &str) -> String {
    const MOST: usize = 500;
    let line: Vec<&str> = text.split_whitespace().collect();
    let line = line.join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain(['…']).collect() }
}

/// The first bytes of an answer as they came, on one line: control characters are escaped, what is no UTF-8 is replaced.
pub(super) fn verbatim(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let beginning = String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]);
    let escaped =
        beginning.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    let more = if bytes.len() > MOST { "…" } else { "" };
    escaped.chain([more.to_owned()]).collect()
}
