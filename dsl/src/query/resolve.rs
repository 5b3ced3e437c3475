//! A query held against the schema: the shape of its documents, its edges, and the operation to send.

use std::collections::{BTreeMap, BTreeSet};

use async_graphql_parser::types::SelectionSet;

use super::Document;
use super::collect::Group;
use super::leaf::{Scalars, leaf_type, word};
use super::partial::{Part, asks_for_all, counted_by, cut_by, filtered_through};
use super::root::IdVariable;
use super::values::{Constants, aliased, unused_variables};
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::{FieldKind, LeafType, Place, Question, SelectedField, Selection};
use crate::schema::{FieldDef, Identity, Schema, TypeRef};

/// The response key of the `pageInfo` that we ask for.
pub(super) const PAGE: &str = "_page";

/// Objects inside of one another, at most. Circles of fragments end here.
const MAX_DEPTH: usize = 50;

/// What a query means.
pub(crate) struct Resolved {
    pub root_type: String,
    pub fetch: Question,
    pub selection: Selection,
    pub edges: Vec<EdgeSite>,
    /// The values of vertices that documents show: the vertex's type, and the field; and where each stands first.
    pub values: BTreeMap<(String, String), Place>,
}

/// An edge of a query, and where it stands.
pub(crate) struct EdgeSite {
    pub parent_type: String,
    pub field: String,
    pub child_type: String,
    /// As users see it: by the names that fields have in the document.
    pub path: String,
    /// What a document shows of the children, if not all.
    pub partial: Option<Part>,
    /// Whether the children are the list's own members, and not what those lead to.
    pub member: bool,
    /// Whether the children are no vertices, so that only a table's rows can tell of them.
    pub keyless: bool,
    pub spot: Spot,
}

/// The nearest vertices above: their types, and the field that was taken from them, if one was; and why members of what it leads to
/// may not be shown.
#[derive(Clone)]
pub(super) struct Above<'a> {
    pub types: Vec<&'a str>,
    pub field: Option<&'a str>,
    pub partial: Option<Part>,
    /// The type of the members of the list that the field is, if it is one whose members are no vertices.
    pub members: Option<&'a str>,
}

pub(super) struct Resolver<'a> {
    pub document: &'a Document,
    pub schema: &'a Schema,
    pub scalars: &'a Scalars,
    /// Values of variables by the pipeline's word.
    pub constants: &'a Constants,
    /// Lists that the server answers whole where it is not told how many: type and field.
    pub whole: &'a BTreeSet<(String, String)>,
    /// The variables of the operation.
    pub declared: Vec<(String, TypeRef)>,
    /// The one among them that takes the ids.
    pub variable: Option<IdVariable>,
    /// Its name, if it can take no ids by its type, which was said.
    pub ill_typed: Option<String>,
    /// Response keys that stand for something else than the field of that name.
    aliased: BTreeSet<&'a str>,
    pub at_root: bool,
    pub typename: &'a FieldDef,
    pub fragments: BTreeSet<&'a str>,
    pub visited: usize,
    pub found: Vec<Diagnostic>,
    pub edges: Vec<EdgeSite>,
    pub values: BTreeMap<(String, String), Place>,
    path: Vec<&'a str>,
}

