//! The type of what flows through a stream: which fields there are, and of which kinds.

use std::fmt;

use tributary_event::Op;
use vrl::value::Kind;
use vrl::value::kind::Collection;

use crate::function::Type;
use crate::path::Path;

/// A type of events.
#[derive(Clone, PartialEq)]
pub struct Shape(pub(crate) Kind);

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Shape {
    /// Change events of any table, of these operations alone. What columns hold is not known.
    pub fn event(ops: &[Op]) -> Self {
        let row = |of: &[Op], also: &[Op]| {
            let object = Kind::object(Collection::any());
            match ops.iter().all(|op| of.contains(op)) {
                true => object,
                false if ops.iter().any(|op| of.contains(op) || also.contains(op)) => object.or_null(),
                false => Kind::null(),
            }
        };
        // An update has its row before as far as the source knows it.
        let before = row(&[Op::Delete], &[Op::Update]);
        let after = row(&[Op::Create, Op::Update, Op::Read], &[]);
        let fields = Collection::any()
            .with_known("op", Kind::bytes())
            .with_known("before", before)
            .with_known("after", after)
            .with_known("source", Kind::object(Collection::any()))
            .with_known("ts_ms", Kind::integer().or_null().or_undefined())
            .with_known("ts_us", Kind::integer().or_null().or_undefined())
            .with_known("sequence", Kind::integer());
        Self(Kind::object(fields))
    }

    /// Whatever has fields.
    pub fn any() -> Self {
        Self(Kind::object(Collection::any()))
    }

    /// The same with something of any type at a place.
    pub fn with(self, place: &Path) -> Self {
        self.with_a(place, &Type::any())
    }

    /// The same with something of a type at a place; at the root, that alone.
    pub fn with_a(mut self, place: &Path, of: &Type) -> Self {
        self.0.insert(place.inner(), of.0.clone());
        self
    }

    /// Whatever of a type is an object.
    pub fn objects_of(of: &Type) -> Self {
        of.0.as_object().map_or_else(Self::any, |fields| Self(Kind::object(fields.clone())))
    }

    /// Whether it is an object, which alone may flow on.
    pub fn is_object(&self) -> bool {
        self.0.is_object()
    }
}
