//! What functions take and answer, in the language's kinds.

use std::fmt;

use vrl::compiler::value::kind;
use vrl::value::kind::Collection;
use vrl::value::{Kind, Value};

/// A type of values.
#[derive(Clone, PartialEq)]
pub struct Type(pub(crate) Kind);

/// Whether values of a type are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Every one.
    Always,
    /// Some may be.
    Perhaps,
    /// None.
    Never,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Type {
    /// Whatever there is.
    pub fn any() -> Self {
        Self(Kind::any())
    }

    /// Text.
    pub fn text() -> Self {
        Self(Kind::bytes())
    }

    /// A whole number of 64 bits.
    pub fn whole() -> Self {
        Self(Kind::integer())
    }

    /// A number, whole or not.
    pub fn number() -> Self {
        Self(Kind::integer().or_float())
    }

    /// A number that is no whole number to programs.
    pub fn float() -> Self {
        Self(Kind::float())
    }

    /// True or false.
    pub fn truth() -> Self {
        Self(Kind::boolean())
    }

    /// Nothing.
    pub fn null() -> Self {
        Self(Kind::null())
    }

    /// Something with fields.
    pub fn object() -> Self {
        Self(Kind::object(Collection::any()))
    }

    /// A list of such values.
    pub fn list(of: Self) -> Self {
        Self(Kind::array(Collection::from_unknown(of.0)))
    }

    /// Such a value, or nothing.
    pub fn or_null(self) -> Self {
        Self(self.0.or_null())
    }

    /// Whether nothing is one too.
    pub fn takes_null(&self) -> bool {
        self.0.contains_null()
    }

    /// The type of a value.
    pub fn of(value: &Value) -> Self {
        Self(Kind::from(value))
    }

    /// Whether a value is of this type.
    pub fn holds(&self, value: &Value) -> bool {
        self.0.is_any() || self.takes(&Self::of(value)) == Fit::Always
    }

    /// Whether values of another type are taken where this one is asked for.
    pub fn takes(&self, other: &Self) -> Fit {
        // What is not there is null to whoever looks for it.
        let other = other.0.clone().upgrade_undefined();
        match (self.0.is_superset(&other).is_ok(), self.0.intersects(&other)) {
            (true, _) => Fit::Always,
            (false, true) => Fit::Perhaps,
            (false, false) => Fit::Never,
        }
    }

    /// The same as bits, and that of its elements if it is a list.
    pub(super) fn bits(&self) -> (u16, u16) {
        let element = self.0.as_array().map(|elements| bits(&elements.unknown_kind()));
        (bits(&self.0), element.unwrap_or(kind::ANY))
    }
}

fn bits(of: &Kind) -> u16 {
    if of.is_any() {
        return kind::ANY;
    }
    let parts = [
        (of.contains_bytes(), kind::BYTES),
        (of.contains_integer(), kind::INTEGER),
        (of.contains_float(), kind::FLOAT),
        (of.contains_boolean(), kind::BOOLEAN),
        (of.contains_object(), kind::OBJECT),
        (of.contains_array(), kind::ARRAY),
        (of.contains_timestamp(), kind::TIMESTAMP),
        (of.contains_null(), kind::NULL),
    ];
    parts.into_iter().filter(|(has, _)| *has).fold(0, |bits, (_, bit)| bits | bit)
}
