//! The scalars and the enumeration of the movie graph.

use async_graphql::{Enum, InputValueError, InputValueResult, Scalar, ScalarType, Value};

/// A 64-bit integer, written as a JSON number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Long(pub(crate) i64);

#[Scalar]
impl ScalarType for Long {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(number) => number.as_i64().map(Self).ok_or_else(|| InputValueError::custom("not 64 bits")),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// A calendar day as ISO 8601 writes it: `1998-06-12`.
#[derive(Debug, Clone)]
pub(crate) struct Date(pub(crate) String);

#[Scalar]
impl ScalarType for Date {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            value => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// A moment in UTC as RFC 3339 writes it, with microseconds: `2026-05-20T19:30:00.000000Z`.
#[derive(Debug, Clone)]
pub(crate) struct DateTime(pub(crate) String);

#[Scalar]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            value => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The rating of the Motion Picture Association.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
pub(crate) enum Rating {
    /// General audiences.
    G,
    /// Parental guidance suggested.
    #[graphql(name = "PG")]
    Pg,
    /// Parents strongly cautioned.
    #[graphql(name = "PG_13")]
    Pg13,
    /// Restricted.
    R,
    /// Adults only.
    #[graphql(name = "NC_17")]
    Nc17,
    /// Never submitted for a rating.
    NotRated,
    /// Open to everybody.
    Open,
}

impl Rating {
    /// The rating that the database's text stands for.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "G" => Self::G,
            "PG" => Self::Pg,
            "PG-13" => Self::Pg13,
            "R" => Self::R,
            "NC-17" => Self::Nc17,
            "Not Rated" => Self::NotRated,
            "Open" => Self::Open,
            _ => return None,
        })
    }
}
