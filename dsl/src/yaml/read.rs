//! Reads a tree into settings: known keys only, variables filled in, units understood; every mistake noted, none fatal.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::variables::fill;
use super::{Key, Kind, Node, Place, spot, units};
use crate::Inputs;
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::Secret;
use crate::suggest::{listed, suggestion};
use crate::text::SourceText;

/// Reads nodes of one text.
pub(crate) struct Reader<'a> {
    pub text: Arc<SourceText>,
    pub inputs: &'a dyn Inputs,
    pub found: Vec<Diagnostic>,
}

/// A mapping whose keys are all known.
pub(crate) struct Map {
    /// What it is, such as `sources.studio.postgres`.
    pub path: String,
    pub place: Place,
    entries: Vec<(Key, Arc<Node>)>,
}

/// A text value.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    /// With variables filled in.
    pub value: String,
    /// As written: what may be printed.
    pub shown: String,
    pub spot: Spot,
}

impl Map {
    /// A key's value, if the key is there.
    pub fn get(&self, name: &str) -> Option<&Arc<Node>> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    /// The key's place, or that of the whole.
    pub fn key_place(&self, name: &str) -> Place {
        self.entries.iter().find(|(key, _)| key.name == name).map_or(self.place, |(key, _)| key.place)
    }

    pub fn entries(&self) -> &[(Key, Arc<Node>)] {
        &self.entries
    }

    /// The path of a key in it.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl Reader<'_> {
    pub fn spot(&self, place: Place) -> Spot {
        spot(&self.text, place)
    }

    pub fn error(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        let diagnostic = self.spot(place).error(message).maybe_help(help);
        self.found.push(diagnostic);
    }

    /// A mapping with these keys and no others.
    pub fn map(&mut self, node: &Node, path: &str, known: &[&str]) -> Option<Map> {
        let map = self.entries(node, path)?;
        self.refuse_others(&map, known, &[]);
        Some(map)
    }

    /// Refuses keys that are neither known nor told about elsewhere.
    pub fn refuse_others(&mut self, map: &Map, known: &[&str], told: &[&str]) {
        let path = map.path.as_str();
        for (key, _) in &map.entries {
            if !known.contains(&key.name.as_str()) && !told.contains(&key.name.as_str()) {
                let place = if path.is_empty() { String::new() } else { format!(" in `{path}`") };
                let help = suggestion(&key.name, known.iter().copied());
                self.error(key.place, format!("unknown key `{}`{place}", key.name), help);
            }
        }
    }

    /// A mapping with keys of the user's choice.
    pub fn entries(&mut self, node: &Node, path: &str) -> Option<Map> {
        match &node.kind {
            Kind::Mapping(entries) => {
                // A whole mapping is pointed at by its first key.
                let place = entries.first().map_or(node.place, |(key, _)| key.place);
                Some(Map { path: path.to_owned(), place, entries: entries.clone() })
            }
            other => {
                let message = format!("`{path}` must have keys of its own, not {}", word(other));
                self.error(node.place, message, None);
                None
            }
        }
    }

    /// A key that must be there.
    pub fn required<'m>(&mut self, map: &'m Map, name: &str) -> Option<&'m Arc<Node>> {
        let node = map.get(name);
        if node.is_none() {
            let whole = if map.path.is_empty() { String::new() } else { format!(" in `{}`", map.path) };
            self.error(map.place, format!("`{name}` is missing{whole}"), None);
        }
        node
    }

    pub fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Arc<Node>]> {
        match &node.kind {
            Kind::Sequence(items) => Some(items),
            other => {
                let message = format!("`{path}` must be a list, not {}", word(other));
                self.error(node.place, message, Some("write `[a, b]`, or a line `- a` for each".into()));
                None
            }
        }
    }

    /// Text, with variables filled in; empty text is refused.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<Text> {
        let Kind::Scalar(written) = &node.kind else {
            let braces = matches!(node.kind, Kind::Mapping(_))
                .then(|| "text with braces is written in quotes: \"{…}\"".to_owned());
            self.error(node.place, format!("`{path}` must be a value, not {}", word(&node.kind)), braces);
            return None;
        };
        match fill(written, |name| self.inputs.variable(name)) {
            Ok(filled) if filled.text.trim().is_empty() => {
                let cause = if filled.variable { "empty: its variable has no value" } else { "empty" };
                self.error(node.place, format!("`{path}` is {cause}"), None);
                None
            }
            Ok(filled) => {
                let shown = if filled.variable { written.clone() } else { filled.text.clone() };
                Some(Text { value: filled.text, shown, spot: self.spot(node.place) })
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
    pub fn json(&mut self, node: &Node, path: &str) -> Option<serde_json::Value> {
        match &node.kind {
            Kind::Null => Some(serde_json::Value::Null),
            Kind::Scalar(text) if text.is_empty() => Some("".into()),
            Kind::Scalar(_) => self.text(node, path).map(|text| text.value.into()),
            Kind::Sequence(items) => items.iter().map(|item| self.json(item, path)).collect(),
            Kind::Mapping(entries) => entries
                .iter()
                .map(|(key, node)| Some((key.name.clone(), self.json(node, &format!("{path}.{}", key.name))?)))
                .collect(),
        }
    }

    pub fn secret(&mut self, node: &Node, path: &str) -> Option<Secret> {
        self.text(node, path).map(|text| Secret::new(text.value))
    }

    /// A whole number within bounds.
    pub fn number<N>(&mut self, node: &Node, path: &str, bounds: RangeInclusive<N>) -> Option<N>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let text = self.text(node, path)?;
        match text.value.parse() {
            Ok(number) if bounds.contains(&number) => Some(number),
            _ => {
                let message = format!("`{path}` must be a whole number, not `{}`", text.shown);
                self.error(node.place, message, Some(format!("from {} to {}", bounds.start(), bounds.end())));
                None
            }
        }
    }

    pub fn duration(&mut self, node: &Node, path: &str, least: Duration) -> Option<Duration> {
        let text = self.text(node, path)?;
        match units::duration(&text.value) {
            Ok(duration) if duration < least => {
                self.error(node.place, format!("`{path}` must be at least {least:?}"), None);
                None
            }
            Ok(duration) => Some(duration),
            Err(help) => {
                self.error(node.place, format!("`{}` is no duration", text.shown), Some(help));
                None
            }
        }
    }

    pub fn bytes(&mut self, node: &Node, path: &str) -> Option<u64> {
        let text = self.text(node, path)?;
        units::bytes(&text.value)
            .map_err(|help| self.error(node.place, format!("`{}` is no size in bytes", text.shown), Some(help)))
            .ok()
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help = crate::suggest::did_you_mean(&text.value, names.iter().copied())
                .unwrap_or_else(|| format!("one of {}", listed(names)));
            self.error(node.place, format!("`{}` is no value of `{path}`", text.shown), Some(help));
        }
        found
    }

    /// Where a text stands inside of a value, if it is in sight there.
    fn find(&self, place: Place, mark: &str) -> Place {
        let line = self.text.line(place.start.0);
        let from: usize = line.chars().take(place.start.1.saturating_sub(1)).map(char::len_utf8).sum();
        match line.get(from..).and_then(|rest| rest.find(mark)) {
            Some(at) => {
                let column = line[..from + at].chars().count() + 1;
                Place { start: (place.start.0, column), end: (place.start.0, column + mark.chars().count()) }
            }
            None => place,
        }
    }
}

fn word(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null => "nothing",
        Kind::Scalar(_) => "a single value",
        Kind::Sequence(_) => "a list",
        Kind::Mapping(_) => "keys and values",
    }
}
