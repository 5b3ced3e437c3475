//! Reads a tree into settings: known keys only, variables filled in, units understood; every mistake noted, none fatal.

use std::sync::Arc;

use tributary_expression::FunctionSet;

use super::key::{Is, Key, Keys, Means, Required, written};
use super::kind::{Kind, Printed};
use super::variables::fill;
use super::{Map, MappingKey, Node, Place, Tree, spot};
use crate::Inputs;
use crate::diagnostic::{Diagnostic, Spot};

use crate::text::SourceText;

/// Reads nodes of a pipeline's text, and of streams that are written in Rust.
pub(crate) struct Reader<'a> {
    pub text: Arc<SourceText>,
    /// The texts of values that are written in Rust.
    pub others: Vec<Arc<SourceText>>,
    pub inputs: &'a dyn Inputs,
    pub found: Vec<Diagnostic>,
    /// The outermost keys.
    pub root: &'static Keys,
    /// What programs may call where it is read.
    pub functions: FunctionSet,
}

/// Where a value stands, and what could stand there.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// What it is, such as `sources.studio.postgres`.
    pub path: &'a str,
    /// The key that it stands behind, if it is no item of a list.
    pub key: Option<&'a MappingKey>,
    /// A value that is accepted, as YAML.
    pub example: &'a str,
}

impl At<'_> {
    /// What is pointed at where a value has nothing in it.
    pub(super) fn place(self, node: &Node) -> Place {
        self.key.map_or(node.place, |key| key.place)
    }
}

/// A text value.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// With variables filled in.
    pub value: String,
    /// As written: what may be printed.
    pub shown: String,
    pub spot: Spot,
    /// Where all of it stands.
    pub place: Place,
}

