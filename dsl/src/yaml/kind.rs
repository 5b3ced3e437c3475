//! What can stand behind a key: each kind reads a value, and says what it takes, in words and as JSON Schema.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::key::Keys;
use super::read::{At, Map, Reader, Text};
use super::{MappingKey, Node, Tree, units};
use crate::plan::Secret;

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
const VARIABLE: &str = r"\$\{";

/// The schema of text that follows a pattern, unless a variable is in it.
pub(crate) fn pattern(pattern: &str) -> Json {
    json!({ "type": ["string", "number", "boolean"], "pattern": format!("{pattern}|{VARIABLE}") })
}

/// Text of any form.
pub(crate) struct Line(pub &'static str);

impl Documented for Line {
    fn word(&self) -> String {
        self.0.to_owned()
    }

    fn schema(&self) -> Json {
        json!({ "type": ["string", "number", "boolean"], "minLength": 1 })
    }
}

impl Kind for Line {
    type Value = Text;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Text> {
        r.text(node, at)
    }
}

/// A value of any shape.
pub(crate) struct Any;

impl Documented for Any {
    fn word(&self) -> String {
        "any value".to_owned()
    }

    fn schema(&self) -> Json {
        json!(true)
    }
}

impl Kind for Any {
    type Value = Json;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Json> {
        r.json(node, at)
    }
}

/// The path of a folder.
pub(crate) struct Folder;

impl Documented for Folder {
    fn word(&self) -> String {
        "folder".to_owned()
    }

    fn schema(&self) -> Json {
        Line("").schema()
    }
}

impl Kind for Folder {
    type Value = Cow<'static, str>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        r.text(node, at).map(|text| Cow::Owned(text.value))
    }
}

impl Printed for Folder {
    fn print(&self, value: &Self::Value) -> String {
        value.clone().into_owned()
    }
}

/// Text that is never printed.
pub(crate) struct Hidden;

impl Documented for Hidden {
    fn word(&self) -> String {
        "text, never printed".to_owned()
    }

    fn schema(&self) -> Json {
        Line("").schema()
    }
}

impl Kind for Hidden {
    type Value = Secret;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Secret> {
        r.text(node, at).map(|text| Secret::new(text.value))
    }
}

/// A whole number within bounds.
pub(crate) struct Whole<N> {
    pub least: N,
    pub most: N,
}

impl<N: Display + Sync> Documented for Whole<N> {
    fn word(&self) -> String {
        format!("whole number, {} to {}", self.least, self.most)
    }

    fn schema(&self) -> Json {
        let number = |n: &N| n.to_string().parse::<u64>().unwrap_or(u64::MAX);
        let (least, most) = (number(&self.least), number(&self.most));
        json!({
            "type": ["integer", "string"],
            "minimum": least,
            "maximum": most,
            "pattern": format!(r"^\+?[0-9]+$|{VARIABLE}")
        })
    }
}

impl<N: FromStr + PartialOrd + Display + Sync> Kind for Whole<N> {
    type Value = N;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<N> {
        let text = r.text(node, at)?;
        match text.value.parse::<N>() {
            Ok(number) if self.least <= number && number <= self.most => return Some(number),
            _ if text.value.parse::<i128>().is_ok() => {
                let message = format!("`{}` must be from {} to {}, not {}", at.path, self.least, self.most, text.shown);
                r.error(node.place, message, None);
            }
            _ => {
                let message = format!("`{}` must be a whole number, not `{}`", at.path, text.shown);
                r.error(node.place, message, Some(format!("from {} to {}", self.least, self.most)));
            }
        }
        None
    }
}

impl<N: FromStr + PartialOrd + Display + Sync> Printed for Whole<N> {
    fn print(&self, value: &N) -> String {
        value.to_string()
    }
}

/// A duration.
pub(crate) struct Period {
    pub least: Duration,
}

