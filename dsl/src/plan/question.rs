//! How vertices of one type are asked for by their ids: many in one request, whatever the graph offers for that.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value as Json, json};

/// The largest whole number that a double holds with all below it. A server that reads numbers as doubles, as those in JavaScript
/// do, would take a larger one for another.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// A query for vertices by their ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// The name of its operation, sent as `operationName`.
    pub operation: String,
    /// How it takes the ids.
    pub form: Form,
    /// Response keys that lead from what the root field answers to the vertices: none, `nodes`, or `edges` and `node`.
    pub way: Vec<String>,
    /// The response key of a vertex's id.
    pub key: String,
    /// How the graph takes an id.
    pub sent_as: SentAs,
    /// Further variables, whose values never change.
    pub constants: BTreeMap<String, Json>,
}

/// How a query takes ids.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// One variable takes all of them.
    Together {
        /// The operation as sent.
        query: String,
        /// The variable.
        variable: String,
        /// The response key of the root field.
        root: String,
        /// For `_entities` of a federated graph, which takes a type's name and its key field with each id.
        representation: Option<Representation>,
    },
    /// The root field takes one id: it stands in the operation once for each, under aliases `_0`, `_1`, …
    Apart(Apart),
}

/// What `_entities` takes for a vertex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Representation {
    /// The type.
    pub type_name: String,
    /// Its key field.
    pub key: String,
}

/// The parts of an operation that has its root field once for each id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apart {
    /// Declarations of further variables, each with a comma before it.
    pub declared: String,
    /// The type of an id's variable.
    pub id_type: String,
    /// The root field up to the id's variable, such as `movie(id: `.
    pub before: String,
    /// The root field from behind the id's variable.
    pub after: String,
    /// What is selected of it, with its braces.
    pub selected: String,
    /// Directives of the operation, each with a blank before it.
    pub directives: String,
    /// The fragments of the query.
    pub fragments: String,
}

/// How a graph takes an id, by the type of its variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentAs {
    /// As a string.
    Text,
    /// As a number, if it is one that every server reads exactly; otherwise as a string.
    Number,
}

impl SentAs {
    /// The JSON value of an id.
    pub fn value(self, id: &str) -> Json {
        let number = match self {
            Self::Text => None,
            Self::Number => id.parse::<i64>().ok().filter(|n| n.unsigned_abs() <= MAX_SAFE && n.to_string() == id),
        };
        number.map_or_else(|| Json::from(id), Json::from)
    }
}

impl Question {
    /// The alias that an id's root field has, by the id's place.
    pub fn alias(place: usize) -> String {
        format!("_{place}")
    }

    /// The operation and its variables for some ids.
    pub fn request(&self, ids: &[String]) -> (Cow<'_, str>, Json) {
        let mut variables: Map<String, Json> = self.constants.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        match &self.form {
            Form::Together { query, variable, representation, .. } => {
                let value = |id: &String| match representation {
                    None => self.sent_as.value(id),
                    Some(of) => json!({ "__typename": of.type_name, of.key.as_str(): self.sent_as.value(id) }),
                };
                variables.insert(variable.clone(), ids.iter().map(value).collect());
                (Cow::Borrowed(query), Json::Object(variables))
            }
            Form::Apart(apart) => {
                variables.extend(ids.iter().enumerate().map(|(i, id)| (Self::alias(i), self.sent_as.value(id))));
                (Cow::Owned(apart.query(&self.operation, ids.len())), Json::Object(variables))
            }
        }
    }

    /// The operation as people read it: for one id where each has its own place.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.form {
            Form::Together { query, .. } => Cow::Borrowed(query),
            Form::Apart(apart) => Cow::Owned(apart.query(&self.operation, 1)),
        }
    }
}

impl Apart {
    fn query(&self, operation: &str, ids: usize) -> String {
        let Self { declared, id_type, before, after, selected, directives, fragments } = self;
        let mut out = format!("query {operation}(");
        for i in 0..ids {
            let comma = if i > 0 { ", " } else { "" };
            let _ = write!(out, "{comma}${}: {id_type}", Question::alias(i));
        }
        let _ = writeln!(out, "{declared}){directives} {{");
        // Not as a fragment that stands here once: some servers look for the selected fields themselves, and overlook fragments.
        for i in 0..ids {
            let alias = Question::alias(i);
            let _ = write!(out, "  {alias}: {before}${alias}{after} {selected}");
        }
        let _ = write!(out, "}}\n{fragments}");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sent_as_they_are_taken() {
        assert_eq!(SentAs::Text.value("7"), json!("7"));
        assert_eq!(SentAs::Number.value("7"), json!(7));
        assert_eq!(SentAs::Number.value("-7"), json!(-7));
        assert_eq!(SentAs::Number.value("9007199254740991"), json!(9_007_199_254_740_991_i64));
        for text in ["9007199254740992", "07", "+7", "7.0", "a", ""] {
            assert_eq!(SentAs::Number.value(text), json!(text));
        }
    }

    #[test]
    fn one_root_field_for_each_id() {
        let apart = Apart {
            declared: ", $lang: String = \"en\"".into(),
            id_type: "BigInt!".into(),
            before: "movieById(id: ".into(),
            after: ", lang: $lang)".into(),
            selected: "{ id }\n".into(),
            directives: String::new(),
            fragments: String::new(),
        };
        let question = Question {
            operation: "Movies".into(),
            form: Form::Apart(apart),
            way: Vec::new(),
            key: "id".into(),
            sent_as: SentAs::Number,
            constants: BTreeMap::from([("lang".into(), json!("de"))]),
        };
        let (query, variables) = question.request(&["7".into(), "8".into()]);
        let expected = "query Movies($_0: BigInt!, $_1: BigInt!, $lang: String = \"en\") {\n  \
            _0: movieById(id: $_0, lang: $lang) { id }\n  \
            _1: movieById(id: $_1, lang: $lang) { id }\n}\n";
        assert_eq!(query, expected);
        assert_eq!(variables, json!({ "_0": 7, "_1": 8, "lang": "de" }));
        async_graphql_parser::parse_query(&query).expect("GraphQL");
    }
}
