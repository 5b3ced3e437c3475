//! A place in an event, such as `.movie.lead`.

use std::fmt;

use vrl::path::{OwnedSegment, OwnedValuePath, parse_value_path};
use vrl::value::Value;

/// A path from an event to a part of it. Written as programs have it: `.movie.lead`, `.prices[0]`, `."odd name"`.
#[derive(Clone, PartialEq, Eq)]
pub struct Path(OwnedValuePath);

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.0)
    }
}

impl Path {
    /// Reads one; none: it is no path that begins with a dot.
    pub fn parse(text: &str) -> Option<Self> {
        let path = text.strip_prefix('.')?;
        parse_value_path(&format!(".{path}")).ok().map(Self)
    }

    /// The path to the event itself.
    pub fn root() -> Self {
        Self(OwnedValuePath::root())
    }

    /// Whether it leads to the event itself.
    pub fn is_root(&self) -> bool {
        self.0.is_root()
    }

    /// What lies there.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.get(&self.0)
    }

    /// Puts a value there, over what is there, and makes the objects on the way.
    pub fn put(&self, value: &mut Value, part: Value) {
        value.insert(&self.0, part);
    }

    /// The names of fields on the way, from the outside in; none: it goes through a list.
    pub fn names(&self) -> Option<Vec<String>> {
        let name = |segment: &OwnedSegment| match segment {
            OwnedSegment::Field(name) => Some(name.to_string()),
            OwnedSegment::Index(_) => None,
        };
        self.0.segments.iter().map(name).collect()
    }

    pub(crate) fn inner(&self) -> &OwnedValuePath {
        &self.0
    }
}
