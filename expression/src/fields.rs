//! Which fields of an event somebody looks at, so that the others need not be read.

use std::collections::BTreeMap;

use vrl::path::{OwnedSegment, OwnedTargetPath, PathPrefix};

/// Fields of an object, by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fields {
    /// All of them, and whatever is in them.
    All,
    /// These alone.
    Some(BTreeMap<String, Fields>),
}

impl Default for Fields {
    fn default() -> Self {
        Self::Some(BTreeMap::new())
    }
}

impl Fields {
    /// A field is looked at too, whole: its name, or the names on the way to it.
    pub fn with(mut self, names: &[&str]) -> Self {
        self.add(&mut names.iter().map(|name| (*name).to_owned()));
        self
    }

    pub(crate) fn add_path(&mut self, path: &OwnedTargetPath) {
        if path.prefix == PathPrefix::Event {
            // Behind an index, or what is none of ours, everything is looked at.
            let fields = path.path.segments.iter().map_while(|segment| match segment {
                OwnedSegment::Field(name) => Some(name.to_string()),
                OwnedSegment::Index(_) => None,
            });
            self.add(&mut fields.collect::<Vec<_>>().into_iter());
        }
    }

    /// What both name.
    pub fn and(mut self, other: Self) -> Self {
        match (&mut self, other) {
            (Self::All, _) => {}
            (_, Self::All) => self = Self::All,
            (Self::Some(ours), Self::Some(theirs)) => {
                for (name, fields) in theirs {
                    let mine = ours.remove(&name).unwrap_or_default();
                    ours.insert(name, mine.and(fields));
                }
            }
        }
        self
    }

    fn add(&mut self, path: &mut impl Iterator<Item = String>) {
        match (path.next(), &mut *self) {
            (_, Self::All) => {}
            (None, _) => *self = Self::All,
            (Some(name), Self::Some(fields)) => fields.entry(name).or_default().add(path),
        }
    }
}
