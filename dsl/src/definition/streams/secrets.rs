//! Secrets of services and sinks do not stand in the pipeline's file: they come from variables.

use crate::diagnostic::Diagnostic;
use crate::text::is_secret;
use crate::yaml::{Described, Map, Node, Place, Reader, Tree};

/// Refuses a secret, or several, that stand there.
pub(super) fn written(r: &mut Reader, map: &Map, key: &dyn Described) {
    let Some(node) = map.node(key).cloned() else { return };
    match &node.kind {
        Tree::Sequence(items) => items.iter().for_each(|item| literal(r, item)),
        _ => literal(r, &node),
    }
}

/// Refuses headers that stand there and whose names say that they are secret.
pub(super) fn in_headers(r: &mut Reader, map: &Map, key: &dyn Described) {
    let Some(node) = map.node(key).cloned() else { return };
    let Tree::Mapping(entries) = &node.kind else { return };
    entries.iter().filter(|(name, _)| is_secret(&name.name)).for_each(|(_, value)| literal(r, value));
}

/// Refuses a URL whose password stands there.
pub(super) fn in_url(r: &mut Reader, map: &Map, key: &dyn Described) {
    let Some(node) = map.node(key).cloned() else { return };
    let Tree::Scalar(url) = &node.kind else { return };
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
    if user.split_once(':').is_some_and(|(_, password)| !password.is_empty() && !password.contains("${")) {
        let found = refusal(r, node.place, "the password of this URL stands in the file");
        r.found.push(found);
    }
}

fn literal(r: &mut Reader, node: &Node) {
    let Tree::Scalar(text) = &node.kind else { return };
    if !text.trim().is_empty() && !text.contains("${") {
        let found = refusal(r, node.place, "this secret stands in the file");
        r.found.push(found);
    }
}

fn refusal(r: &Reader, place: Place, message: &str) -> Diagnostic {
    r.spot(place).error(message).help("write `${NAME}` in its place, and set that variable where the pipeline runs")
}
