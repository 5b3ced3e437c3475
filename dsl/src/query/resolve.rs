//! A query held against the schema: the shape of its documents, its edges, and the operation to send.

use std::collections::BTreeSet;

use async_graphql_parser::types::SelectionSet;

use super::Document;
use super::collect::Group;
use super::leaf::{Scalars, leaf_type, word};
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::{FetchPlan, FieldKind, LeafType, SelectedField, Selection};
use crate::schema::{FieldDef, Schema, TypeRef};

/// Objects inside of one another, at most. Circles of fragments end here.
const MAX_DEPTH: usize = 50;

/// What a query means.
pub(crate) struct Resolved {
    pub root_type: String,
    pub fetch: FetchPlan,
    pub selection: Selection,
    pub edges: Vec<EdgeSite>,
}

/// An edge of a query, and where it stands.
pub(crate) struct EdgeSite {
    pub parent_type: String,
    pub field: String,
    pub child_type: String,
    pub path: String,
    pub spot: Spot,
}

/// The nearest vertices above: their types, and the field that was taken from them, if one was.
#[derive(Clone)]
pub(super) struct Above<'a> {
    pub types: Vec<&'a str>,
    pub field: Option<&'a str>,
}

pub(super) struct Resolver<'a> {
    pub document: &'a Document,
    pub schema: &'a Schema,
    pub scalars: &'a Scalars,
    pub variable: Option<(String, TypeRef)>,
    pub at_root: bool,
    pub typename: &'a FieldDef,
    pub fragments: BTreeSet<&'a str>,
    pub visited: usize,
    pub found: Vec<Diagnostic>,
    pub edges: Vec<EdgeSite>,
    path: Vec<&'a str>,
}

/// Checks a query. What it means is told as far as it can be, for finding more mistakes; where an error was found, it is not
/// good for running.
pub(crate) fn resolve(document: &Document, schema: &Schema, scalars: &Scalars) -> (Option<Resolved>, Vec<Diagnostic>) {
    let typename = FieldDef {
        name: "__typename".into(),
        arguments: Vec::new(),
        ty: TypeRef::NonNull(Box::new(TypeRef::Named("String".into()))),
    };
    let mut resolver = Resolver {
        document,
        schema,
        scalars,
        variable: None,
        at_root: true,
        typename: &typename,
        fragments: BTreeSet::new(),
        visited: 0,
        found: Vec::new(),
        edges: Vec::new(),
        path: Vec::new(),
    };
    let resolved = resolver.operation();
    let fine = !resolver.found.iter().any(Diagnostic::is_error);
    if fine {
        resolver.unused_fragments();
    }
    (resolved, resolver.found)
}

impl<'a> Resolver<'a> {
    pub(super) fn parts(group: &Group<'a>) -> Vec<(&'a str, &'a SelectionSet)> {
        group.occurrences.iter().map(|o| (o.definition.ty.name(), &o.field.selection_set.node)).collect()
    }

    pub(super) fn selection(
        &mut self,
        base: &'a str,
        parts: &[(&'a str, &'a SelectionSet)],
        above: &Above<'a>,
        ignore: bool,
        depth: usize,
    ) -> Selection {
        let groups = self.collect(base, parts);
        let mut selection = Selection::default();
        for (i, group) in groups.iter().enumerate() {
            self.same_field(&groups[..i], group);
            let Some(first) = group.occurrences.first() else { continue };
            if depth >= MAX_DEPTH {
                let spot = self.document.name_spot(&first.field.name);
                self.found.push(
                    spot.error(format!("more than {MAX_DEPTH} objects inside of one another"))
                        .help("does a fragment contain itself?"),
                );
                break;
            }
            self.path.push(group.key);
            if let Some(kind) = self.kind(group, above, ignore, depth) {
                selection.fields.push(SelectedField {
                    key: group.key.to_owned(),
                    name: first.definition.name.clone(),
                    on: group.on.map(str::to_owned),
                    hidden: false,
                    list: first.definition.ty.is_list(),
                    kind,
                });
            }
            self.path.pop();
        }
        self.same_kinds(&groups, &selection);
        selection.fields.splice(0..0, hidden(self.schema, base, &selection));
        selection
    }

