//! Mappings: which keys are known, which go together, and where a strange one belongs.
//!
//! One cause, one error: a key that is misspelt is not missing as well, and a mapping without the one key that it needs says
//! nothing of the rest.

use std::sync::Arc;

use super::key::{Described, Keys, Rule};
use super::read::{At, Reader, remedy, word};
use super::{MappingKey, Node, Place, Tree};
use crate::suggest::{closest, listed, suggestion};

/// A mapping.
pub(crate) struct Map {
    /// What it is, such as `sources.studio.postgres`.
    pub path: String,
    /// What is pointed at where something is missing in it.
    pub place: Place,
    pub(super) entries: Vec<(MappingKey, Arc<Node>)>,
    /// Whether keys were refused.
    strange: bool,
    /// The keys that some of those are meant for.
    pub(super) misspelt: Vec<String>,
}

impl Map {
    /// A key's value, if the key is there.
    pub fn node(&self, key: &dyn Described) -> Option<&Arc<Node>> {
        self.entry(key.name()).map(|(_, node)| node)
    }

    /// The key's place, or that of the whole.
    pub fn key_place(&self, key: &dyn Described) -> Place {
        self.entry(key.name()).map_or(self.place, |(key, _)| key.place)
    }

    pub(super) fn entry(&self, name: &str) -> Option<&(MappingKey, Arc<Node>)> {
        self.entries.iter().find(|(key, _)| key.name == name)
    }

    pub fn entries(&self) -> &[(MappingKey, Arc<Node>)] {
        &self.entries
    }

    /// The path of a key in it.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// "in `sources.studio`", unless it is the whole.
    pub(super) fn within(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!(" in `{}`", self.path) }
    }
}

impl Reader<'_> {
    /// A mapping with these keys and no others.
    pub fn map(&mut self, node: &Node, at: At, keys: &'static Keys) -> Option<Map> {
        if matches!(node.kind, Tree::Null) && !keys.may_be_empty() {
            let help = self.such_as(at);
            self.error(at.place(node), format!("`{}` is empty", at.path), Some(help));
            return None;
        }
        let mut map = self.entries(node, at)?;
        self.refuse_others(&mut map, keys);
        for rule in keys.rules {
            self.hold(&map, keys, *rule, at);
        }
        let fine = match keys.alternatives() {
            None => !map.entries.is_empty() || !keys.has_some(),
            Some(names) => match map.entries.iter().filter(|(key, _)| names.contains(&key.name.as_str())).count() {
                1 => !map.strange,
                _ => false,
            },
        };
        fine.then_some(map)
    }

    /// Refuses keys that are not known, and removes them.
    fn refuse_others(&mut self, map: &mut Map, keys: &'static Keys) {
        let all = std::mem::take(&mut map.entries);
        let (known, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(key, _)| keys.find(&key.name).is_some());
        map.entries = known;
        let absent: Vec<&str> = keys.names().filter(|name| map.entry(name).is_none()).collect();
        // Where something is missing, a strange key is more likely meant for that than for another place.
        let lacks = keys.required().any(|name| absent.contains(&name));
        map.strange = !others.is_empty();
        for (key, _) in others {
            let help = match closest(&key.name, absent.iter().copied()) {
                Some(meant) => {
                    map.misspelt.push(meant.to_owned());
                    Some(format!("did you mean `{meant}`?"))
                }
                None => keys
                    .place_of(&key.name, &map.path)
                    .or_else(|| if lacks { None } else { self.root.place_of(&key.name, "") })
                    .or_else(|| suggestion(&key.name, keys.names())),
            };
            self.error(key.place, format!("unknown key `{}`{}", key.name, map.within()), help);
        }
    }

    fn hold(&mut self, map: &Map, keys: &Keys, rule: Rule, at: At) {
        let names = || listed(keys.names());
        match rule {
            Rule::One | Rule::OneOf(_) => self.hold_one(map, keys, at),
            Rule::Some if map.entries.is_empty() && !map.strange => {
                let help = self.such_as(at);
                self.error(map.place, format!("`{}` needs some of {}", map.path, names()), Some(help));
            }
            Rule::Some => {}
            Rule::Needs(name, other) => {
                let absent = map.entry(other).is_none() && !map.misspelt.iter().any(|meant| meant == other);
                if let (Some((key, _)), true) = (map.entry(name), absent) {
                    let help = keys.find(other).map(|other| remedy("add", other.name(), other.example()));
                    self.error(key.place, format!("`{}` needs `{other}` beside it", map.path_of(name)), help);
                }
            }
            Rule::Apart(name, other) => {
                if let (Some(_), Some((key, _))) = (map.entry(name), map.entry(other)) {
                    let message = format!("`{}` excludes `{name}`", map.path_of(other));
                    self.error(key.place, message, Some("remove one of the two".into()));
                }
            }
        }
    }

    /// Exactly one of the alternatives must be there.
    fn hold_one(&mut self, map: &Map, keys: &Keys, at: At) {
        let alternatives = keys.alternatives().unwrap_or_default();
        let names = listed(alternatives.iter().copied());
        let mut there = map.entries.iter().filter(|(key, _)| alternatives.contains(&key.name.as_str()));
        let Some((first, _)) = there.next() else {
            if !map.strange {
                let help = match keys.keys {
                    [only] => remedy("add", only.name(), only.example()),
                    _ => self.such_as(at),
                };
                self.error(map.place, format!("`{}` needs one of {names}", map.path), Some(help));
            }
            return;
        };
        for (key, _) in there {
            let message = format!("`{}` can have only one of {names}", map.path);
            let help = format!("remove this, or `{}`", first.name);
            self.error(key.place, message, Some(help));
        }
    }

    /// A mapping with keys of the user's choice.
    pub fn entries(&mut self, node: &Node, at: At) -> Option<Map> {
        let entries = match &node.kind {
            Tree::Mapping(entries) => entries.clone(),
            // All of its keys are commented out.
            Tree::Null => Vec::new(),
            other => {
                let help = self.such_as(at);
                self.error(
                    node.place,
                    format!("`{}` must have keys of its own, not {}", at.path, word(other)),
                    Some(help),
                );
                return None;
            }
        };
        let place = at.key.or(entries.first().map(|(key, _)| key)).map_or(node.place, |key| key.place);
        Some(Map { path: at.path.to_owned(), place, entries, strange: false, misspelt: Vec::new() })
    }
}
