//! `headers:`, wherever requests have some.

use std::collections::BTreeMap;

use crate::plan::Secret;
use crate::yaml::{Entries, Hidden, Key, Map, Means, Reader};

/// `None`: one of them could not be read, so that a request could fail for that alone.
pub(super) fn headers(r: &mut Reader, map: &Map, key: &Key<Entries, Means>) -> Option<BTreeMap<String, Secret>> {
    if map.node(key).is_none() {
        return Some(BTreeMap::new());
    }
    let mut headers = Some(BTreeMap::new());
    let entries = r.optional(map, key)?;
    for entry in entries.entries() {
        let name = &entry.0;
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.name.is_empty() || !name.name.chars().all(token) {
            let help = "write letters, digits and `-`, such as `x-api-key`";
            r.error(name.place, format!("`{}` is no name of a header", name.name), Some(help.into()));
        }
        match (r.entry(&entries, entry, &Hidden, "secret"), headers.as_mut()) {
            (Some(value), Some(headers)) => {
                headers.insert(name.name.clone(), value);
            }
            _ => headers = None,
        }
    }
    headers
}
