//! Types, fields and arguments.

use std::fmt;

/// A named type.
#[derive(Debug, Clone)]
pub(crate) struct TypeDef {
    pub name: String,
    pub kind: TypeKind,
    /// Of objects and interfaces, in the schema's order.
    pub fields: Vec<FieldDef>,
    /// What an object or an interface implements.
    pub interfaces: Vec<String>,
    /// Of interfaces and unions: the object types.
    pub possible: Vec<String>,
    /// Of enums.
    pub values: Vec<String>,
    /// Of input objects.
    pub inputs: Vec<ArgumentDef>,
}

impl TypeDef {
    pub fn new(name: impl Into<String>, kind: TypeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            fields: Vec::new(),
            interfaces: Vec::new(),
            possible: Vec::new(),
            values: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Whether values of it are plain values.
    pub fn is_leaf(&self) -> bool {
        matches!(self.kind, TypeKind::Scalar | TypeKind::Enum)
    }

    pub fn is_composite(&self) -> bool {
        matches!(self.kind, TypeKind::Object | TypeKind::Interface | TypeKind::Union)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypeKind {
    Scalar,
    Object,
    Interface,
    Union,
    Enum,
    Input,
}

#[derive(Debug, Clone)]
pub(crate) struct FieldDef {
    pub name: String,
    pub arguments: Vec<ArgumentDef>,
    pub ty: TypeRef,
}

impl FieldDef {
    pub fn argument(&self, name: &str) -> Option<&ArgumentDef> {
        self.arguments.iter().find(|a| a.name == name)
    }

    /// Whether it cannot be asked for without arguments.
    pub fn needs_arguments(&self) -> bool {
        self.arguments.iter().any(ArgumentDef::is_required)
    }
}

/// An argument, or a field of an input object.
#[derive(Debug, Clone)]
pub(crate) struct ArgumentDef {
    pub name: String,
    pub ty: TypeRef,
    pub has_default: bool,
}

impl ArgumentDef {
    pub fn is_required(&self) -> bool {
        matches!(self.ty, TypeRef::NonNull(_)) && !self.has_default
    }
}

/// A type as a field refers to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TypeRef {
    Named(String),
    List(Box<TypeRef>),
    NonNull(Box<TypeRef>),
}

impl TypeRef {
    /// The named type inside.
    pub fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::List(inner) | Self::NonNull(inner) => inner.name(),
        }
    }

    /// Whether it is a list, of any depth.
    pub fn is_list(&self) -> bool {
        match self {
            Self::Named(_) => false,
            Self::List(_) => true,
            Self::NonNull(inner) => inner.is_list(),
        }
    }

    pub fn nullable(&self) -> &Self {
        match self {
            Self::NonNull(inner) => inner,
            other => other,
        }
    }

    /// A list's element type.
    pub fn element(&self) -> Option<&Self> {
        match self.nullable() {
            Self::List(inner) => Some(inner),
            _ => None,
        }
    }

    /// Whether a variable of this type may stand where `wanted` is expected (GraphQL specification, 5.8.5).
    pub fn fits(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::NonNull(a), Self::NonNull(b)) => a.fits(b),
            (_, Self::NonNull(_)) => false,
            (Self::NonNull(a), b) => a.fits(b),
            (Self::List(a), Self::List(b)) => a.fits(b),
            (Self::Named(a), Self::Named(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for TypeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::List(inner) => write!(f, "[{inner}]"),
            Self::NonNull(inner) => write!(f, "{inner}!"),
        }
    }
}
