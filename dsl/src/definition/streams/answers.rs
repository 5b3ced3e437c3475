//! The query of an `enrich` step held against the schema of its service: what is wrong with it, and what its answer looks like.
//!
//! Reference: GraphQL specification (October 2021), sections 5.3 (fields), 5.4 (arguments), 5.5 (fragments), 5.8.5 (variables).

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql_parser::types::{
    ExecutableDocument, Field, OperationDefinition, Selection, SelectionSet, TypeCondition,
};
use async_graphql_parser::{Pos, Positioned};
use tributary_event::JsonType;
use tributary_expression::Content;

use crate::diagnostic::Diagnostic;
use crate::query::{Document, Variables, check_arguments, guard_depth, unused_variables};
use crate::schema::{Schema, TypeKind, TypeRef, type_ref};
use crate::suggest::{did_you_mean, suggestion};
use crate::text::SourceText;

/// Objects inside of one another, at most. Circles of fragments end here.
const MAX_DEPTH: usize = 50;

/// Fields of an object, by the names that they have in the answer.
pub(super) type Fields = BTreeMap<String, Answer>;

/// A part of an answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub content: Content,
    /// Of an object, or of the elements of a list of objects: their fields.
    pub fields: Option<Fields>,
    /// What the elements of a list are.
    pub element: Option<Content>,
}

/// What a query answers.
pub(super) struct Answers {
    pub fields: Fields,
    /// The type of the variable that takes the key, or the elements of the list of keys.
    pub key: Option<String>,
    pub found: Vec<Diagnostic>,
}

/// Holds a query against a schema. `file` is its name in diagnostics.
pub(super) fn check(file: &str, text: &str, document: &ExecutableDocument, variable: &str, schema: &Schema) -> Answers {
    let shown = Arc::new(SourceText::plain(file, text));
    let mut answers = Answers { fields: Fields::new(), key: None, found: Vec::new() };
    if let Err(found) = guard_depth(&shown, text) {
        answers.found = found;
        return answers;
    }
    let document = Document { text: shown, parsed: document.clone() };
    let Some((_, operation)) = document.operation() else { return answers };
    let declared = declared(&operation.node);
    let key = declared.iter().find(|(name, _)| name == variable);
    answers.key = key.map(|(_, ty)| ty.name().to_owned());
    let mut walk = Walk { document: &document, schema, declared: &declared, found: Vec::new() };
    walk.types_of_variables(&operation.node);
    answers.fields = walk.selection(schema.query_type(), &operation.node.selection_set.node, 0);
    walk.found.extend(unused_variables(&document));
    answers.found = walk.found;
    answers
}

fn declared(operation: &OperationDefinition) -> Vec<(String, TypeRef)> {
    let variable = |definition: &Positioned<async_graphql_parser::types::VariableDefinition>| {
        (definition.node.name.node.to_string(), type_ref(&definition.node.var_type.node))
    };
    operation.variable_definitions.iter().map(variable).collect()
}

struct Walk<'a> {
    document: &'a Document,
    schema: &'a Schema,
    declared: &'a [(String, TypeRef)],
    found: Vec<Diagnostic>,
}

impl<'a> Walk<'a> {
    fn error(&mut self, pos: Pos, length: usize, message: String, help: Option<String>) {
        let found = self.document.spot(pos, length).error(message).maybe_help(help);
        self.add(found);
    }

    /// A fragment is walked wherever it is spread, and says so once.
    fn add(&mut self, found: Diagnostic) {
        if !self.found.contains(&found) {
            self.found.push(found);
        }
    }

    fn types_of_variables(&mut self, operation: &OperationDefinition) {
        for definition in &operation.variable_definitions {
            let ty = type_ref(&definition.node.var_type.node);
            let is_input = |name: &str| {
                let builtin = ["ID", "String", "Int", "Float", "Boolean"].contains(&name);
                builtin || self.schema.get(name).is_some_and(|t| t.is_leaf() || t.kind == TypeKind::Input)
            };
            if !is_input(ty.name()) {
                let help = did_you_mean(ty.name(), self.schema.type_names());
                let message = format!("the service has no type `{}` that a variable can have", ty.name());
                let pos = definition.node.var_type.pos;
                self.error(pos, ty.to_string().len(), message, help);
            }
        }
    }

