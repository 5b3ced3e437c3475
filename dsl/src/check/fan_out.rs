//! The queries that ask for the parents of changed vertices: one for each type that edges are followed back from.

use std::collections::BTreeMap;

use super::access::Way;
use super::{Checker, Wanted};
use crate::plan::{Access, FanOutPlan, InverseField};
use crate::schema::Schema;

impl Checker<'_> {
    /// Merged over all indexes of the pipeline.
    pub(super) fn fan_outs(&mut self) -> BTreeMap<String, FanOutPlan> {
        let mut by_type: BTreeMap<String, (usize, Vec<InverseField>)> = BTreeMap::new();
        let wanted = std::mem::take(&mut self.wanted);
        for (first, Wanted { child_type, path, parent_type, .. }) in wanted.iter().enumerate() {
            let (_, inverses) = by_type.entry(child_type.clone()).or_insert((first, Vec::new()));
            if !inverses.iter().any(|i| i.path == *path && i.parent_type == *parent_type) {
                let key = format!("p{}", inverses.len());
                inverses.push(InverseField { key, path: path.clone(), parent_type: parent_type.clone() });
            }
        }
        let mut plans = BTreeMap::new();
        for (type_name, (first, inverses)) in by_type {
            let Some(way) = wanted.get(first).and_then(|wanted| self.access(wanted)) else { continue };
            let query = query(self.schema, &type_name, &way, &inverses);
            plans.insert(type_name.clone(), FanOutPlan { type_name, access: way.access, inverses, query });
        }
        plans
    }
}

fn query(schema: &Schema, type_name: &str, way: &Way, inverses: &[InverseField]) -> String {
    let (variable, field, argument) = match &way.access {
        Access::Entities => ("representations", "_entities", "representations"),
        Access::Nodes => ("ids", "nodes", "ids"),
        Access::Node => ("id", "node", "id"),
        Access::Field { field, argument } => ("ids", field.as_str(), argument.as_str()),
    };
    let mut lines = vec![
        format!("query ParentsOf{type_name}(${variable}: {}) {{", way.variable),
        format!("  {field}({argument}: ${variable}) {{"),
        "    __typename".to_owned(),
    ];
    let narrow = way.answers != type_name;
    if narrow {
        lines.push(format!("    ... on {type_name} {{"));
    }
    let indent = if narrow { "      " } else { "    " };
    lines.push(format!("{indent}id"));
    for inverse in inverses {
        let inner = way_back(schema, type_name, &inverse.path);
        lines.push(format!("{indent}{}: {inner}", inverse.key));
    }
    if narrow {
        lines.push("    }".to_owned());
    }
    lines.push("  }".to_owned());
    lines.push("}\n".to_owned());
    lines.join("\n")
}

/// A path of fields that ends at vertices. Pages say whether they are the last, so that parents beyond are not missed silently.
fn way_back(schema: &Schema, from: &str, path: &[String]) -> String {
    let Some((field, rest)) = path.split_first() else { return String::new() };
    let to = schema.walk(from, &[field]).unwrap_or_default();
    if rest.is_empty() {
        let members = || schema.vertices(to).into_iter().map(|name| format!("... on {name} {{ id }}"));
        let id = if schema.has_id(to) { "id".to_owned() } else { members().collect::<Vec<_>>().join(" ") };
        return format!("{field} {{ __typename {id} }}");
    }
    let page = if schema.tells_next_page(to) { "pageInfo { hasNextPage } " } else { "" };
    format!("{field} {{ {page}{} }}", way_back(schema, to, rest))
}
