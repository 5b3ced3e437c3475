//! The operation and its root field: one variable for the ids, one field that takes it, and where its answer has the documents.

use std::collections::BTreeMap;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{OperationDefinition, SelectionSet};
use async_graphql_value::Value;
use serde_json::Value as Json;

use super::collect::{Group, Occurrence};
use super::partial::limit_of_root;
use super::resolve::{Above, Resolved, Resolver};
use super::values::{constant, mentions, wanted};
use super::{directives, print};
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::{Form, Question, Representation, SentAs};
use crate::schema::{TypeRef, type_ref};
use crate::suggest::did_you_mean;

/// The variable that takes the ids, or one id.
#[derive(Debug, Clone)]
pub(super) struct IdVariable {
    pub name: String,
    pub ty: TypeRef,
}

/// The documents in an answer.
struct Documents<'a> {
    /// Their type.
    root_type: &'a str,
    /// Response keys from what the root field answers to them.
    way: Vec<String>,
    /// What is selected of them, and of which type each part is.
    parts: Vec<(&'a str, &'a SelectionSet)>,
    /// Whether there can be many.
    list: bool,
}

impl<'a> Resolver<'a> {
    pub(super) fn operation(&mut self) -> Option<Resolved> {
        let (name, operation) = self.document.operation()?;
        let at = self.document.spot(operation.pos, 5);
        let node = &operation.node;
        directives::read(self.document, self.schema, &node.directives, false, &mut self.found);
        let constants = self.variables(node, &at);
        let query = self.schema.query_type();
        let before = self.found.len();
        let mut roots = self.collect(query, &[(query, &node.selection_set.node)]);
        // Of an argument that does not fit, nothing else is said.
        let refused = self.ill_typed.is_some() || self.found[before..].iter().any(Diagnostic::is_error);
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
        let first = root.occurrences.first()?.clone();
        let spot = self.document.name_spot(&first.field.name);
        let documents = self.documents(&root, &spot)?;
        if first.marks.flatten {
            let help = "remove the directive: a document is an object, which takes nobody's place";
            self.found.push(spot.error("`@flatten` has no place on the root field").help(help));
        }
        if !refused {
            self.takes_variable(&first, documents.list, &spot);
        }
        if let Some(argument) = limit_of_root(self.schema, &root) {
            let name = &first.field.name.node;
            let message =
                format!("`{name}` can be cut by `{argument}:`, and is asked again for what is missing in an answer");
            let help = format!("say how many it may answer, as many as `build.batch`: `{name}({argument}: 100, …)`");
            self.found.push(spot.warning(message).help(help));
        }
        let above = Above { types: vec![documents.root_type], field: None, partial: None, members: None };
        let selection = self.selection(documents.root_type, &documents.parts, &above, false, 0);
        self.one_level(&selection, &documents.parts);
        let operation = name.unwrap_or("Tributary").to_owned();
        let form = self.form(&operation, &root, (documents.root_type, documents.way.len())).unwrap_or(Form::Together {
            query: String::new(),
            variable: String::new(),
            root: String::new(),
            representation: None,
        });
        let identity = self.schema.identities(documents.root_type).into_iter().next();
        Some(Resolved {
            root_type: documents.root_type.to_owned(),
            fetch: Question {
                operation,
                sent_as: self.sent_as(documents.root_type),
                form,
                way: documents.way,
                key: identity.map_or_else(|| "id".to_owned(), |identity| self.response_key(&identity)),
                constants,
            },
            selection,
            edges: std::mem::take(&mut self.edges),
            values: std::mem::take(&mut self.values),
        })
    }

