//! Rules and hints of the pipeline that name types and fields: do they exist?

use super::Checker;
use crate::definition::{Hint, similar_tables};
use crate::diagnostic::Spot;
use crate::plan::VertexRule;
use crate::suggest::{did_you_mean, suggestion};

impl Checker<'_> {
    /// `graph.vertices`.
    pub(super) fn rules(&mut self) {
        for rule in &self.graph.vertices {
            let name = &rule.type_name.value;
            match self.schema.get(name) {
                None => {
                    let help = did_you_mean(name, self.schema.type_names());
                    let message = format!("the schema has no type `{}`", rule.type_name.shown);
                    self.found.push(rule.type_name.spot.error(message).maybe_help(help));
                }
                Some(_) if self.schema.is_abstract(name) => {
                    let members: Vec<&str> = self.schema.vertices(name).into_iter().collect();
                    let message = format!("`{name}` is no object type: a row maps to one type");
                    let help = suggestion("", members.iter().copied());
                    self.found.push(rule.type_name.spot.error(message).maybe_help(help));
                }
                Some(_) if !self.schema.has_id(name) => {
                    let message = format!("`{name}` has no field `id`, so it is no vertex");
                    self.found.push(rule.type_name.spot.error(message));
                }
                Some(_) => {
                    let rules = self.vertices.entry(rule.table.clone()).or_default();
                    rules.push(VertexRule { type_name: name.clone(), id: rule.id.clone() });
                }
            }
        }
    }

    /// `graph.types` and `graph.edges`, as far as they can be checked without a query.
    pub(super) fn hints(&mut self) {
        for (name, access) in &self.graph.types {
            self.type_exists(name, &access.spot);
        }
        for edge in &self.graph.edges {
            if !self.type_exists(&edge.parent, &edge.spot) {
                continue;
            }
            if self.schema.field(&edge.parent, &edge.field).is_none() {
                let fields = self.schema.fields(&edge.parent).iter().map(|f| f.name.as_str());
                let message = format!("`{}` has no field `{}`", edge.parent, edge.field);
                self.found.push(edge.spot.error(message).maybe_help(suggestion(&edge.field, fields)));
            }
            let Hint::Tables(tables) = &edge.hint else { continue };
            for table in tables.iter().filter(|t| !self.graph.vertices.iter().any(|rule| rule.table == t.name)) {
                let known = self.graph.vertices.iter().map(|rule| &rule.table);
                let message = format!("no rule of `graph.vertices` is for the table `{}`", table.shown);
                self.found.push(table.spot.error(message).maybe_help(similar_tables(&table.name, known)));
            }
        }
    }

    fn type_exists(&mut self, name: &str, spot: &Spot) -> bool {
        let known = self.schema.get(name).is_some();
        if !known {
            let help = did_you_mean(name, self.schema.type_names());
            self.found.push(spot.error(format!("the schema has no type `{name}`")).maybe_help(help));
        }
        known
    }
}