impl Documented for Period {
    fn word(&self) -> String {
        match self.least {
            Duration::ZERO => "duration".to_owned(),
            least => format!("duration, at least {}", units::print_duration(least)),
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("{}|{VARIABLE}", units::duration_pattern()) })
    }
}

impl Kind for Period {
    type Value = Duration;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Duration> {
        let text = r.text(node, at)?;
        match units::duration(&text.value) {
            Ok(duration) if duration < self.least => {
                let least = units::print_duration(self.least);
                r.error(node.place, format!("`{}` must be at least {least}, not {}", at.path, text.shown), None);
                None
            }
            Ok(duration) => Some(duration),
            Err(help) => {
                r.error(node.place, format!("`{}` must be a duration, not `{}`", at.path, text.shown), Some(help));
                None
            }
        }
    }
}

impl Printed for Period {
    fn print(&self, value: &Duration) -> String {
        units::print_duration(*value)
    }
}

/// A number of bytes within bounds.
pub(crate) struct Size {
    pub least: u64,
    pub most: u64,
}

impl Documented for Size {
    fn word(&self) -> String {
        match (self.least, self.most) {
            (0, u64::MAX) => "size".to_owned(),
            (least, most) => format!("size, {} to {}", units::print_bytes(least), units::print_bytes(most)),
        }
    }

    fn schema(&self) -> Json {
        json!({ "type": "string", "pattern": format!("{}|{VARIABLE}", units::bytes_pattern()) })
    }
}

impl Kind for Size {
    type Value = u64;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<u64> {
        let text = r.text(node, at)?;
        match units::bytes(&text.value) {
            Ok(bytes) if bytes < self.least || bytes > self.most => {
                let (least, most) = (units::print_bytes(self.least), units::print_bytes(self.most));
                let message = format!("`{}` must be from {least} to {most}, not {}", at.path, text.shown);
                r.error(node.place, message, None);
                None
            }
            Ok(bytes) => Some(bytes),
            Err(help) => {
                let message = format!("`{}` must be a size in bytes, not `{}`", at.path, text.shown);
                r.error(node.place, message, Some(help));
                None
            }
        }
    }
}

impl Printed for Size {
    fn print(&self, value: &u64) -> String {
        units::print_bytes(*value)
    }
}

/// The word for a value without limit.
const UNLIMITED: &str = "unlimited";

/// A value, or none at all.
pub(crate) struct Limit<K>(pub K);

impl<K: Documented> Documented for Limit<K> {
    fn word(&self) -> String {
        format!("{}; or `{UNLIMITED}`", self.0.word())
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [{ "const": UNLIMITED }, self.0.schema()] })
    }
}

impl<K: Kind> Kind for Limit<K> {
    type Value = Option<K::Value>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        if r.is_word(node, UNLIMITED) {
            return Some(None);
        }
        let before = r.found.len();
        let value = self.0.read(r, node, at);
        for diagnostic in r.found.iter_mut().skip(before) {
            diagnostic.help = diagnostic.help.take().map(|help| format!("{help}, or `{UNLIMITED}`"));
        }
        value.map(Some)
    }
}

impl<K: Printed> Printed for Limit<K> {
    fn print(&self, value: &Self::Value) -> String {
        value.as_ref().map_or_else(|| UNLIMITED.to_owned(), |value| self.0.print(value))
    }
}

/// One of a few words.
pub(crate) struct Words<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Sync> Documented for Words<T> {
    fn word(&self) -> String {
        self.0.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    }

    fn schema(&self) -> Json {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        json!({ "anyOf": [{ "enum": words }, { "type": "string", "pattern": VARIABLE }] })
    }
}

impl<T: Clone + Sync> Kind for Words<T> {
    type Value = T;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<T> {
        let text = r.text(node, at)?;
        let found = self.0.iter().find(|(word, _)| *word == text.value).map(|(_, value)| value.clone());
        if found.is_none() {
            let names = self.0.iter().map(|(word, _)| *word);
            let help = match self.0 {
                [(only, _)] => Some(format!("write `{only}`")),
                _ => crate::suggest::suggestion(&text.value, names),
            };
            r.error(node.place, format!("`{}` cannot be `{}`", at.path, text.shown), help);
        }
        found
    }
}

