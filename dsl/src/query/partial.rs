//! Lists that documents show in part: cut, filtered or counted. A member that a document does not show can change it all the same:
//! it may come to be shown when it changes; and where members are counted, or shown by their place among all, also by going away.

use async_graphql_parser::Positioned;
use async_graphql_value::{Name, Value};

use super::collect::Group;
use crate::schema::{ArgumentDef, FieldDef, Schema};

/// Arguments that cut a list, in lower case without `_`.
const PAGING: [&str; 16] = [
    "first",
    "last",
    "limit",
    "take",
    "top",
    "pagesize",
    "size",
    "perpage",
    "page",
    "offset",
    "skip",
    "after",
    "before",
    "cursor",
    "pagination",
    "paging",
];
/// Arguments that change neither which members a list has nor how many.
const HARMLESS: [&str; 11] =
    ["orderby", "order", "sort", "sortby", "sorting", "ordering", "locale", "lang", "language", "format", "unit"];

/// A list that a document shows in part, and the argument or the field that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Some members: what the others do matters when they come to be shown.
    Cut(String),
    /// The same, if the server has a limit of its own: of this argument, which is left out.
    Silent(String),
    /// Some members by their place, or how many there are: every member matters, also when it goes away.
    Counted(String),
}

impl Part {
    /// What says so.
    pub fn why(&self) -> String {
        match self {
            Self::Cut(why) | Self::Counted(why) => why.clone(),
            Self::Silent(name) => format!("the server's limit, where `{name}:` is left out"),
        }
    }

    pub fn is_counted(&self) -> bool {
        matches!(self, Self::Counted(_))
    }
}

fn bare(name: &str) -> String {
    name.to_lowercase().replace('_', "")
}

/// Whether an argument says how much of a list is answered.
pub(crate) fn is_paging(name: &str) -> bool {
    PAGING.contains(&bare(name).as_str())
}

fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&bare(name).as_str())
}

/// Whether a field holds several objects: a list, or a connection.
fn is_several(schema: &Schema, definition: &FieldDef) -> bool {
    definition.ty.is_list() || schema.connection(definition.ty.name()).is_some()
}

/// Whether a connection is asked for without saying how much of it, and can say whether it is cut all the same.
pub(super) fn asks_for_all(
    schema: &Schema,
    definition: &FieldDef,
    arguments: &[(Positioned<Name>, Positioned<Value>)],
) -> bool {
    schema.connection(definition.ty.name()).is_some()
        && schema.tells_next_page(definition.ty.name())
        && !arguments.iter().any(|(name, value)| is_paging(&name.node) && value.node != Value::Null)
}

/// How much of what a field leads to is shown, by its arguments. `None`: all.
/// `whole`: the server has no limit of its own.
pub(super) fn cut_by(schema: &Schema, group: &Group<'_>, whole: bool) -> Option<Part> {
    let first = group.occurrences.first()?;
    if !is_several(schema, first.definition) {
        return None;
    }
    let given = || {
        let matters = |(name, value): &&(Positioned<Name>, Positioned<Value>)| {
            value.node != Value::Null && !is_harmless(&name.node)
        };
        first.field.arguments.iter().filter(matters).map(|(name, _)| name.node.as_str())
    };
    if let Some(name) = given().find(|name| is_open(name)) {
        return Some(Part::Counted(format!("`{name}:`")));
    }
    if let Some(name) = given().next() {
        return Some(Part::Cut(format!("`{name}:`")));
    }
    let by_default =
        first.definition.arguments.iter().find(|a| a.has_default && is_paging(&a.name) && !is_open(&a.name));
    let silent = || {
        let limit = silent_limit(schema, group).filter(|_| !whole);
        limit.map(|name| Part::Silent(name.to_owned()))
    };
    by_default.map(|a| Part::Cut(format!("the default of `{}:`", a.name))).or_else(silent)
}

/// The object that a list is filtered by, if it is filtered by what its members lead to.
pub(super) fn filtered_through(schema: &Schema, group: &Group<'_>) -> Option<String> {
    let first = group.occurrences.first()?;
    let type_name = first.definition.ty.name();
    let member = schema.connection(type_name).map_or(type_name, |(_, node)| node);
    let of = |(name, value): &(Positioned<Name>, Positioned<Value>)| {
        if is_paging(&name.node) || is_harmless(&name.node) { None } else { leads_to(schema, member, &value.node) }
    };
    first.field.arguments.iter().filter(|_| is_several(schema, first.definition)).find_map(of)
}

fn leads_to(schema: &Schema, member: &str, value: &Value) -> Option<String> {
    match value {
        Value::List(items) => items.iter().find_map(|item| leads_to(schema, member, item)),
        Value::Object(members) => members.iter().find_map(|(key, value)| {
            let field = schema.field(member, key);
            let relation = field.is_some_and(|field| schema.is_composite(field.ty.name()));
            if relation && matches!(value, Value::Object(_)) {
                return Some(key.to_string());
            }
            // `and`, `or` and the like hold conditions of the member itself.
            if field.is_none() { leads_to(schema, member, value) } else { None }
        }),
        _ => None,
    }
}

/// Arguments that say where among all members the shown ones begin; their default is the beginning.
fn is_open(name: &str) -> bool {
    ["offset", "skip", "page", "after", "before", "cursor"].contains(&bare(name).as_str())
}

/// Whether a root field may answer fewer than it is asked for.
pub(crate) fn can_be_cut(root: &FieldDef) -> bool {
    root.arguments.iter().any(|a| is_paging(&a.name))
}

/// The argument that a list without pages is cut by, where the query does not give it: the server may have a limit of its own.
fn silent_limit<'a>(schema: &Schema, group: &Group<'a>) -> Option<&'a str> {
    limit(schema, group).filter(|a| !a.has_default).map(|a| a.name.as_str())
}

/// The argument that a root field is cut by, where the query does not give it: by its default, or by a limit of the server.
pub(super) fn limit_of_root<'a>(schema: &Schema, group: &Group<'a>) -> Option<&'a str> {
    limit(schema, group).map(|a| a.name.as_str())
}

fn limit<'a>(schema: &Schema, group: &Group<'a>) -> Option<&'a ArgumentDef> {
    let first = group.occurrences.first()?;
    let cuts = |name: &str| is_paging(name) && !is_open(name);
    let given = first.field.arguments.iter().any(|(name, _)| cuts(&name.node));
    let listed = first.definition.ty.is_list() && schema.connection(first.definition.ty.name()).is_none();
    let takes = first.definition.arguments.iter().filter(|a| cuts(&a.name)).min_by_key(|a| a.has_default);
    takes.filter(|_| listed && !given)
}

/// The field of a connection that says something about members that are not shown, such as `totalCount`.
pub(super) fn counted_by<'a>(schema: &Schema, type_name: &str, groups: &[Group<'a>]) -> Option<Part> {
    schema.connection(type_name)?;
    let outside = |group: &&Group<'a>| {
        group.occurrences.first().is_some_and(|o| !["nodes", "edges"].contains(&o.definition.name.as_str()))
    };
    let counted = groups.iter().find(outside)?;
    Some(Part::Counted(format!("`{}`", counted.occurrences.first()?.definition.name)))
}
