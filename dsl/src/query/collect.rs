//! Fields of an object by response key, those of fragments among them (GraphQL specification, 6.3.2), each checked
//! against the schema on the way.

use std::collections::BTreeSet;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{Field, Selection, SelectionSet};
use async_graphql_value::Name;

use super::resolve::Resolver;
use super::{directives, values};
use crate::schema::FieldDef;
use crate::suggest::{did_you_mean, suggestion};

/// Fields of a query, fragments counted as often as they are spread, at most.
const MAX_FIELDS: usize = 20_000;

/// One place that selects a field.
#[derive(Clone)]
pub(super) struct Occurrence<'a> {
    /// The object types it applies to; `None`: all that the object can be.
    pub on: Option<BTreeSet<&'a str>>,
    pub field: &'a Field,
    pub definition: &'a FieldDef,
    pub marks: directives::Marks,
}

/// Places that select one field of one object, together.
pub(super) struct Group<'a> {
    pub key: &'a str,
    pub on: Option<&'a str>,
    pub occurrences: Vec<Occurrence<'a>>,
}

impl<'a> Resolver<'a> {
    /// Fields by key and type condition, in the order of the query.
    pub(super) fn collect(&mut self, base: &'a str, parts: &[(&'a str, &'a SelectionSet)]) -> Vec<Group<'a>> {
        let mut all = Vec::new();
        for (scope, set) in parts {
            let on = self.narrow(base, None, scope);
            self.gather(base, scope, on, set, &mut Vec::new(), &mut all);
        }
        let mut groups: Vec<Group<'a>> = Vec::new();
        for occurrence in all {
            let key = occurrence.field.response_key().node.as_str();
            let on: Vec<Option<&str>> = match &occurrence.on {
                None => vec![None],
                Some(types) => types.iter().map(|t| Some(*t)).collect(),
            };
            for on in on {
                match groups.iter_mut().find(|g| g.key == key && g.on == on) {
                    Some(group) => group.occurrences.push(occurrence.clone()),
                    None => groups.push(Group { key, on, occurrences: vec![occurrence.clone()] }),
                }
            }
        }
        groups
    }

    /// The object types that are left when an object must be of a type as well; `None`: all of them.
    fn narrow(&self, base: &str, on: Option<&BTreeSet<&'a str>>, condition: &str) -> Option<BTreeSet<&'a str>> {
        let all = self.schema.possible(base);
        let condition = self.schema.possible(condition);
        let left: BTreeSet<&str> = on.unwrap_or(&all).intersection(&condition).copied().collect();
        (left.len() < all.len()).then_some(left)
    }

    fn gather(
        &mut self,
        base: &'a str,
        scope: &'a str,
        on: Option<BTreeSet<&'a str>>,
        set: &'a SelectionSet,
        within: &mut Vec<&'a str>,
        out: &mut Vec<Occurrence<'a>>,
    ) {
        for item in &set.items {
            self.visited += 1;
            if self.visited > MAX_FIELDS {
                if self.visited == MAX_FIELDS + 1 {
                    let spot = self.document.spot(item.pos, 1);
                    self.found.push(spot.error(format!("the query selects more than {MAX_FIELDS} fields")));
                }
                return;
            }
            match &item.node {
                Selection::Field(field) => {
                    if let Some((definition, marks)) = self.field(scope, field) {
                        out.push(Occurrence { on: on.clone(), field: &field.node, definition, marks });
                    }
                }
                Selection::InlineFragment(fragment) => {
                    directives::read(self.document, self.schema, &fragment.node.directives, false, &mut self.found);
                    let condition = match &fragment.node.type_condition {
                        None => Some((scope, on.clone())),
                        Some(condition) => self.apply(base, scope, on.as_ref(), &condition.node.on, None),
                    };
                    if let Some((scope, on)) = condition {
                        self.gather(base, scope, on, &fragment.node.selection_set.node, within, out);
                    }
                }
                Selection::FragmentSpread(spread) => {
                    directives::read(self.document, self.schema, &spread.node.directives, false, &mut self.found);
                    let name = &spread.node.fragment_name;
                    let Some((known, fragment)) = self.document.parsed.fragments.get_key_value(&name.node) else {
                        let names = self.document.parsed.fragments.keys().map(Name::as_str);
                        let help = did_you_mean(&name.node, names);
                        let spot = self.document.name_spot(name);
                        self.found.push(spot.error(format!("there is no fragment `{}`", name.node)).maybe_help(help));
                        continue;
                    };
                    self.fragments.insert(known.as_str());
                    // Inside of itself at one level; deeper circles are found by their depth.
                    if within.contains(&known.as_str()) {
                        let spot = self.document.name_spot(name);
                        self.found.push(spot.error(format!("the fragment `{known}` contains itself")));
                        continue;
                    }
                    directives::read(self.document, self.schema, &fragment.node.directives, false, &mut self.found);
                    let condition = &fragment.node.type_condition.node.on;
                    if let Some((scope, on)) = self.apply(base, scope, on.as_ref(), condition, Some(name)) {
                        within.push(known.as_str());
                        self.gather(base, scope, on, &fragment.node.selection_set.node, within, out);
                        within.pop();
                    }
                }
            }
        }
    }

    /// A fragment's type condition; `None`: it is wrong, or never holds.
    fn apply(
        &mut self,
        base: &'a str,
        scope: &str,
        on: Option<&BTreeSet<&'a str>>,
        condition: &'a Positioned<Name>,
        spread: Option<&Positioned<Name>>,
    ) -> Option<(&'a str, Option<BTreeSet<&'a str>>)> {
        let name = condition.node.as_str();
        let spot = self.document.name_spot(condition);
        match self.schema.get(name) {
            None => {
                let help = did_you_mean(name, self.schema.type_names());
                self.found.push(spot.error(format!("unknown type `{name}`")).maybe_help(help));
                return None;
            }
            Some(ty) if !ty.is_composite() => {
                self.found.push(spot.error(format!("`{name}` has no fields, so no fragment applies to it")));
                return None;
            }
            Some(_) => {}
        }
        let on = self.narrow(base, on, name);
        if on.as_ref().is_some_and(BTreeSet::is_empty) {
            let at = spread.map_or(spot, |name| self.document.name_spot(name));
            self.found.push(at.error(format!("this fragment can never apply: no `{scope}` is a `{name}`")));
            return None;
        }
        Some((name, on))
    }

    /// One selected field; `None`: it is not in the schema.
    fn field(&mut self, scope: &str, field: &'a Positioned<Field>) -> Option<(&'a FieldDef, directives::Marks)> {
        let node = &field.node;
        let name = node.name.node.as_str();
        let spot = self.document.name_spot(&node.name);
        let key = node.response_key();
        let marks = directives::read(self.document, self.schema, &node.directives, true, &mut self.found);
        if key.node.starts_with('_') && !self.at_root {
            let help = match name {
                "__typename" => "give it an alias, such as `type: __typename`".to_owned(),
                _ => format!("give it an alias, such as `{}: {name}`", key.node.trim_start_matches('_')),
            };
            let message = format!("`{}`: names of a document's fields must not start with `_`", key.node);
            self.found.push(self.document.name_spot(key).error(message).help(help));
        }
        if name == "__typename" {
            return Some((self.typename, marks));
        }
        let schema = self.schema;
        let Some(definition) = schema.field(scope, name) else {
            if let Some((way, member)) = schema.connection(scope)
                && schema.field(member, name).is_some()
            {
                // Once for all fields that are sought in the wrong place.
                let message = format!(
                    "`{scope}` is a page of a list: its members (`{member}`) have the fields, such as `{name}`"
                );
                let known = message.split(':').next().unwrap_or_default();
                if !self.found.iter().any(|told| told.message.starts_with(known)) {
                    let way = if schema.walk(scope, &["nodes"]).is_some() { &["nodes"] } else { way };
                    let (open, close) = (way.join(" { "), " }".repeat(way.len()));
                    self.found.push(spot.error(message).help(format!("write `{open} {{ {name} …{close}`")));
                }
                return None;
            }
            let fields = schema.fields(scope).iter().map(|f| f.name.as_str());
            let narrower = || {
                let owner = schema.possible(scope).into_iter().find(|t| schema.field(t, name).is_some());
                owner.filter(|t| *t != scope).map(|t| format!("`{t}` has it: write `... on {t} {{ {name} }}`"))
            };
            let help = did_you_mean(name, fields.clone()).or_else(narrower).or_else(|| suggestion(name, fields));
            self.found.push(spot.error(format!("`{scope}` has no field `{name}`")).maybe_help(help));
            return None;
        };
        let variables = values::Variables {
            declared: &self.declared,
            ill_typed: self.ill_typed.as_deref(),
            ids: self.variable.as_ref().map(|variable| variable.name.as_str()).filter(|_| !self.at_root),
        };
        let arguments = &definition.arguments;
        values::check_arguments(self.document, schema, arguments, &node.arguments, variables, &spot, &mut self.found);
        let type_name = definition.ty.name();
        let composite = schema.is_composite(type_name);
        if composite && node.selection_set.node.items.is_empty() {
            let help = format!("select fields of it: `{name} {{ … }}`");
            self.found.push(spot.error(format!("`{name}` is an object (`{type_name}`)")).help(help));
            return None;
        }
        if !composite && !node.selection_set.node.items.is_empty() {
            self.found.push(spot.error(format!("`{name}` is a value (`{type_name}`) and has no fields")));
            return None;
        }
        Some((definition, marks))
    }
}
