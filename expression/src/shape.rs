//! The type of what flows through a stream: which fields there are, and of which kinds.

use std::fmt;

use tributary_event::{ColumnType, JsonType, Op};
use vrl::path::{OwnedSegment, OwnedValuePath};
use vrl::value::Kind;
use vrl::value::kind::Collection;

use crate::function::Type;
use crate::path::Path;

/// A type of events, twice: as it is if columns and answers of services are what their descriptions say, and as far as it is certain
/// whatever they become. A program that is right for one of them is taken: where a value is of another type after all, it fails for
/// that event as it says it would, or its step does.
#[derive(Clone, PartialEq)]
pub struct Shape {
    pub(crate) described: Kind,
    pub(crate) certain: Kind,
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.described)
    }
}

impl Shape {
    /// Change events of tables, of these operations alone. `tables`: the columns of each, or nothing where they are not known.
    pub fn event(ops: &[Op], tables: Option<&[Vec<ColumnType>]>) -> Self {
        let certain = Self::change(ops, Kind::object(Collection::any()), Kind::object(Collection::any()));
        let described = tables.filter(|tables| !tables.is_empty()).map(|tables| {
            let is_updated = ops.contains(&Op::Update);
            let all = |row: &dyn Fn(&ColumnType) -> Kind| {
                let rows = tables.iter().map(|columns| {
                    columns
                        .iter()
                        .fold(Collection::empty(), |fields, column| fields.with_known(&*column.name, row(column)))
                });
                rows.map(Kind::object).reduce(|one, other| one.union(other)).unwrap_or_else(Kind::any_object)
            };
            // Of a row as it was the log may have nothing but the key.
            let before = all(&|column| match column.is_key {
                true => kind(column.json),
                false => kind(column.json).or_null().or_undefined(),
            });
            let after = all(&|column| {
                let kind = kind(column.json);
                let kind = if column.is_nullable && !column.is_key { kind.or_null() } else { kind };
                if column.may_be_left_out && !column.is_key && is_updated { kind.or_undefined() } else { kind }
            });
            Self::change(ops, before, after)
        });
        Self { described: described.unwrap_or_else(|| certain.clone()), certain }
    }

    /// An event with these rows in it, where the operations have them.
    fn change(ops: &[Op], before: Kind, after: Kind) -> Kind {
        let row = |object: Kind, of: &[Op], also: &[Op]| match ops.iter().all(|op| of.contains(op)) {
            true => object,
            false if ops.iter().any(|op| of.contains(op) || also.contains(op)) => object.or_null(),
            false => Kind::null(),
        };
        // An update has its row before as far as the source knows it.
        let before = row(before, &[Op::Delete], &[Op::Update]);
        let after = row(after, &[Op::Create, Op::Update, Op::Read], &[]);
        let fields = Collection::any()
            .with_known("op", Kind::bytes())
            .with_known("before", before)
            .with_known("after", after)
            .with_known("source", Kind::object(Collection::any()))
            .with_known("ts_ms", Kind::integer().or_null().or_undefined())
            .with_known("ts_us", Kind::integer().or_null().or_undefined())
            .with_known("sequence", Kind::integer());
        Kind::object(fields)
    }

    /// Whatever has fields.
    pub fn any() -> Self {
        let any = Kind::object(Collection::any());
        Self { described: any.clone(), certain: any }
    }

    /// The same with something of any type at a place.
    pub fn with(self, place: &Path) -> Self {
        self.with_described(place, &Content::any())
    }

    /// The same with something of a type at a place.
    pub fn with_a(mut self, place: &Path, of: &Type) -> Self {
        self.described.insert(place.inner(), of.0.clone());
        self.certain.insert(place.inner(), of.0.clone());
        self
    }

    /// The same with something at a place that is described so.
    pub fn with_described(mut self, place: &Path, content: &Content) -> Self {
        self.described.insert(place.inner(), content.0.clone());
        self.certain.insert(place.inner(), Kind::any());
        self
    }

    /// Whatever of a type is an object.
    pub fn objects_of(of: &Type) -> Self {
        let object = of.0.as_object().map(|fields| Kind::object(fields.clone()));
        object.map_or_else(Self::any, |object| Self { described: object.clone(), certain: object })
    }

    /// The same of those events alone that have something at a place.
    pub fn having(mut self, place: &Path) -> Self {
        for kind in [&mut self.described, &mut self.certain] {
            let mut there = kind.at_path(place.inner());
            if there.contains_object() && there.remove_null() {
                kind.insert(place.inner(), there);
            }
        }
        self
    }

    /// Whether it is an object, which alone may flow on.
    pub fn is_object(&self) -> bool {
        self.certain.is_object() || self.described.is_object()
    }

    /// Whether events have a field at a place, as far as descriptions say; also one that is left out sometimes.
    pub fn has(&self, place: &Path) -> bool {
        let Some((OwnedSegment::Field(name), way)) = place.inner().segments.split_last() else { return false };
        let around = self.described.at_path(&OwnedValuePath { segments: way.to_vec() });
        let fields = around.as_object().map(Collection::known);
        fields.is_some_and(|fields| {
            fields.iter().any(|(field, kind)| field.as_str() == &**name && !kind.is_undefined() && !kind.is_null())
        })
    }

    /// If nothing is at a path, as far as descriptions say: the name on the way that is not there, and those that are.
    pub(crate) fn lacks(&self, path: &OwnedValuePath) -> Option<(String, Vec<String>)> {
        if !self.described.at_path(path).is_undefined() {
            return None;
        }
        // The innermost object on the way that is described lacks the next field.
        let (mut here, mut steps) = (self.described.clone(), path.segments.iter());
        loop {
            let step = steps.next()?;
            let next = here.at_path(&OwnedValuePath { segments: vec![step.clone()] });
            if next.is_undefined() {
                let OwnedSegment::Field(name) = step else { return None };
                let fields = here.as_object()?.known().keys().map(|field| field.as_str().to_owned()).collect();
                return Some((name.to_string(), fields));
            }
            here = next;
        }
    }
}

/// What an answer of a service is, as far as its description says.
#[derive(Clone, PartialEq)]
pub struct Content(Kind);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Content {
    /// Anything.
    pub fn any() -> Self {
        Self(Kind::any())
    }

    /// A value of a type, never null.
    pub fn of(json: JsonType) -> Self {
        Self(kind(json))
    }

    /// The same, or null.
    pub fn or_null(self) -> Self {
        Self(self.0.or_null())
    }

    /// The same, or nothing at all.
    pub fn or_absent(self) -> Self {
        Self(self.0.or_undefined())
    }

    /// A list of such.
    pub fn list(element: Self) -> Self {
        Self(Kind::array(Collection::from_unknown(element.0)))
    }

    /// An object of these fields and no others.
    pub fn object(fields: impl IntoIterator<Item = (String, Self)>) -> Self {
        let fields =
            fields.into_iter().fold(Collection::empty(), |all, (name, content)| all.with_known(name, content.0));
        Self(Kind::object(fields))
    }
}

pub(crate) fn kind(json: JsonType) -> Kind {
    match json {
        JsonType::Boolean => Kind::boolean(),
        JsonType::Integer => Kind::integer(),
        JsonType::Number => Kind::integer().or_float().or_bytes(),
        JsonType::Text => Kind::bytes(),
        JsonType::List => Kind::array(Collection::any()),
        JsonType::Object => Kind::object(Collection::any()),
        JsonType::Any => Kind::any(),
    }
}
