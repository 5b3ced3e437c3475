//! What can stand behind a key: each kind reads a value, and says what it takes, in words and as JSON Schema.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::Node;
use super::collections::Names;
use super::key::Keys;
use super::read::{At, Reader};

/// A kind of value, as the reference sees it.
pub(crate) trait Documented: Sync {
    /// In words, as Markdown.
    fn word(&self) -> String;
    /// What an editor should accept.
    fn schema(&self) -> Json;
    /// What is inside of it.
    fn inside(&self) -> Inside {
        Inside::Nothing
    }
}

/// What is inside of a value.
pub(crate) enum Inside {
    Nothing,
    /// These keys.
    Keys(&'static Keys),
    /// Keys of the user's choice, each with such a value.
    Entries(&'static Names, &'static dyn Documented),
    /// Such values.
    Items(&'static dyn Documented),
}

/// A kind of value, as the reader sees it.
pub(crate) trait Kind: Documented {
    type Value;
    /// `None`: it is wrong, which is noted.
    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value>;
}

/// A kind whose values can be defaults.
pub(crate) trait Printed: Kind {
    /// The value as it would be written.
    fn print(&self, value: &Self::Value) -> String;
}

/// What a value may hold besides what it is: a variable.
pub(super) const VARIABLE: &str = r"\$\{";

/// The schema of text that follows a pattern, unless a variable is in it.
pub(crate) fn pattern(pattern: &str) -> Json {
    json!({ "type": ["string", "number", "boolean"], "pattern": format!("{pattern}|{VARIABLE}") })
}
