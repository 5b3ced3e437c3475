//! What an answer says of each key that was asked for. Pure: bytes in, words out.

pub(crate) mod excerpt;
pub(crate) mod graphql;
mod matching;
pub(crate) mod raw;
pub(crate) mod rest;

use bytes::Bytes;

/// What an answer says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The service knows it: JSON as it was sent.
    Found(Bytes),
    /// It does not know it.
    Missing,
    /// Nothing, in an answer about several keys.
    Absent,
    /// It failed for it, and how.
    Erred(String),
}

/// What an answer says of all the keys that were asked for, in their order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub said: Vec<Said>,
    /// Whether something may have kept keys from the answer that the service knows: an error, null for a list, or a page.
    pub may_hide: bool,
    /// If none of the keys was found: one that was not asked for, and is there. It may be one of them, written in another way.
    pub stray: Option<String>,
}

/// Why an answer says nothing of any key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It is not what was expected, and what it is instead, or it says that all went wrong.
    Doubtful(String),
    /// It says of the only key that was asked for that it failed for it.
    Erred(String),
}

impl Reading {
    /// What an answer says of the only key that was asked for.
    pub(crate) fn of_one(said: Said) -> Self {
        Self { said: vec![said], may_hide: false, stray: None }
    }

    /// Null instead of all.
    fn of_none(keys: usize) -> Self {
        Self { said: vec![Said::Absent; keys], may_hide: true, stray: None }
    }
}

/// Names as messages show them.
fn dotted(names: &[String]) -> String {
    if names.is_empty() { "the answer itself".to_owned() } else { names.join(".") }
}
