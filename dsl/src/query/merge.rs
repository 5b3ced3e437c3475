//! What one response key stands for must be one thing: in the answer, and in the index.

use async_graphql_parser::types::Field;

use super::collect::Group;
use super::leaf::word;
use super::resolve::Resolver;
use crate::plan::{FieldKind, LeafType, SelectedField, Selection};
use crate::schema::TypeRef;

impl<'a> Resolver<'a> {
    /// One key of one object is one field with one set of arguments (GraphQL specification, 5.3.2).
    pub(super) fn same_field(&mut self, before: &[Group<'a>], group: &Group<'a>) {
        let overlapping = before.iter().filter(|g| g.key == group.key && (g.on.is_none() || group.on.is_none()));
        let all: Vec<&Field> = overlapping.chain([group]).flat_map(|g| g.occurrences.iter().map(|o| o.field)).collect();
        let Some((first, rest)) = all.split_first() else { return };
        for other in rest {
            let spot = self.document.name_spot(other.response_key());
            if other.name.node != first.name.node {
                let message = format!("`{}` is both `{}` and `{}`", group.key, first.name.node, other.name.node);
                self.found.push(spot.error(message).help("give one of them another alias"));
            } else if !same_arguments(first, other) {
                let message = format!("`{}` is selected elsewhere with other arguments", group.key);
                self.found.push(spot.error(message).help("give one of them an alias"));
            }
        }
    }

    /// One key of an index is of one kind, whichever type the object has.
    pub(super) fn same_kinds(&mut self, groups: &[Group<'a>], selection: &Selection) {
        for (i, group) in groups.iter().enumerate() {
            let kind =
                |group: &Group| selection.fields.iter().find(|f| f.key == group.key && f.on.as_deref() == group.on);
            for earlier in groups[..i].iter().filter(|g| g.key == group.key) {
                let (Some(a), Some(b)) = (kind(earlier), kind(group)) else { continue };
                let (Some(x), Some(y)) = (earlier.occurrences.first(), group.occurrences.first()) else { continue };
                let (first, second) = (described(a, &x.definition.ty), described(b, &y.definition.ty));
                if first != second {
                    let message = format!("`{}` is {second} here and {first} in another fragment", group.key);
                    let spot = self.document.name_spot(y.field.response_key());
                    self.found
                        .push(spot.error(message).help("one field of an index cannot hold both: give one an alias"));
                }
            }
        }
    }
}

fn same_arguments(a: &Field, b: &Field) -> bool {
    let value = |field: &Field, name: &str| field.get_argument(name).map(|value| value.node.to_string());
    a.arguments.len() == b.arguments.len()
        && a.arguments.iter().all(|(name, _)| value(a, &name.node) == value(b, &name.node))
}

fn described(field: &SelectedField, ty: &TypeRef) -> String {
    let nested = matches!(&field.kind, FieldKind::Object { nested: true, .. });
    let (kind, list) = field.shown();
    match kind {
        FieldKind::Leaf(LeafType::Text { analyzer }) => format!("text ({analyzer}, `{ty}`)"),
        FieldKind::Leaf(leaf) => format!("{} (`{ty}`)", word(leaf)),
        FieldKind::LastPage => "the end of a list".to_owned(),
        FieldKind::Object { .. } => {
            let list = if list { "a list of " } else { "" };
            format!("{list}{}", if nested { "nested objects" } else { "objects" })
        }
    }
}
