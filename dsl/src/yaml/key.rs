//! A key of a mapping, told once: the reader takes its name, kind and default from here, and so does the reference. A key is
//! read by handing its [`Key`] to the reader, so none can be read that is not described.

use super::kind::{Documented, Inside, Kind, Printed};

/// A key: what stands there, what holds without it, and what people are told about it.
pub(crate) struct Key<K, L> {
    pub name: &'static str,
    pub kind: K,
    pub left_out: L,
    /// A value that is accepted, as YAML.
    pub example: &'static str,
    /// What it is for, as Markdown.
    pub meaning: &'static str,
}

/// Without the key there is an error.
pub(crate) struct Required;

/// Without the key this value holds.
pub(crate) struct Is<V>(pub V);

/// Without the key there is no value, which means this.
pub(crate) struct Means(pub &'static str);

pub(crate) const fn key<K, L>(
    name: &'static str,
    kind: K,
    left_out: L,
    example: &'static str,
    meaning: &'static str,
) -> Key<K, L> {
    Key { name, kind, left_out, example, meaning }
}

/// `name: example`, on lines of its own where that is needed or reads better.
pub(crate) fn written(name: &str, example: &str) -> String {
    let block = !example.starts_with(['{', '[', '"', '\'']) && example.contains(": ");
    match block || example.contains('\n') {
        true => format!("{name}:{}", example.lines().map(|line| format!("\n  {line}")).collect::<String>()),
        false => format!("{name}: {example}"),
    }
}

/// A key of any kind, as the reference sees it.
pub(crate) trait Described: Sync {
    fn name(&self) -> &'static str;
    fn kind(&self) -> &dyn Documented;
    fn example(&self) -> &'static str;
    fn meaning(&self) -> &'static str;
    fn left_out(&self) -> LeftOut;
}

/// What holds without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Nothing: the key must be there.
    Refused,
    /// The value that could be written as well.
    Value(String),
    /// What a sentence says.
    Means(&'static str),
}

macro_rules! described {
    ($($bound:tt)*) => {
        fn name(&self) -> &'static str {
            self.name
        }

        fn kind(&self) -> &dyn Documented {
            &self.kind
        }

        fn example(&self) -> &'static str {
            self.example
        }

        fn meaning(&self) -> &'static str {
            self.meaning
        }
    };
}

impl<K: Kind> Described for Key<K, Required> {
    described!();

    fn left_out(&self) -> LeftOut {
        LeftOut::Refused
    }
}

impl<K: Printed<Value = V>, V: Sync> Described for Key<K, Is<V>> {
    described!();

    fn left_out(&self) -> LeftOut {
        LeftOut::Value(self.kind.print(&self.left_out.0))
    }
}

impl<K: Kind> Described for Key<K, Means> {
    described!();

    fn left_out(&self) -> LeftOut {
        LeftOut::Means(self.left_out.0)
    }
}

/// The keys of a mapping, and how they go together.
pub(crate) struct Keys {
    pub keys: &'static [&'static dyn Described],
    pub rules: &'static [Rule],
}

/// How keys of a mapping go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Exactly one of all stands there.
    One,
    /// Exactly one of these stands there; the others may stand beside it.
    OneOf(&'static [&'static str]),
    /// At least one of all stands there.
    Some,
    /// The first says nothing without the second.
    Needs(&'static str, &'static str),
    /// The two exclude each other.
    Apart(&'static str, &'static str),
}

impl Keys {
    pub fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.keys.iter().map(|key| key.name())
    }

    pub fn find(&self, name: &str) -> Option<&'static dyn Described> {
        self.keys.iter().find(|key| key.name() == name).copied()
    }

    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().filter(|key| key.left_out() == LeftOut::Refused).map(|key| key.name())
    }

    /// The keys of which exactly one stands there, if there are such.
    pub fn alternatives(&self) -> Option<Vec<&'static str>> {
        self.rules.iter().find_map(|rule| match rule {
            Rule::One => Some(self.names().collect()),
            Rule::OneOf(names) => Some(names.to_vec()),
            _ => None,
        })
    }

    /// Whether a key is one of those.
    pub fn is_alternative(&self, name: &str) -> bool {
        self.alternatives().is_some_and(|names| names.contains(&name))
    }

    pub fn has_some(&self) -> bool {
        self.rules.contains(&Rule::Some)
    }

    /// Whether the mapping may be empty.
    pub fn may_be_empty(&self) -> bool {
        self.required().next().is_none() && self.alternatives().is_none() && !self.has_some()
    }

    /// "`brokers` belongs into `transport.kafka`", if a mapping inside of these keys, which are at a path, has such a key.
    pub fn place_of(&'static self, name: &str, path: &str) -> Option<String> {
        let mut found = Vec::new();
        self.walk(path, &mut |path, keys| {
            if keys.find(name).is_some() {
                found.push(if path.is_empty() { "the outermost keys".to_owned() } else { format!("`{path}`") });
            }
        });
        // A key that is at home in many places says little.
        match found.len() {
            1..=2 => Some(format!("`{name}` belongs into {}", found.join(" or "))),
            _ => None,
        }
    }

    /// Visits every mapping with keys of ours, from the outside in, with its path.
    fn walk(&'static self, path: &str, visit: &mut dyn FnMut(&str, &'static Self)) {
        visit(path, self);
        for key in self.keys {
            let path = if path.is_empty() { key.name().to_owned() } else { format!("{path}.{}", key.name()) };
            descend(key.kind(), &path, visit);
        }
    }
}

fn descend(kind: &dyn Documented, path: &str, visit: &mut dyn FnMut(&str, &'static Keys)) {
    match kind.inside() {
        Inside::Nothing => {}
        Inside::Keys(keys) => keys.walk(path, visit),
        Inside::Entries(names, value) => descend(value, &format!("{path}.{}", names.mark), visit),
        Inside::Items(value) => descend(value, path, visit),
    }
}
