//! From an answer of the graph to a document: hidden fields removed, references collected, content hashed. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use tributary_dsl::plan::{FieldKind, IndexPlan, LeafType, SelectedField, Selection};
use xxhash_rust::xxh3::xxh3_128;

use crate::graph::Vertex;
use crate::store::Document;

/// The answer does not have the shape that the plan says. Definite: the same answer fails again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the graph's answer does not fit the query: {path}: {problem} (the schema may have changed; run `tributary check`)"
)]
pub struct AssembleError {
    /// Where in the answer, such as `talents[2].name`.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

/// Makes a document of a root object as answered.
///
/// A field with a type condition is taken if the condition names the object's `__typename`. A condition that names an
/// interface cannot be decided from the answer's `__typename`, so such a field is taken where the server answered it.
pub fn assemble(index: &IndexPlan, fetched: &Json) -> Result<Document, AssembleError> {
    let mut walk = Walk { refs: BTreeSet::new(), path: Vec::new() };
    let content = walk.object(fetched, &[(&index.selection, true)], true)?;
    let refs: Vec<String> = walk.refs.into_iter().collect();
    let hash = content_hash(&content, &refs);
    Ok(Document { content, refs, hash })
}

/// Hash of content and references: XXH3-128, in hex, of their canonical JSON (members sorted by key, no blanks).
pub fn content_hash(content: &Json, refs: &[String]) -> String {
    let mut bytes = Vec::with_capacity(1024);
    canonical(content, &mut bytes);
    for reference in refs {
        bytes.push(b'\n');
        string(reference, &mut bytes);
    }
    format!("{:032x}", xxh3_128(&bytes))
}

fn canonical(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Null => out.extend_from_slice(b"null"),
        Json::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
        Json::Number(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Json::String(s) => string(s, out),
        Json::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                canonical(item, out);
            }
            out.push(b']');
        }
        Json::Object(members) => {
            // The order of a `Map` depends on a feature of serde_json that any crate may switch on.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (i, (key, value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(key, out);
                out.push(b':');
                canonical(value, out);
            }
            out.push(b'}');
        }
    }
}

/// A string as JSON: quoted, so that no two values share their bytes.
fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// The id of an answered vertex as text; ids may be answered as strings or as whole numbers.
pub(crate) fn id_text(value: &Json) -> Option<String> {
    match value {
        Json::String(s) => Some(s.clone()),
        Json::Number(n) if n.is_i64() || n.is_u64() => Some(n.to_string()),
        _ => None,
    }
}

/// The response key of a GraphQL field in a selection: the field's own name where it is selected under it.
pub(crate) fn key_of<'a>(selection: &'a Selection, name: &'a str) -> &'a str {
    let mut keys = selection.fields.iter().filter(|f| f.name == name && f.on.is_none()).map(|f| f.key.as_str());
    let first = keys.next().unwrap_or(name);
    if first == name || keys.any(|k| k == name) { name } else { first }
}

enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// A selection, and whether it certainly applies to the object at hand.
type Part<'a> = (&'a Selection, bool);
/// A field of a part, and whether it certainly applies.
type Candidate<'a> = (&'a SelectedField, bool);

struct Walk<'a> {
    refs: BTreeSet<String>,
    path: Vec<Step<'a>>,
}