/// Checks a query. What it means is told as far as it can be, for finding more mistakes; where an error was found, it is not
/// good for running.
pub(crate) fn resolve(
    document: &Document,
    schema: &Schema,
    scalars: &Scalars,
    constants: &Constants,
    whole: &BTreeSet<(String, String)>,
) -> (Option<Resolved>, Vec<Diagnostic>) {
    let typename = FieldDef {
        name: "__typename".into(),
        arguments: Vec::new(),
        ty: TypeRef::NonNull(Box::new(TypeRef::Named("String".into()))),
    };
    let mut resolver = Resolver {
        document,
        schema,
        scalars,
        constants,
        whole,
        declared: Vec::new(),
        variable: None,
        ill_typed: None,
        aliased: aliased(document),
        at_root: true,
        typename: &typename,
        fragments: BTreeSet::new(),
        visited: 0,
        found: Vec::new(),
        edges: Vec::new(),
        values: BTreeMap::new(),
        path: Vec::new(),
    };
    let resolved = resolver.operation();
    let fine = !resolver.found.iter().any(Diagnostic::is_error);
    if fine {
        resolver.unused_fragments();
        let unused = unused_variables(resolver.document);
        resolver.found.extend(unused);
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
            let flatten = group.occurrences.iter().any(|o| o.marks.flatten);
            if !flatten {
                self.path.push(group.key);
            }
            if let Some(kind) = self.kind(group, above, ignore, depth) {
                selection.fields.push(SelectedField {
                    key: group.key.to_owned(),
                    on: group.on.map(str::to_owned),
                    flatten,
                    list: first.definition.ty.is_list(),
                    ..SelectedField::new(first.definition.name.as_str(), kind)
                });
            }
            if !flatten {
                self.path.pop();
            }
        }
        self.same_kinds(&groups, &selection);
        // At the document itself that is told otherwise.
        if depth > 0 {
            self.flattened(&groups);
        }
        self.identify(base, &mut selection);
        selection
    }

    /// A field that takes its object's place has nothing beside it.
    fn flattened(&mut self, groups: &[Group<'a>]) {
        let marked = |group: &&Group<'a>| group.occurrences.iter().any(|o| o.marks.flatten);
        let Some(field) = groups.iter().find(marked) else { return };
        let Some(at) = field.occurrences.iter().find(|o| o.marks.flatten) else { return };
        let spot = self.document.name_spot(&at.field.name);
        if let Some(other) = groups.iter().find(|group| group.key != field.key) {
            let message = format!(
                "`{}` cannot take the place of its object, for `{}` is selected beside it",
                field.key, other.key
            );
            let help = format!("remove `@flatten`, or `{}`", other.key);
            self.found.push(spot.error(message).help(help));
        } else if field.on.is_some() {
            let message =
                format!("`{}` is there for some types only, so it cannot take the place of its object", field.key);
            self.found.push(spot.error(message).help("remove `@flatten`"));
        }
    }

    /// A document cannot be replaced by one of its fields.
    pub(super) fn one_level(&mut self, selection: &Selection, parts: &[(&'a str, &'a SelectionSet)]) {
        if !selection.fields.iter().any(|field| field.flatten) {
            return;
        }
        for group in self.collect(selection_base(parts), parts) {
            for marked in group.occurrences.iter().filter(|o| o.marks.flatten) {
                let spot = self.document.name_spot(&marked.field.name);
                let help = "write `@flatten` further down, at the only field of an object";
                self.found.push(spot.error("a document is an object, which no field can take the place of").help(help));
            }
        }
    }

    /// What we select besides, to find vertices in the answer; and which fields are their keys.
    fn identify(&self, base: &'a str, selection: &mut Selection) {
        let hidden = |key: String, name: &str, on: Option<&str>, identity: bool| SelectedField {
            key,
            on: on.map(str::to_owned),
            hidden: true,
            identity,
            ..SelectedField::new(name, FieldKind::Leaf(LeafType::Keyword))
        };
        let mut fields = vec![hidden("__typename".to_owned(), "__typename", None, false)];
        for identity in self.schema.identities(base) {
            let key = self.response_key(&identity);
            let selected = selection
                .fields
                .iter_mut()
                .find(|field| field.key == key && field.name == identity.field && field.on.as_deref() == identity.on);
            match selected {
                Some(field) => field.identity = true,
                None => fields.push(hidden(key, identity.field, identity.on, true)),
            }
        }
        selection.fields.splice(0..0, fields);
    }

    /// The response key of an id.
    pub(super) fn response_key(&self, identity: &Identity<'_>) -> String {
        match identity.on {
            Some(member) if identity.contested => format!("_{}_{member}", identity.field),
            _ if self.aliased.contains(identity.field) => format!("_{}", identity.field),
            _ => identity.field.to_owned(),
        }
    }

    /// A type whose objects cannot be told apart.
    pub(super) fn no_key(&self, type_name: &str, spot: &Spot) -> Diagnostic {
        crate::suggest::no_key(self.schema, type_name, &[], |message| spot.error(message))
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
            self.value(group, above);
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
        let parts = Self::parts(group);
        let below = self.edge(group, above, &parts, &spot);
        let before = self.edges.len();
        let vertex = !self.schema.vertices(ty.name()).is_empty();
        let mut selection = self.selection(ty.name(), &parts, &below, ignore || mark.is_some(), depth + 1);
        if self.schema.connection(ty.name()).is_some() {
            self.members(&below, ty.name(), before, &spot);
            if asks_for_all(self.schema, first.definition, &first.field.arguments) {
                selection.fields.push(last_page());
            }
        }
        let kind = FieldKind::Object { vertex, nested, selection };
        if nested {
            self.can_nest(&kind, ty, &first.field.name.node, &spot);
        }
        Some(kind)
    }

    /// Notes a value that a vertex has itself.
    fn value(&mut self, group: &Group<'a>, above: &Above<'a>) {
        let Some(first) = group.occurrences.first().filter(|_| above.field.is_none()) else { return };
        let (types, name) = (group.on.map_or_else(|| above.types.clone(), |on| vec![on]), &first.definition.name);
        for vertex in types.into_iter().filter(|_| !name.starts_with("__")) {
            let identities = self.schema.identities(vertex);
            if !identities.is_empty() && identities.iter().all(|identity| identity.field != name) {
                let place = || Place::of(&self.document.name_spot(&first.field.name));
                self.values.entry((vertex.to_owned(), name.clone())).or_insert_with(place);
            }
        }
    }

    /// Whether what a field shows is a list of objects.
    fn can_nest(&mut self, kind: &FieldKind, ty: &TypeRef, name: &str, spot: &Spot) {
        let field = SelectedField { list: ty.is_list(), ..SelectedField::new(name, kind.clone()) };
        let help = match field.shown() {
            (FieldKind::Object { .. }, true) => return,
            (FieldKind::Object { .. }, false) => format!("`{name}` is `{ty}`, a single one"),
            _ => format!("`@flatten` leaves values of `{name}`, and no objects"),
        };
        self.found.push(spot.error("`@nested` is for lists of objects").help(help));
    }

    /// Notes the edges that a field is, and says what is above the fields below it.
    fn edge(
        &mut self,
        group: &Group<'a>,
        above: &Above<'a>,
        parts: &[(&'a str, &'a SelectionSet)],
        spot: &Spot,
    ) -> Above<'a> {
        let Some(first) = group.occurrences.first() else { return above.clone() };
        let type_name = first.definition.ty.name();
        let field = above.field.unwrap_or(first.definition.name.as_str());
        let parents: Vec<&str> = match (above.field, group.on) {
            (None, Some(on)) => vec![on],
            _ => above.types.clone(),
        };
        let whole = parents.iter().all(|parent| self.whole.contains(&((*parent).to_owned(), field.to_owned())));
        let mut partial = above.partial.clone().or_else(|| cut_by(self.schema, group, whole));
        if self.schema.connection(type_name).is_some() {
            // What is wrong with these fields is said when they are taken.
            let found = self.found.len();
            let groups = self.collect(type_name, parts);
            self.found.truncate(found);
            partial = counted_by(self.schema, type_name, &groups).or(partial);
        }
        if let Some(other) = filtered_through(self.schema, group) {
            let name = &first.definition.name;
            let message = format!(
                "`{name}` is filtered by `{other}`, another object: when that one changes, documents that begin or cease to show a \
                 member would not hear of it"
            );
            let help = "filter by values that the members have themselves";
            self.found.push(spot.error(message).help(help));
        }
        let children = self.schema.vertices(type_name);
        if children.is_empty() {
            let members = match self.schema.connection(type_name) {
                Some((_, node)) => Some(node),
                None if first.definition.ty.is_list() => above.members.or(Some(type_name)),
                None => above.members,
            };
            return Above { types: parents, field: Some(field), partial, members };
        }
        let member = above.members.is_none_or(|members| members == type_name);
        for child in &children {
            self.site((&parents, field, child), (partial.as_ref(), member), spot);
        }
        Above { types: children, field: None, partial: None, members: None }
    }

    /// The edges to the members of a connection that were not noted yet: none is selected, or they are no vertices.
    fn members(&mut self, above: &Above<'a>, connection: &str, before: usize, spot: &Spot) {
        let (Some(field), Some((_, node))) = (above.field, self.schema.connection(connection)) else { return };
        if self.edges[before..]
            .iter()
            .any(|site| site.field == field && above.types.contains(&site.parent_type.as_str()))
        {
            return;
        }
        let vertices = self.schema.vertices(node);
        let children = if vertices.is_empty() { vec![node] } else { vertices };
        for child in children {
            self.site((&above.types, field, child), (above.partial.as_ref(), true), spot);
        }
    }

    fn site(
        &mut self,
        (parents, field, child): (&[&str], &str, &str),
        (partial, member): (Option<&Part>, bool),
        spot: &Spot,
    ) {
        for parent in parents.iter().filter(|parent| self.schema.is_vertex(parent)) {
            let site = EdgeSite {
                parent_type: (*parent).to_owned(),
                field: field.to_owned(),
                child_type: child.to_owned(),
                path: self.path.join("."),
                partial: partial.cloned(),
                member,
                keyless: !self.schema.is_vertex(child),
                spot: spot.clone(),
            };
            let known = |e: &EdgeSite| e.path == site.path && e.parent_type == *parent && e.child_type == child;
            if !self.edges.iter().any(known) {
                self.edges.push(site);
            }
        }
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

fn selection_base<'a>(parts: &[(&'a str, &'a SelectionSet)]) -> &'a str {
    parts.first().map_or("", |(base, _)| base)
}

/// What shows that a list was not cut.
fn last_page() -> SelectedField {
    SelectedField { key: PAGE.to_owned(), hidden: true, ..SelectedField::new("pageInfo", FieldKind::LastPage) }
}