impl<T: Clone + PartialEq + Sync> Printed for Words<T> {
    fn print(&self, value: &T) -> String {
        self.0.iter().find(|(_, v)| v == value).map_or_else(String::new, |(word, _)| (*word).to_owned())
    }
}

impl Documented for &'static Keys {
    fn word(&self) -> String {
        "keys".to_owned()
    }

    fn schema(&self) -> Json {
        super::schema::of_keys(self)
    }

    fn inside(&self) -> Inside {
        Inside::Keys(self)
    }
}

impl Kind for &'static Keys {
    type Value = Map;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Map> {
        r.map(node, at, self)
    }
}

/// What keys of the user's choice are.
pub(crate) struct Names {
    /// What stands for one in the reference, such as `<source>`.
    pub mark: &'static str,
    /// What an editor should accept.
    pub pattern: Option<&'static str>,
    /// One of them.
    pub example: &'static str,
}

/// A mapping with keys of the user's choice.
pub(crate) struct Entries {
    pub names: &'static Names,
    pub value: &'static dyn Documented,
    /// Whether there must be one.
    pub some: bool,
}

impl Documented for Entries {
    fn word(&self) -> String {
        format!("`{}:` {}", self.names.mark, self.value.word())
    }

    fn schema(&self) -> Json {
        let mut schema = json!({ "type": "object", "additionalProperties": self.value.schema() });
        schema["propertyNames"] = match self.names.pattern {
            Some(pattern) => json!({ "pattern": pattern, "examples": [self.names.example] }),
            None => json!({ "examples": [self.names.example] }),
        };
        if self.some {
            schema["minProperties"] = json!(1);
        } else {
            schema["type"] = json!(["object", "null"]);
        }
        schema
    }

    fn inside(&self) -> Inside {
        Inside::Entries(self.names, self.value)
    }
}

impl Kind for Entries {
    type Value = Map;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Map> {
        let map = r.entries(node, at)?;
        if self.some && map.entries().is_empty() {
            r.error(map.place, format!("`{}` is empty", at.path), Some(r.such_as(at)));
            return None;
        }
        if let Some(name) = self.unnamed(&map) {
            let message = format!("`{}` needs a name before `{}`", at.path, name.name);
            r.error(name.place, message, Some(r.such_as(at)));
            return None;
        }
        Some(map)
    }
}

impl Entries {
    /// The first key, if all of them are keys of what should stand behind a name.
    fn unnamed<'m>(&self, map: &'m Map) -> Option<&'m MappingKey> {
        let Inside::Keys(keys) = self.value.inside() else { return None };
        let known = |node: &Node| match &node.kind {
            Tree::Mapping(entries) => entries.iter().any(|(key, _)| keys.find(&key.name).is_some()),
            _ => false,
        };
        let all = map.entries().iter().all(|(key, node)| keys.find(&key.name).is_some() && !known(node));
        map.entries().first().filter(|_| all).map(|(key, _)| key)
    }
}

/// A list.
pub(crate) struct Items {
    pub value: &'static dyn Documented,
    /// Whether there must be one.
    pub some: bool,
}

impl Documented for Items {
    fn word(&self) -> String {
        format!("list of {}s", self.value.word())
    }

    fn schema(&self) -> Json {
        let mut schema = json!({ "type": "array", "items": self.value.schema() });
        if self.some {
            schema["minItems"] = json!(1);
        }
        schema
    }

    fn inside(&self) -> Inside {
        Inside::Items(self.value)
    }
}

impl Kind for Items {
    type Value = Vec<Arc<Node>>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        let items = r.list(node, at)?;
        if self.some && items.is_empty() {
            r.error(node.place, format!("`{}` is empty", at.path), Some(r.such_as(at)));
            return None;
        }
        Some(items)
    }
}
