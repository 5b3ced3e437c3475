//! A schema as a file in the schema definition language.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql_parser::types::{
    BaseType, DirectiveLocation, FieldDefinition, InputValueDefinition, Type, TypeDefinition, TypeKind as ParsedKind,
    TypeSystemDefinition,
};
use async_graphql_parser::{Positioned, parse_schema};

use super::{ArgumentDef, FieldDef, Schema, TypeDef, TypeKind, TypeRef};
use crate::diagnostic::{Diagnostic, Spot, sorted};
use crate::query::{guard_depth, syntax};
use crate::suggest::did_you_mean;
use crate::text::SourceText;

const BUILT_IN: [&str; 5] = ["Int", "Float", "String", "Boolean", "ID"];

pub(super) fn read(text: &str, file: &str) -> Result<Schema, Vec<Diagnostic>> {
    let shown = Arc::new(SourceText::plain(file, text));
    guard_depth(&shown, text)?;
    let parsed = parse_schema(text).map_err(|e| vec![syntax(&shown, &e)])?;
    let mut reader = Reader { text: shown, types: BTreeMap::new(), used: Vec::new(), found: Vec::new() };
    for name in BUILT_IN {
        reader.types.insert(name.to_owned(), TypeDef::new(name, TypeKind::Scalar));
    }
    let mut query = "Query".to_owned();
    let mut directives = BTreeMap::new();
    // Extensions may stand before what they extend.
    let (first, second): (Vec<_>, Vec<_>) = parsed.definitions.into_iter().partition(|definition| match definition {
        TypeSystemDefinition::Type(ty) => !ty.node.extend,
        _ => true,
    });
    for definition in first.into_iter().chain(second) {
        match definition {
            TypeSystemDefinition::Schema(schema) => {
                if let Some(name) = schema.node.query {
                    query = name.node.to_string();
                }
            }
            TypeSystemDefinition::Type(ty) => reader.define(ty.node),
            TypeSystemDefinition::Directive(directive) => {
                let in_query = |l: &Positioned<DirectiveLocation>| {
                    use DirectiveLocation::{Field, FragmentSpread, InlineFragment, Query};
                    matches!(l.node, Field | FragmentSpread | InlineFragment | Query)
                };
                if directive.node.locations.iter().any(in_query) {
                    let arguments = reader.arguments(directive.node.arguments);
                    directives.insert(directive.node.name.node.to_string(), arguments);
                }
            }
        }
    }
    reader.finish(query, directives)
}

struct Reader {
    text: Arc<SourceText>,
    types: BTreeMap<String, TypeDef>,
    /// Names of types, where they are used.
    used: Vec<(String, Spot)>,
    found: Vec<Diagnostic>,
}

impl Reader {
    fn define(&mut self, parsed: TypeDefinition) {
        let name = parsed.name.node.to_string();
        let place = Spot::new(&self.text, parsed.name.pos.line, parsed.name.pos.column, name.len());
        let mut ty = TypeDef::new(name.clone(), TypeKind::Scalar);
        match parsed.kind {
            ParsedKind::Scalar => {}
            ParsedKind::Object(object) => {
                ty.kind = TypeKind::Object;
                ty.interfaces = self.names(object.implements);
                ty.fields = self.fields(object.fields);
            }
            ParsedKind::Interface(interface) => {
                ty.kind = TypeKind::Interface;
                ty.interfaces = self.names(interface.implements);
                ty.fields = self.fields(interface.fields);
            }
            ParsedKind::Union(union) => {
                ty.kind = TypeKind::Union;
                ty.possible = self.names(union.members);
            }
            ParsedKind::Enum(values) => {
                ty.kind = TypeKind::Enum;
                ty.values = values.values.into_iter().map(|v| v.node.value.node.to_string()).collect();
            }
            ParsedKind::InputObject(input) => {
                ty.kind = TypeKind::Input;
                ty.inputs = self.arguments(input.fields);
            }
        }
        match self.types.get_mut(&name) {
            Some(before) if parsed.extend && before.kind == ty.kind => {
                before.fields.extend(ty.fields);
                before.interfaces.extend(ty.interfaces);
                before.possible.extend(ty.possible);
                before.values.extend(ty.values);
                before.inputs.extend(ty.inputs);
            }
            Some(_) if BUILT_IN.contains(&name.as_str()) => {}
            Some(_) if parsed.extend => self.found.push(place.error(format!("`{name}` is a type of another kind"))),
            Some(_) => self.found.push(place.error(format!("the type `{name}` is defined twice"))),
            // A federated service extends types that it does not define itself.
            None => {
                self.types.insert(name, ty);
            }
        }
    }