    fn kind(&mut self, group: &Group<'a>, above: &Above<'a>, ignore: bool, depth: usize) -> Option<FieldKind> {
        let first = group.occurrences.first()?;
        let spot = self.document.name_spot(&first.field.name);
        let marked = group.occurrences.iter().find(|o| o.marks.leaf.is_some());
        let mark = marked.and_then(|o| o.marks.leaf.clone());
        for other in group.occurrences.iter().filter(|o| o.marks.leaf.is_some() && o.marks.leaf != mark) {
            let at = self.document.name_spot(&other.field.name);
            self.found.push(at.error(format!("`{}` is selected elsewhere with another directive", group.key)));
        }
        let nested = group.occurrences.iter().any(|o| o.marks.nested);
        let ty = &first.definition.ty;
        if !self.schema.is_composite(ty.name()) {
            if nested {
                self.found.push(
                    spot.error("`@nested` is for lists of objects")
                        .help(format!("`{}` is `{ty}`", first.field.name.node)),
                );
            }
            return self
                .leaf(ty.name(), mark, &spot)
                .map(|leaf| if ignore { LeafType::Ignore } else { leaf })
                .map(FieldKind::Leaf);
        }
        match &mark {
            Some(LeafType::Ignore) | None => {}
            Some(leaf) => {
                let message = format!("`@{}` is for values, and `{}` is an object", word(leaf), first.field.name.node);
                self.found.push(spot.error(message).help("write it on a field of the object"));
            }
        }
        if nested && !ty.is_list() {
            self.found.push(
                spot.error("`@nested` is for lists of objects")
                    .help(format!("`{}` is `{ty}`, a single one", first.field.name.node)),
            );
        }
        let below = self.edge(group, above, ty.name(), &spot);
        let vertex = !self.schema.vertices(ty.name()).is_empty();
        let parts = Self::parts(group);
        let selection = self.selection(ty.name(), &parts, &below, ignore || mark.is_some(), depth + 1);
        Some(FieldKind::Object { vertex, nested, selection })
    }

    /// Notes the edges that a field is, and says what is above the fields below it.
    fn edge(&mut self, group: &Group<'a>, above: &Above<'a>, type_name: &'a str, spot: &Spot) -> Above<'a> {
        let first = group.occurrences.first().map_or("", |o| o.definition.name.as_str());
        let field = above.field.unwrap_or(first);
        let parents: Vec<&str> = match (above.field, group.on) {
            (None, Some(on)) => vec![on],
            _ => above.types.clone(),
        };
        let children = self.schema.vertices(type_name);
        if children.is_empty() {
            return Above { types: parents, field: Some(field) };
        }
        for parent in parents.iter().filter(|parent| self.schema.has_id(parent)) {
            for child in &children {
                let site = EdgeSite {
                    parent_type: (*parent).to_owned(),
                    field: field.to_owned(),
                    child_type: (*child).to_owned(),
                    path: self.path.join("."),
                    spot: spot.clone(),
                };
                let known = |e: &EdgeSite| e.path == site.path && e.parent_type == *parent && e.child_type == *child;
                if !self.edges.iter().any(known) {
                    self.edges.push(site);
                }
            }
        }
        Above { types: children, field: None }
    }

    fn leaf(&mut self, type_name: &str, mark: Option<LeafType>, spot: &Spot) -> Option<LeafType> {
        let by_type = leaf_type(self.schema, self.scalars, type_name);
        match (mark, by_type) {
            (Some(LeafType::Text { .. }), Some(leaf)) if !matches!(leaf, LeafType::Keyword | LeafType::Text { .. }) => {
                let message = format!("`@text` is for text, and `{type_name}` is indexed as {}", word(&leaf));
                self.found.push(spot.error(message));
                None
            }
            (Some(mark), _) => Some(mark),
            (None, Some(leaf)) => Some(leaf),
            (None, None) => {
                let help = format!(
                    "say so in the pipeline: `graph: {{ scalars: {{ {type_name}: keyword }} }}`\n\
                     (or long, double, boolean, text, date, object, ignore), or write `@keyword` or `@ignore` here"
                );
                self.found
                    .push(spot.error(format!("nothing is known of how to index the scalar `{type_name}`")).help(help));
                None
            }
        }
    }

    fn unused_fragments(&mut self) {
        let mut unused: Vec<_> =
            self.document.parsed.fragments.iter().filter(|(name, _)| !self.fragments.contains(name.as_str())).collect();
        unused.sort_by_key(|(_, fragment)| fragment.pos);
        for (name, fragment) in unused {
            let spot = self.document.spot(fragment.pos, "fragment ".len() + name.len());
            self.found.push(spot.warning(format!("the fragment `{name}` is never used")));
        }
    }
}

/// What we select besides, to find vertices in the answer.
fn hidden(schema: &Schema, base: &str, selection: &Selection) -> Vec<SelectedField> {
    let field = |name: &str, on: Option<&str>| SelectedField {
        key: name.to_owned(),
        name: name.to_owned(),
        on: on.map(str::to_owned),
        hidden: true,
        list: false,
        kind: FieldKind::Leaf(LeafType::Keyword),
    };
    let mut fields = vec![field("__typename", None)];
    let selected = |on: Option<&str>| selection.fields.iter().any(|f| f.key == "id" && f.on.as_deref() == on);
    if schema.has_id(base) {
        if !selected(None) {
            fields.push(field("id", None));
        }
    } else {
        fields.extend(schema.vertices(base).into_iter().filter(|t| !selected(Some(t))).map(|t| field("id", Some(t))));
    }
    fields
}