impl<'a> Walk<'a> {
    fn object(&mut self, value: &Json, parts: &[Part<'a>], vertex: bool) -> Result<Json, AssembleError> {
        let Json::Object(members) = value else {
            return Err(self.unexpected("an object", value));
        };
        let typename = parts
            .iter()
            .find_map(|(selection, _)| members.get(key_of(selection, "__typename")))
            .and_then(|t| t.as_str())
            .unwrap_or_default();
        let fields: Vec<Candidate<'a>> = parts
            .iter()
            .flat_map(|(selection, sure)| selection.fields.iter().map(move |field| (field, *sure)))
            .map(|(field, sure)| (field, sure && field.on.as_deref().is_none_or(|on| on == typename)))
            .collect();
        if vertex {
            self.reference(members, typename, &fields)?;
        }
        if let Some((field, _)) = fields.iter().find(|(field, sure)| field.flatten && *sure) {
            let same: Vec<Candidate<'a>> = fields.iter().filter(|(f, _)| f.key == field.key).copied().collect();
            self.path.push(Step::Key(&field.key));
            let value = self.member(members.get(&field.key), &same)?;
            self.path.pop();
            self.hidden(members, &fields)?;
            return Ok(value.unwrap_or(Json::Null));
        }
        self.hidden(members, &fields)?;
        let mut content = Map::new();
        for (i, (field, _)) in fields.iter().enumerate() {
            if fields[..i].iter().any(|(earlier, _)| earlier.key == field.key) {
                continue;
            }
            let same: Vec<Candidate<'a>> = fields[i..].iter().filter(|(f, _)| f.key == field.key).copied().collect();
            self.path.push(Step::Key(&field.key));
            if let Some(value) = self.member(members.get(&field.key), &same)? {
                content.insert(field.key.clone(), value);
            }
            self.path.pop();
        }
        Ok(Json::Object(content))
    }

    /// What we asked for besides: a list that is taken for a whole one must be whole.
    fn hidden(&mut self, members: &Map<String, Json>, fields: &[Candidate<'a>]) -> Result<(), AssembleError> {
        let ends = fields.iter().filter(|(field, _)| field.kind == FieldKind::LastPage);
        for (field, _) in ends {
            if members.get(&field.key).and_then(|page| page.get("hasNextPage")) == Some(&Json::Bool(true)) {
                let problem = "the graph cut the list and says that there is another page: say in the query how many it may have \
                               (`first:`), or raise the server's own limit";
                return Err(self.error(problem.to_owned()));
            }
        }
        Ok(())
    }

    /// A member under one key. `None`: hidden, or its condition does not hold for this object.
    fn member(&mut self, value: Option<&Json>, same: &[Candidate<'a>]) -> Result<Option<Json>, AssembleError> {
        let sure = same.iter().any(|(_, sure)| *sure);
        let Some(value) = value else {
            let problem = "is not in the answer".to_owned();
            return if sure { Err(self.error(problem)) } else { Ok(None) };
        };
        // Where a condition certainly holds, it decides alone whether the field shows.
        let shown = same.iter().filter(|(_, s)| *s == sure).find(|(field, _)| !field.hidden);
        let Some((field, _)) = shown else {
            return Ok(None);
        };
        match &field.kind {
            FieldKind::LastPage => Ok(None),
            FieldKind::Leaf(LeafType::Object | LeafType::Ignore) => Ok(Some(value.clone())),
            FieldKind::Leaf(leaf) => {
                self.items(value, (field.list, false), &mut |walk, item| walk.leaf(item, leaf)).map(Some)
            }
            FieldKind::Object { .. } => {
                let (mut vertex, mut flat) = (false, false);
                let mut parts: Vec<Part<'a>> = Vec::with_capacity(same.len());
                for (field, sure) in same {
                    if let FieldKind::Object { vertex: v, selection, .. } = &field.kind {
                        vertex |= v;
                        flat |= selection.fields.iter().any(|field| field.flatten);
                        parts.push((selection, *sure));
                    }
                }
                let list = (field.list, flat);
                self.items(value, list, &mut |walk, item| walk.object(item, &parts, vertex)).map(Some)
            }
        }
    }

    /// Applies `each` to a value, or to the elements of a list of any depth. Nulls stay, unless elements are replaced by what is in
    /// them (`flat`): then what is null there is left out, and lists become one.
    fn items(
        &mut self,
        value: &Json,
        (list, flat): (bool, bool),
        each: &mut dyn FnMut(&mut Self, &Json) -> Result<Json, AssembleError>,
    ) -> Result<Json, AssembleError> {
        match value {
            Json::Null => Ok(Json::Null),
            Json::Array(elements) if list => {
                let mut out = Vec::with_capacity(elements.len());
                for (i, element) in elements.iter().enumerate() {
                    self.path.push(Step::Index(i));
                    let element = match element {
                        Json::Null => Json::Null,
                        Json::Array(_) => self.items(element, (true, flat), each)?,
                        other => each(self, other)?,
                    };
                    match element {
                        Json::Null if flat => {}
                        Json::Array(inner) if flat => out.extend(inner),
                        element => out.push(element),
                    }
                    self.path.pop();
                }
                Ok(Json::Array(out))
            }
            other if list => Err(self.unexpected("a list", other)),
            other => each(self, other),
        }
    }

    fn leaf(&self, value: &Json, leaf: &LeafType) -> Result<Json, AssembleError> {
        let (fits, expected) = match leaf {
            LeafType::Boolean => (value.is_boolean(), "true or false"),
            // Scalars for long numbers are often answered as strings.
            LeafType::Long | LeafType::Double => (value.is_number() || value.is_string(), "a number"),
            LeafType::Date => (value.is_number() || value.is_string(), "a date"),
            _ => (!value.is_object() && !value.is_array(), "a plain value"),
        };
        if fits { Ok(value.clone()) } else { Err(self.unexpected(expected, value)) }
    }

    fn reference(
        &mut self,
        members: &Map<String, Json>,
        typename: &str,
        fields: &[Candidate<'a>],
    ) -> Result<(), AssembleError> {
        let selected = fields.iter().find(|(f, sure)| *sure && f.identity).map(|(f, _)| f.key.as_str());
        let Some(id) = selected.and_then(|key| members.get(key)) else {
            // A member of a union need not be a vertex: only a field that surely applies must be there.
            return match selected {
                Some(key) => Err(self.error(format!("has no `{key}`, so it cannot be found when it changes"))),
                None if self.path.is_empty() => Err(self.error("the root has no key".into())),
                None => Ok(()),
            };
        };
        let Some(id) = id_text(id) else {
            return Err(self.error(format!("its id is {}, expected a string or a whole number", kind(id))));
        };
        if typename.is_empty() {
            return Err(self.error("has no `__typename`, so it cannot be found when it changes".into()));
        }
        self.refs.insert(Vertex::new(typename, id).reference());
        Ok(())
    }

    fn unexpected(&self, expected: &str, value: &Json) -> AssembleError {
        self.error(format!("expected {expected}, got {}", kind(value)))
    }

    fn error(&self, problem: String) -> AssembleError {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Index(i) => path.push_str(&format!("[{i}]")),
            }
        }
        if path.is_empty() {
            path.push_str("the root");
        }
        AssembleError { path, problem }
    }
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