    fn fields(&mut self, fields: Vec<Positioned<FieldDefinition>>) -> Vec<FieldDef> {
        let field = |f: Positioned<FieldDefinition>| FieldDef {
            name: f.node.name.node.to_string(),
            arguments: self.arguments(f.node.arguments),
            ty: self.reference(&f.node.ty),
        };
        fields.into_iter().map(field).collect()
    }

    fn arguments(&mut self, arguments: Vec<Positioned<InputValueDefinition>>) -> Vec<ArgumentDef> {
        let argument = |a: Positioned<InputValueDefinition>| ArgumentDef {
            name: a.node.name.node.to_string(),
            ty: self.reference(&a.node.ty),
            has_default: a.node.default_value.is_some(),
        };
        arguments.into_iter().map(argument).collect()
    }

    fn names<N: ToString>(&mut self, names: Vec<Positioned<N>>) -> Vec<String> {
        let name = |name: Positioned<N>| {
            let text = name.node.to_string();
            let spot = Spot::new(&self.text, name.pos.line, name.pos.column, text.len());
            self.used.push((text.clone(), spot));
            text
        };
        names.into_iter().map(name).collect()
    }

    fn reference(&mut self, ty: &Positioned<Type>) -> TypeRef {
        let reference = type_ref(&ty.node);
        let spot = Spot::new(&self.text, ty.pos.line, ty.pos.column, reference.to_string().len());
        self.used.push((reference.name().to_owned(), spot));
        reference
    }

    fn finish(
        mut self,
        query: String,
        directives: BTreeMap<String, Vec<ArgumentDef>>,
    ) -> Result<Schema, Vec<Diagnostic>> {
        for (name, spot) in &self.used {
            if !self.types.contains_key(name) {
                let help = did_you_mean(name, self.types.keys().map(String::as_str));
                self.found.push(spot.error(format!("the type `{name}` is not defined")).maybe_help(help));
            }
        }
        if !self.types.contains_key(&query) {
            let help = "root fields are read from the type `Query`, or from what `schema { query: … }` names";
            self.found
                .push(Spot::new(&self.text, 1, 1, 1).error(format!("the schema has no type `{query}`")).help(help));
        }
        if !self.found.is_empty() {
            return Err(sorted(self.found));
        }
        let implementations: Vec<(String, String)> = self
            .types
            .values()
            .filter(|t| t.kind == TypeKind::Object)
            .flat_map(|t| t.interfaces.iter().map(|i| (i.clone(), t.name.clone())))
            .collect();
        for (interface, object) in implementations {
            if let Some(interface) = self.types.get_mut(&interface).filter(|i| !i.possible.contains(&object)) {
                interface.possible.push(object);
            }
        }
        Ok(Schema { types: self.types, query, directives, keys: BTreeMap::new() })
    }
}

/// A parsed type in our form.
pub(crate) fn type_ref(ty: &Type) -> TypeRef {
    let base = match &ty.base {
        BaseType::Named(name) => TypeRef::Named(name.to_string()),
        BaseType::List(inner) => TypeRef::List(Box::new(type_ref(inner))),
    };
    if ty.nullable { base } else { TypeRef::NonNull(Box::new(base)) }
}
