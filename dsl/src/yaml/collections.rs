//! Kinds of values with others inside of them: mappings and lists.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::key::Keys;
use super::kind::{Documented, Inside, Kind};
use super::mapping::Map;
use super::read::{At, Reader};
use super::{MappingKey, Node, Tree};

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

/// One value, or a list of them.
pub(crate) struct OneOrMany<K>(pub K);

impl<K: Documented> Documented for OneOrMany<K> {
    fn word(&self) -> String {
        let one = self.0.word();
        format!("{one}, or list of {one}s")
    }

    fn schema(&self) -> Json {
        json!({ "anyOf": [self.0.schema(), { "type": "array", "items": self.0.schema(), "minItems": 1 }] })
    }
}

impl<K: Kind> Kind for OneOrMany<K> {
    type Value = Vec<K::Value>;

    fn read(&self, r: &mut Reader, node: &Arc<Node>, at: At) -> Option<Self::Value> {
        let Tree::Sequence(items) = &node.kind else { return self.0.read(r, node, at).map(|one| vec![one]) };
        if items.is_empty() {
            r.error(node.place, format!("`{}` is empty", at.path), Some(r.such_as(at)));
            return None;
        }
        let read: Vec<Option<K::Value>> =
            items.iter().map(|item| self.0.read(r, item, At { key: None, ..at })).collect();
        read.into_iter().collect()
    }
}
