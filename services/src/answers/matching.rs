//! The elements of a list, and which key each is about.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::raw::{Identity, Walked, identity, is_null, kind, walk};
use super::{Reading, Said, dotted};

/// What may lie under the name of a key.
enum Slot<'a> {
    One(&'a RawValue),
    /// Another one under the same name.
    Several,
    Erred(String),
}

/// Elements by the key that each is about.
pub(super) struct Matching<'a> {
    slots: HashMap<Identity, Slot<'a>>,
    /// Elements that are null.
    nulls: usize,
    /// What cannot be said whose it is.
    strange: Option<String>,
}

impl<'a> Matching<'a> {
    pub(super) fn new() -> Self {
        Self { slots: HashMap::new(), nulls: 0, strange: None }
    }

    /// Adds an element whose key lies at `matched`, and what went wrong within it.
    pub(super) fn add(&mut self, element: &'a RawValue, matched: &[String], error: Option<String>) {
        let key = match walk(element, matched) {
            Walked::At(key) => identity(key.get()),
            Walked::Null | Walked::Lost(_) => None,
        };
        match key {
            Some(key) => self.put(key, element, error),
            None if is_null(element) => self.nulls += 1,
            None => {
                self.strange.get_or_insert_with(|| {
                    format!("an element, which is {}, has no key at {}", kind(element), dotted(matched))
                });
            }
        }
    }

    /// Adds what lies under a name.
    pub(super) fn put(&mut self, key: Identity, element: &'a RawValue, error: Option<String>) {
        let fresh = match error {
            Some(error) => Slot::Erred(error),
            None => Slot::One(element),
        };
        let slot = match self.slots.remove(&key) {
            None => fresh,
            Some(Slot::One(earlier)) => match fresh {
                Slot::One(element) if element.get() == earlier.get() => fresh,
                Slot::One(_) | Slot::Several => Slot::Several,
                erred @ Slot::Erred(_) => erred,
            },
            Some(worse) => worse,
        };
        self.slots.insert(key, slot);
    }

    /// What there is of each key. Err: something is there of which nobody knows whose it is, and a key is without an element.
    pub(super) fn read(self, keys: &[Bytes], may_hide: bool) -> Result<Reading, String> {
        let said: Vec<Said> = keys
            .iter()
            .map(|key| {
                let key = std::str::from_utf8(key).ok().and_then(identity);
                match key.and_then(|key| self.slots.get(&key)) {
                    Some(Slot::One(element)) => Said::Found(Bytes::copy_from_slice(element.get().as_bytes())),
                    Some(Slot::Several) => {
                        Said::Erred("several elements of the answer have its key, and differ".to_owned())
                    }
                    Some(Slot::Erred(error)) => Said::Erred(error.clone()),
                    None => Said::Absent,
                }
            })
            .collect();
        match self.strange {
            Some(strange) if said.contains(&Said::Absent) => Err(strange),
            _ => {
                let is_absent = |said: &Said| *said == Said::Absent;
                // A page that nulls have filled may have had no room for other keys.
                let absent = said.iter().filter(|said| is_absent(said)).count();
                let may_hide = may_hide || self.nulls > 0 && self.nulls < absent;
                let stray = self.slots.keys().next().filter(|_| said.iter().all(is_absent)).map(Identity::text);
                Ok(Reading { said, may_hide, stray: stray.map(str::to_owned) })
            }
        }
    }
}
