//! The operation and its root field: one variable for the ids, one field that takes it.

use async_graphql_parser::types::{Field, OperationDefinition};
use async_graphql_value::Value;

use super::resolve::{Above, Resolved, Resolver};
use super::{directives, print};
use crate::diagnostic::Spot;
use crate::plan::FetchPlan;
use crate::schema::{FieldDef, TypeRef, type_ref};

impl<'a> Resolver<'a> {
    pub(super) fn operation(&mut self) -> Option<Resolved> {
        let (name, operation) = self.document.operation()?;
        let at = self.document.spot(operation.pos, 5);
        let node = &operation.node;
        directives::read(self.document, self.schema, &node.directives, false, &mut self.found);
        self.variable = self.variable(node, &at);
        let query = self.schema.query_type();
        let mut roots = self.collect(query, &[(query, &node.selection_set.node)]);
        self.at_root = false;
        for extra in roots.iter().skip(1).filter_map(|group| group.occurrences.first()) {
            let help = "an index has one root field; make another index for the other";
            let spot = self.document.name_spot(&extra.field.name);
            self.found.push(spot.error("a second root field").help(help));
        }
        if roots.is_empty() {
            return None;
        }
        let root = roots.swap_remove(0);
        let first = root.occurrences.first()?;
        let spot = self.document.name_spot(&first.field.name);
        let root_type = first.definition.ty.name();
        if !self.schema.is_composite(root_type) {
            self.found.push(spot.error(format!("`{}` is a value, not an object with an id", first.field.name.node)));
            return None;
        }
        if self.schema.is_abstract(root_type) {
            let message = format!("`{root_type}` is no object type, and the documents of an index are of one type");
            self.found.push(spot.error(message).help("choose a root field of one type"));
        } else if !self.schema.has_id(root_type) {
            let message = format!("`{root_type}` has no `id`, so its documents could not be told apart");
            self.found.push(spot.error(message).help("the root must be a type with a field `id: ID!`"));
        }
        let many = self.takes_variable(first.field, first.definition, &spot);
        let above = Above { types: vec![root_type], field: None };
        let parts = Self::parts(&root);
        let selection = self.selection(root_type, &parts, &above, false, 0);
        let nothing = || (String::new(), TypeRef::Named(String::new()));
        let (variable, variable_type) = self.variable.clone().unwrap_or_else(nothing);
        let operation = name.unwrap_or("Tributary").to_owned();
        let query =
            print::operation(self.document, self.schema, &operation, (&variable, &variable_type), &self.fragments);
        Some(Resolved {
            root_type: root_type.to_owned(),
            fetch: FetchPlan {
                query: query.unwrap_or_default(),
                operation,
                variable,
                many,
                root_key: root.key.to_owned(),
            },
            selection,
            edges: std::mem::take(&mut self.edges),
        })
    }

    /// The one variable: an id, or a list of ids.
    fn variable(&mut self, operation: &OperationDefinition, at: &Spot) -> Option<(String, TypeRef)> {
        let help = "write `query Name($ids: [ID!]!) { things(ids: $ids) { … } }`";
        for extra in operation.variable_definitions.iter().skip(1) {
            let spot = self.document.name_spot(&extra.node.name);
            self.found.push(
                spot.error(format!("a second variable `${}`", extra.node.name.node))
                    .help("an index has one, for the ids"),
            );
        }
        let Some(definition) = operation.variable_definitions.first() else {
            self.found.push(at.error("the query of an index has a variable for the ids").help(help));
            return None;
        };
        let ty = type_ref(&definition.node.var_type.node);
        let id = ty.element().map_or_else(|| ty.nullable(), |element| element.nullable());
        if !matches!(id, TypeRef::Named(name) if ["ID", "String"].contains(&name.as_str())) {
            let spot = self.document.spot(definition.node.var_type.pos, ty.to_string().len());
            let message = format!("a variable of type `{ty}` cannot take ids, which are sent as strings");
            self.found.push(spot.error(message).help("write `ID!`, or `[ID!]!` for many at a time"));
        }
        if let Some(value) = &definition.node.default_value {
            let spot = self.document.spot(value.pos, value.node.to_string().chars().count());
            self.found.push(spot.error("the ids have no default"));
        }
        directives::read(self.document, self.schema, &definition.node.directives, false, &mut self.found);
        Some((definition.node.name.node.to_string(), ty))
    }

    /// Whether many roots are asked for at a time. The root field must take the variable, and answer accordingly.
    fn takes_variable(&mut self, field: &Field, definition: &FieldDef, spot: &Spot) -> bool {
        let Some((variable, ty)) = &self.variable else { return false };
        let many = ty.is_list();
        let takes = |value: &Value| matches!(value, Value::Variable(name) if name.as_str() == variable);
        if !field.arguments.iter().any(|(_, value)| takes(&value.node)) {
            let argument = definition.arguments.iter().find(|a| ty.fits(&a.ty));
            let help = argument.map(|a| format!("write `{}({}: ${variable})`", field.name.node, a.name));
            let message = format!("`{}` does not take the variable `${variable}`", field.name.node);
            self.found.push(spot.error(message).maybe_help(help));
        } else if many && !definition.ty.is_list() {
            let message = format!(
                "`{}` is asked by a list of ids and answers `{}`, which is no list",
                field.name.node, definition.ty
            );
            self.found.push(spot.error(message).help("choose a field that answers one object for each id"));
        } else if !many && definition.ty.is_list() {
            let message = format!("`{}` is asked by one id and answers a list", field.name.node);
            self.found.push(spot.error(message));
        }
        many
    }
}