    /// Finds the one variable for ids among those that have no value; returns the values of the others.
    fn variables(&mut self, operation: &OperationDefinition, at: &Spot) -> BTreeMap<String, Json> {
        let given = self.constants;
        let mut constants = BTreeMap::new();
        let mut open = Vec::new();
        for definition in &operation.variable_definitions {
            let (name, ty) = (definition.node.name.node.as_str(), type_ref(&definition.node.var_type.node));
            directives::read(self.document, self.schema, &definition.node.directives, false, &mut self.found);
            let spot = self.document.name_spot(&definition.node.name);
            self.declared.push((name.to_owned(), ty.clone()));
            match given.get(name) {
                Some((value, at)) => match constant(self.schema, self.scalars, value, &ty) {
                    Ok(value) => {
                        constants.insert(name.to_owned(), value);
                    }
                    Err(expected) => {
                        self.found
                            .push(at.error(format!("the value of `${name}` does not fit, {expected} is expected")));
                    }
                },
                None if definition.node.default_value.is_some() => {}
                None => open.push((IdVariable { name: name.to_owned(), ty }, spot, definition)),
            }
        }
        for (name, (_, spot)) in given {
            if !operation.variable_definitions.iter().any(|d| d.node.name.node.as_str() == name) {
                self.found.push(spot.error(format!("the query has no variable `${name}`")));
            }
        }
        // The ids are what a list can be made of, if there is such a variable.
        open.sort_by_key(|(variable, ..)| !variable.ty.is_list());
        let mut open = open.into_iter();
        let Some((ids, _, definition)) = open.next() else {
            let help = "write `query Name($ids: [ID!]!) { things(ids: $ids) { … } }`; it has no default";
            self.found.push(at.error("the query of an index has a variable for the ids").help(help));
            return constants;
        };
        for (other, spot, _) in open {
            let help = format!(
                "give it a default here, or a value in the pipeline: `variables: {{ {}: … }}` of the index",
                other.name
            );
            let message = format!("nothing says which value `${}` has (`${}` takes the ids)", other.name, ids.name);
            self.found.push(spot.error(message).help(help));
        }
        let id = ids.ty.element().map_or_else(|| ids.ty.nullable(), TypeRef::nullable);
        let named = match id {
            TypeRef::Named(name) => Some(name.as_str()),
            _ => None,
        };
        let type_spot = self.document.spot(definition.node.var_type.pos, ids.ty.to_string().len());
        match named.map(|name| (name, self.schema.get(name))) {
            Some((name, None)) => {
                let wanted = wanted(self.schema, operation, &ids.name);
                let help = match wanted {
                    Some(wanted) => {
                        Some(format!("declare it as `${}: {wanted}`, as the argument is that it is for", ids.name))
                    }
                    None => did_you_mean(name, self.schema.type_names()),
                };
                self.found.push(type_spot.error(format!("unknown type `{name}`")).maybe_help(help));
                self.ill_typed = Some(ids.name.clone());
            }
            Some((name, Some(ty))) if ty.is_leaf() || name == "_Any" => {}
            _ => {
                let help = "let it take ids alone, and write the rest of the argument into the query: \
                            `things(filter: { id: { in: $ids } })`";
                self.found.push(type_spot.error(format!("a variable of type `{}` cannot take ids", ids.ty)).help(help));
                self.ill_typed = Some(ids.name.clone());
            }
        }
        self.variable = Some(ids);
        constants
    }

    /// Where the documents are in what the root field answers: there, or below fields of which each is the only one.
    fn documents(&mut self, root: &Group<'a>, spot: &Spot) -> Option<Documents<'a>> {
        let first = root.occurrences.first()?;
        let mut ty = &first.definition.ty;
        let mut list = ty.is_list();
        let mut parts = Self::parts(root);
        let mut way = Vec::new();
        loop {
            let base = ty.name();
            if !self.schema.is_composite(base) {
                let name = &first.field.name.node;
                self.found.push(spot.error(format!("`{name}` is a value, not an object with an id")));
                return None;
            }
            if self.schema.is_abstract(base) {
                let root_type = self.narrowed(base, &parts, spot)?;
                return Some(Documents { root_type, way, parts, list });
            }
            if self.schema.is_vertex(base) {
                return Some(Documents { root_type: base, way, parts, list });
            }
            let groups = self.collect(base, &parts);
            let leads = |group: &&Group<'a>| {
                group.occurrences.first().is_some_and(|o| self.schema.is_composite(o.definition.ty.name()))
            };
            let inner = groups.iter().find(leads).or_else(|| groups.first())?;
            if !self.schema.is_composite(inner.occurrences.first()?.definition.ty.name()) || way.len() >= 2 {
                self.found.push(self.no_key(base, spot));
                return None;
            }
            for extra in
                groups.iter().filter(|group| group.key != inner.key).filter_map(|group| group.occurrences.first())
            {
                let message = format!("a document is made of `{}` alone", inner.key);
                let help = format!("remove `{}`", extra.field.name.node);
                self.found.push(self.document.name_spot(&extra.field.name).error(message).help(help));
            }
            if let Some(marked) = inner.occurrences.iter().find(|o| o.marks.flatten) {
                let at = self.document.name_spot(&marked.field.name);
                let help = "remove the directive: a document is one of them, whatever they are in";
                self.found.push(at.error("`@flatten` has no place above the documents").help(help));
            }
            way.push(inner.key.to_owned());
            parts = Self::parts(inner);
            ty = &inner.occurrences.first()?.definition.ty;
            list |= ty.is_list();
        }
    }