    /// What a selection on a type answers.
    fn selection(&mut self, base: &str, set: &'a SelectionSet, depth: usize) -> Fields {
        let mut fields = Fields::new();
        if depth > MAX_DEPTH {
            return fields;
        }
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => {
                    let (name, answer) = self.field(base, field, depth);
                    add(&mut fields, name, answer);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name;
                    let Some(fragment) = self.document.parsed.fragments.get(&name.node) else {
                        let names = self.document.parsed.fragments.keys().map(|name| name.as_str());
                        let help = suggestion(&name.node, names);
                        self.error(name.pos, name.node.len(), format!("there is no fragment `{}`", name.node), help);
                        continue;
                    };
                    let condition = &fragment.node.type_condition;
                    self.fragment(base, Some(condition), &fragment.node.selection_set.node, depth, &mut fields);
                }
                Selection::InlineFragment(fragment) => {
                    let condition = fragment.node.type_condition.as_ref();
                    self.fragment(base, condition, &fragment.node.selection_set.node, depth, &mut fields);
                }
            }
        }
        fields
    }

    fn fragment(
        &mut self,
        base: &str,
        condition: Option<&Positioned<TypeCondition>>,
        set: &'a SelectionSet,
        depth: usize,
        fields: &mut Fields,
    ) {
        let on = condition.map_or(base, |condition| condition.node.on.node.as_str()).to_owned();
        if let Some(condition) = condition.filter(|_| !self.schema.is_composite(&on)) {
            let help = did_you_mean(&on, self.schema.type_names());
            let at = &condition.node.on;
            self.error(at.pos, at.node.len(), format!("the service has no type `{on}` with fields"), help);
            return;
        }
        for (name, mut answer) in self.selection(&on, set, depth + 1) {
            if on != base {
                // Only where the object is of that type.
                answer.content = answer.content.or_absent();
            }
            add(fields, name, answer);
        }
    }

    fn field(&mut self, base: &str, field: &'a Positioned<Field>, depth: usize) -> (String, Answer) {
        let (name, node) = (&field.node.name, &field.node);
        let key = node.response_key().node.to_string();
        let unknown = Answer { content: Content::any(), fields: None, element: None };
        if name.node == "__typename" {
            return (key, Answer { content: Content::of(JsonType::Text), ..unknown });
        }
        let schema = self.schema;
        let Some(definition) = schema.field(base, &name.node) else {
            let names = schema.fields(base).iter().map(|field| field.name.as_str());
            let help = suggestion(&name.node, names);
            self.error(name.pos, name.node.len(), format!("{base} has no field `{}`", name.node), help);
            return (key, unknown);
        };
        let variables = Variables { declared: self.declared, ill_typed: None, ids: None };
        let (owner, mut found) = (self.document.name_spot(name), Vec::new());
        check_arguments(self.document, schema, &definition.arguments, &node.arguments, variables, &owner, &mut found);
        found.into_iter().for_each(|found| self.add(found));
        let type_name = definition.ty.name();
        let is_composite = schema.is_composite(type_name);
        let set = &node.selection_set.node;
        if is_composite && set.items.is_empty() {
            let message = format!("`{}` is of the type {type_name}, which has fields", name.node);
            let help = "say which of them: write `{ … }` behind it".to_owned();
            self.error(name.pos, name.node.len(), message, Some(help));
        }
        if !is_composite && !set.items.is_empty() {
            let message = format!("`{}` is of the type {type_name}, which has no fields", name.node);
            self.error(name.pos, name.node.len(), message, Some("remove what stands in braces behind it".to_owned()));
            return (key, unknown);
        }
        let fields = is_composite.then(|| self.selection(type_name, set, depth + 1));
        let inner = match &fields {
            Some(fields) => Content::object(fields.iter().map(|(name, answer)| (name.clone(), answer.content.clone()))),
            None => Content::of(leaf(schema, type_name)),
        };
        let content = wrapped(&definition.ty, &inner);
        // `@skip` and `@include` leave fields out.
        let content = if node.directives.is_empty() { content } else { content.or_absent() };
        let element = definition.ty.element().map(|element| wrapped(element, &inner));
        (key, Answer { content, fields, element })
    }
}

/// Adds a field; one that is asked for twice is what both say.
fn add(fields: &mut Fields, name: String, answer: Answer) {
    match fields.get_mut(&name) {
        None => drop(fields.insert(name, answer)),
        Some(known) => {
            // Their selections are answered together.
            let both = known.fields.take().zip(answer.fields).map(|(mut one, other)| {
                other.into_iter().for_each(|(name, answer)| add(&mut one, name, answer));
                one
            });
            *known = Answer { content: Content::any(), fields: both, element: None };
        }
    }
}

fn wrapped(ty: &TypeRef, inner: &Content) -> Content {
    match ty {
        TypeRef::NonNull(ty) => bare(ty, inner),
        ty => bare(ty, inner).or_null(),
    }
}

fn bare(ty: &TypeRef, inner: &Content) -> Content {
    match ty {
        TypeRef::List(element) => Content::list(wrapped(element, inner)),
        TypeRef::NonNull(ty) => bare(ty, inner),
        TypeRef::Named(_) => inner.clone(),
    }
}

/// What values of a type without fields are: of scalars that a server made up nothing is known.
fn leaf(schema: &Schema, type_name: &str) -> JsonType {
    match type_name {
        "ID" | "String" => JsonType::Text,
        "Int" => JsonType::Integer,
        "Float" => JsonType::Number,
        "Boolean" => JsonType::Boolean,
        _ if schema.get(type_name).is_some_and(|t| t.kind == TypeKind::Enum) => JsonType::Text,
        _ => JsonType::Any,
    }
}