impl Reader<'_> {
    pub fn spot(&self, place: Place) -> Spot {
        spot(self.text_of(place), place)
    }

    /// The text that a place is in.
    pub fn text_of(&self, place: Place) -> &Arc<SourceText> {
        place.text.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.text)
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        let diagnostic = self.spot(place).error(message).maybe_help(help);
        self.found.push(diagnostic);
    }

    /// The value of a key that must be there.
    pub fn required<K: Kind>(&mut self, map: &Map, key: &Key<K, Required>) -> Option<K::Value> {
        self.needed(map, key)
    }

    /// The value of a key that must be there because of what else is.
    pub fn needed<K: Kind, L>(&mut self, map: &Map, key: &Key<K, L>) -> Option<K::Value> {
        if let Some(found) = map.entry(key.name) {
            return self.entry(map, found, &key.kind, key.example);
        }
        if !map.misspelt.iter().any(|name| name == key.name) {
            let help = remedy("add", key.name, key.example);
            self.error(map.place, format!("`{}` is missing{}", key.name, map.within()), Some(help));
        }
        None
    }

    /// The value of a key; `None` if it is left out, or wrong.
    pub fn optional<K: Kind>(&mut self, map: &Map, key: &Key<K, Means>) -> Option<K::Value> {
        let found = map.entry(key.name)?;
        self.entry(map, found, &key.kind, key.example)
    }

    /// The value of a key, or its default where it is left out, or wrong.
    pub fn value<K: Printed<Value = V>, V: Clone>(&mut self, map: &Map, key: &Key<K, Is<V>>) -> V {
        let found = map.entry(key.name).and_then(|found| self.entry(map, found, &key.kind, key.example));
        found.unwrap_or_else(|| key.left_out.0.clone())
    }

    /// The value of a key of the user's choice, or of one of ours.
    pub fn entry<K: Kind>(
        &mut self,
        map: &Map,
        (key, node): &(MappingKey, Arc<Node>),
        kind: &K,
        example: &str,
    ) -> Option<K::Value> {
        let path = map.path_of(&key.name);
        kind.read(self, node, At { path: &path, key: Some(key), example })
    }

    pub fn list(&mut self, node: &Node, at: At) -> Option<Vec<Arc<Node>>> {
        match &node.kind {
            Tree::Sequence(items) => Some(items.clone()),
            Tree::Null => {
                let help = self.such_as(at);
                self.error(at.place(node), format!("`{}` is empty", at.path), Some(help));
                None
            }
            other => {
                let help = self.such_as(at);
                self.error(node.place, format!("`{}` must be a list, not {}", at.path, word(other)), Some(help));
                None
            }
        }
    }

    /// Text, with variables filled in; empty text is refused.
    pub fn text(&mut self, node: &Node, at: At) -> Option<Text> {
        let written = match &node.kind {
            Tree::Scalar(written) => written,
            Tree::Null => {
                let help = self.such_as(at);
                self.error(at.place(node), format!("`{}` has no value", at.path), Some(help));
                return None;
            }
            other => {
                let help = match other {
                    Tree::Mapping(_) => "text with braces is written in quotes: \"{…}\"".to_owned(),
                    _ => self.such_as(at),
                };
                self.error(
                    node.place,
                    format!("`{}` must be a single value, not {}", at.path, word(other)),
                    Some(help),
                );
                return None;
            }
        };
        match fill(written, |name| self.inputs.variable(name)) {
            Ok(filled) if filled.text.trim().is_empty() => {
                let (cause, help) = match filled.variable {
                    true => (": its variable has no value", "give it one, or write `${NAME:-default}`".to_owned()),
                    false => ("", self.such_as(at)),
                };
                self.error(node.place, format!("`{}` is empty{cause}", at.path), Some(help));
                None
            }
            Ok(filled) => {
                let shown = if filled.variable { written.clone() } else { filled.text.clone() };
                Some(Text { value: filled.text, shown, spot: self.spot(node.place), place: node.place })
            }
            Err(missing) => {
                for unfilled in missing {
                    let place = self.find(node.place, &unfilled.mark);
                    self.error(place, unfilled.message, Some(unfilled.help));
                }
                None
            }
        }
    }

    /// A value of any shape, as JSON whose plain values are all text: what they are depends on where they are used.
    pub fn json(&mut self, node: &Node, at: At) -> Option<serde_json::Value> {
        match &node.kind {
            Tree::Null => Some(serde_json::Value::Null),
            Tree::Scalar(text) if text.is_empty() => Some("".into()),
            Tree::Scalar(_) => self.text(node, at).map(|text| text.value.into()),
            Tree::Sequence(items) => items.iter().map(|item| self.json(item, At { key: None, ..at })).collect(),
            Tree::Mapping(entries) => entries
                .iter()
                .map(|(key, node)| {
                    let path = format!("{}.{}", at.path, key.name);
                    let value = self.json(node, At { path: &path, key: Some(key), ..at })?;
                    Some((key.name.clone(), value))
                })
                .collect(),
        }
    }

    /// Whether a value is this word, perhaps by a variable.
    pub fn is_word(&self, node: &Node, word: &str) -> bool {
        let Tree::Scalar(written) = &node.kind else { return false };
        fill(written, |name| self.inputs.variable(name)).is_ok_and(|filled| filled.text == word)
    }

    /// A remedy: what could stand there.
    pub fn such_as(&self, at: At) -> String {
        match at.key {
            Some(key) => remedy("write", &key.name, at.example),
            None => format!("write `{}`", at.example),
        }
    }

    /// Where a text stands inside of a value, if it is in sight there.
    fn find(&self, place: Place, mark: &str) -> Place {
        let line = self.text_of(place).line(place.start.0);
        let from: usize = line.chars().take(place.start.1.saturating_sub(1)).map(char::len_utf8).sum();
        match line.get(from..).and_then(|rest| rest.find(mark)) {
            Some(at) => {
                let column = line[..from + at].chars().count() + 1;
                let end = (place.start.0, column + mark.chars().count());
                Place { start: (place.start.0, column), end, ..place }
            }
            None => place,
        }
    }
}

/// "add `slot: films`", or the same on lines of its own.
pub(super) fn remedy(verb: &str, name: &str, example: &str) -> String {
    let text = written(name, example);
    if text.contains('\n') { format!("{verb}\n{text}") } else { format!("{verb} `{text}`") }
}

/// What a value is, in words.
pub(super) fn word(kind: &Tree) -> &'static str {
    match kind {
        Tree::Null => "nothing",
        Tree::Scalar(_) => "a single value",
        Tree::Sequence(_) => "a list",
        Tree::Mapping(_) => "keys and values",
    }
}