    /// The one type that is selected of an interface or a union.
    fn narrowed(&mut self, base: &'a str, parts: &[(&'a str, &'a SelectionSet)], spot: &Spot) -> Option<&'a str> {
        let groups = self.collect(base, parts);
        let mut types: Vec<&str> = groups.iter().filter_map(|group| group.on).collect();
        types.sort_unstable();
        types.dedup();
        // Of a union with one member every fragment applies always.
        let possible: Vec<&str> = self.schema.possible(base).into_iter().collect();
        if let ([], [only]) = (types.as_slice(), possible.as_slice()) {
            types.push(only);
        }
        match types.as_slice() {
            [one] if self.schema.is_vertex(one) => {
                let one: &'a str = one;
                Some(one)
            }
            [one] => {
                let diagnostic = self.no_key(one, spot);
                self.found.push(diagnostic);
                None
            }
            _ => {
                let message = format!("`{base}` is no object type, and the documents of an index are of one type");
                let help = "select fields of one type: `... on Movie { … }`";
                self.found.push(spot.error(message).help(help));
                None
            }
        }
    }

    /// Whether the root field takes the variable, and answers as many as it is asked for.
    fn takes_variable(&mut self, first: &Occurrence<'a>, list: bool, spot: &Spot) {
        let Some(IdVariable { name: variable, ty }) = self.variable.clone() else { return };
        let name = &first.field.name.node;
        let takes = |value: &Positioned<Value>| mentions(&value.node, &variable);
        if !first.field.arguments.iter().any(|(_, value)| takes(value)) {
            let argument = first.definition.arguments.iter().find(|a| ty.fits(&a.ty));
            let help = argument.map(|a| format!("write `{name}({}: ${variable})`", a.name));
            self.found.push(spot.error(format!("`{name}` does not take the variable `${variable}`")).maybe_help(help));
        } else if ty.is_list() && !list {
            let message = format!(
                "`{name}` is asked by a list of ids and answers `{}`, which holds no list of documents",
                first.definition.ty
            );
            self.found.push(spot.error(message).help("choose a field that answers one object for each id"));
        }
    }

    fn sent_as(&self, root_type: &str) -> SentAs {
        let by_key = || self.schema.key(root_type).map_or("ID", |key| key.ty.name());
        let name = self.variable.as_ref().map_or("ID", |variable| variable.ty.name());
        super::leaf::sent_as(self.schema, self.scalars, if name == "_Any" { by_key() } else { name })
    }

    /// How the operation takes ids, with its text. `None`: it does not fit the schema, which was said.
    fn form(&self, operation: &str, root: &Group<'a>, (root_type, levels): (&str, usize)) -> Option<Form> {
        let IdVariable { name: variable, ty } = self.variable.as_ref()?;
        let printer = print::Printer::new(self, root_type, levels);
        if !ty.is_list() {
            return printer.apart(root, (variable, ty)).map(Form::Apart);
        }
        let key = || self.schema.key_name(root_type).to_owned();
        let representation =
            (ty.name() == "_Any").then(|| Representation { type_name: root_type.to_owned(), key: key() });
        Some(Form::Together {
            query: printer.together(operation)?,
            variable: variable.clone(),
            root: root.key.to_owned(),
            representation,
        })
    }
}
