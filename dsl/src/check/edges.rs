//! How the parents of a changed child are reached, for every edge of a query.
//!
//! In this order: what a hint says; a table whose rows map to the parent and the child both; the one field of the child that leads
//! back to the parent. Several such fields are a question for the user, and none is an error: an index that misses a new
//! edge is wrong, and stays wrong.

use tributary_event::TableName;

use super::Checker;
use crate::definition::{EdgeText, Hint, Kept, listed_tables};
use crate::diagnostic::{Diagnostic, Spot};
use crate::plan::Reach;
use crate::query::{EdgeSite, is_paging};
use crate::schema::{FieldDef, Schema};
use crate::suggest::{listed, suggestion};
use crate::yaml::Text;

impl<'a> Checker<'a> {
    /// `None`: there is no way, or a hint is wrong, which is said.
    pub(super) fn reach(&mut self, site: &EdgeSite) -> Option<Reach> {
        if site.keyless {
            return self.rows_of(site);
        }
        if let Some(part) = &site.partial {
            return self.partly_shown(site, part);
        }
        if let Some(hint) = self.hint(site) {
            if let Some(text) = &hint.inverse {
                let inverse = self.declared_inverse(site, text)?;
                match &hint.kept {
                    None => return Some(inverse),
                    Some(_) => self.also(site, inverse),
                }
            }
            return match &hint.kept {
                Some(Kept::Tables(tables)) => Some(Reach::Tables(tables.iter().map(|t| t.name.clone()).collect())),
                Some(Kept::InParent) => Some(Reach::StoredInParent),
                None => None,
            };
        }
        let tables = self.tables(site);
        if !tables.is_empty() {
            self.take(site, format!("rows of {} are", listed_tables(&tables)), false);
            return Some(Reach::Tables(tables));
        }
        let mut candidates = self.inverses(site);
        match candidates.len() {
            0 => {
                self.found.push(no_way(site));
                None
            }
            1 => {
                let path = candidates.remove(0);
                self.take(site, format!("`{}.{}` is", site.child_type, path.join(".")), true);
                self.paged(site, &path);
                Some(Reach::Inverse { path, declared: false })
            }
            _ => {
                let diagnostic = which_inverse(site, &candidates);
                self.found.push(diagnostic);
                None
            }
        }
    }

    /// Parents of changed children are asked for besides.
    pub(super) fn also(&mut self, site: &EdgeSite, inverse: Reach) {
        if let Reach::Inverse { path, .. } = inverse {
            self.want(site, path);
        }
    }

    /// A hint for the edge, by its type or by an interface of its type.
    pub(super) fn hint(&self, site: &EdgeSite) -> Option<&'a Hint> {
        let graph = self.graph;
        let hints = || graph.edges.iter().filter(|e| e.field == site.field);
        let interface = |e: &&EdgeText| self.schema.possible(&e.parent).contains(site.parent_type.as_str());
        let found = hints().find(|e| e.parent == site.parent_type).or_else(|| hints().find(interface));
        let leads = |hint: &&Hint| hint.inverse.is_some() || hint.kept.is_some();
        found.map(|edge| &edge.hint).filter(leads).filter(|hint| !self.is_of_another(site, hint))
    }

    /// Whether a hint names a field that the child has not, and another type has that the edge leads to: it is for that one.
    fn is_of_another(&self, site: &EdgeSite, hint: &Hint) -> bool {
        let Some(first) = hint.inverse.as_ref().and_then(|text| text.value.split('.').next()) else { return false };
        let leads_to = self.schema.field(&site.parent_type, &site.field).map(|field| field.ty.name());
        let others = leads_to.map(|name| self.schema.vertices(name)).unwrap_or_default();
        self.schema.field(&site.child_type, first).is_none()
            && others.iter().any(|other| *other != site.child_type && self.schema.field(other, first).is_some())
    }

    pub(super) fn declared_inverse(&mut self, site: &EdgeSite, text: &Text) -> Option<Reach> {
        let path: Vec<&str> = text.value.split('.').collect();
        let mut at = site.child_type.as_str();
        for segment in &path {
            let Some(field) = self.schema.field(at, segment) else {
                let fields = self.schema.fields(at).iter().map(|f| f.name.as_str());
                let message = format!("`{at}` has no field `{segment}`");
                self.found.push(text.spot.error(message).maybe_help(suggestion(segment, fields)));
                return None;
            };
            if field.needs_arguments() {
                let message = format!("`{at}.{segment}` needs arguments, so it cannot be asked for as an inverse");
                self.found.push(text.spot.error(message));
                return None;
            }
            at = field.ty.name();
        }
        if !self.schema.possible(at).contains(site.parent_type.as_str()) {
            let message =
                format!("`{}.{}` leads to `{at}`, not to `{}`", site.child_type, text.shown, site.parent_type);
            let way = self.schema.vertex_connection(at).filter(|(_, node)| self.leads(node, &site.parent_type));
            let help = way.map(|(way, _)| format!("write `{}.{}`", text.shown, way.join(".")));
            self.found.push(text.spot.error(message).maybe_help(help));
            return None;
        }
        let path: Vec<String> = path.into_iter().map(str::to_owned).collect();
        self.paged(site, &path);
        Some(Reach::Inverse { path, declared: true })
    }

    /// Tables whose rows map to the parent by one rule and to the child by another.
    pub(super) fn tables(&self, site: &EdgeSite) -> Vec<TableName> {
        let covers = |types: &[&str]| {
            let both = |i: usize, j: usize| i != j && types[i] == site.parent_type && types[j] == site.child_type;
            (0..types.len()).any(|i| (0..types.len()).any(|j| both(i, j)))
        };
        let rules = self
            .vertices
            .iter()
            .map(|(table, rules)| (table, rules.iter().map(|rule| rule.type_name.as_str()).collect::<Vec<_>>()));
        rules.filter(|(_, types)| covers(types)).map(|(table, _)| table.clone()).collect()
    }

    /// Paths from the child that lead to the parent: exactly to its type if there are such, else to an interface or union of it.
    pub(super) fn inverses(&self, site: &EdgeSite) -> Vec<Vec<String>> {
        let mut exact: Vec<(Vec<String>, bool)> = Vec::new();
        let mut wider = Vec::new();
        let forward = self.schema.field(&site.parent_type, &site.field);
        let to_itself = site.child_type == site.parent_type;
        // What leads from one object to one of its own type is not led back by another such field, as from a person to the manager and
        // to the mentor: from there it leads to several.
        let to_one = to_itself && forward.is_some_and(|field| !self.is_several(field));
        for field in self.schema.fields(&site.child_type) {
            // `Person.manager` is not its own inverse.
            let itself = to_itself && field.name == site.field;
            if itself || field.needs_arguments() || to_one && !self.is_several(field) {
                continue;
            }
            let (path, end, connection) = match self.schema.vertex_connection(field.ty.name()) {
                Some((way, node)) => {
                    let path = [field.name.as_str()].into_iter().chain(way.iter().copied());
                    (path.map(str::to_owned).collect(), node, true)
                }
                None => (vec![field.name.clone()], field.ty.name(), false),
            };
            if end == site.parent_type {
                exact.push((path, connection));
            } else if self.leads(end, &site.parent_type) {
                wider.push((path, connection));
            }
        }
        let found = if exact.is_empty() { wider } else { exact };
        // `moviesConnection` beside of `movies` is the same edge in pages.
        let plain: Vec<String> =
            found.iter().filter(|(_, c)| !c).filter_map(|(path, _)| path.first().cloned()).collect();
        let twin =
            |path: &[String]| path.first().is_some_and(|name| plain.iter().any(|p| name.starts_with(p.as_str())));
        let mut paths: Vec<Vec<String>> =
            found.into_iter().filter(|(path, connection)| !connection || !twin(path)).map(|(path, _)| path).collect();
        // Servers that make fields of foreign keys name both ends after the key's columns.
        let others: Vec<&str> = self
            .schema
            .fields(&site.parent_type)
            .iter()
            .filter(|f| f.name != site.field)
            .filter_map(|f| by(&f.name))
            .collect();
        let of_another = |path: &Vec<String>| {
            let column = path.first().and_then(|first| by(first));
            column.is_some_and(|column| by(&site.field) != Some(column) && others.contains(&column))
        };
        paths.retain(|path| !of_another(path));
        let named =
            |path: &Vec<String>| path.first().is_some_and(|first| by(first).is_some() && by(first) == by(&site.field));
        if paths.iter().filter(|path| named(path)).count() == 1 {
            paths.retain(named);
        } else if to_itself && !to_one && paths.len() > 1 {
            // From several it may lead to one; where it does, that is more likely than another list.
            let one = |path: &Vec<String>| {
                let field = path.first().and_then(|first| self.schema.field(&site.child_type, first));
                field.is_some_and(|field| !self.is_several(field))
            };
            if paths.iter().any(one) {
                paths.retain(one);
            }
        }
        paths
    }

    fn is_several(&self, field: &FieldDef) -> bool {
        field.ty.is_list() || self.schema.connection(field.ty.name()).is_some()
    }

    fn leads(&self, type_name: &str, to: &str) -> bool {
        self.schema.possible(type_name).contains(to)
    }

    /// Notes a way back that nobody declared.
    fn take(&mut self, site: &EdgeSite, way: String, by_field: bool) {
        let taken = Taken {
            parent: site.parent_type.clone(),
            child: site.child_type.clone(),
            field: site.field.clone(),
            way,
            by_field,
            spot: site.spot.clone(),
        };
        let known =
            |other: &Taken| (&other.parent, &other.child, &other.field) == (&taken.parent, &taken.child, &taken.field);
        if !self.taken.iter().any(known) {
            self.taken.push(taken);
        }
    }

    /// Several fields lead from a parent to a child: is what was found the way back of this one? A field is the way back of one; rows
    /// that name both ends are seen at both, whichever field shows them.
    pub(super) fn ways_taken_twice(&mut self) {
        let all = std::mem::take(&mut self.taken);
        let mut told: Vec<(&str, &str, &str)> = Vec::new();
        for taken in &all {
            let forward = self.forward(taken);
            let twins = forward.iter().all(|name| name.starts_with(&taken.field) || taken.field.starts_with(name));
            let named_alike = by(&taken.field).is_some_and(|column| taken.way.contains(column));
            if forward.len() < 2 || twins || named_alike {
                continue;
            }
            let key = (taken.parent.as_str(), taken.child.as_str(), taken.way.as_str());
            if told.contains(&key) {
                continue;
            }
            told.push(key);
            let same =
                |other: &&Taken| (&other.parent, &other.child, &other.way) == (&taken.parent, &taken.child, &taken.way);
            let edges: Vec<String> = all.iter().filter(same).map(|t| format!("{}.{}", t.parent, t.field)).collect();
            let fields = listed(forward.iter().copied());
            let (parent, child, way) = (&taken.parent, &taken.child, &taken.way);
            let shown = listed(edges.iter().map(String::as_str));
            if taken.by_field && edges.len() > 1 {
                let message = format!(
                    "{fields} all lead from `{parent}` to `{child}`, and {way} the only way back, which can be that of one"
                );
                let lines: String = edges
                    .iter()
                    .map(|edge| format!("\n{edge}: {{ inverse: <field> }}      # or {{ stored_in: parent }}"))
                    .collect();
                let help =
                    format!("say of {shown} which is led back by what, in the pipeline, under `graph.edges`:{lines}");
                self.found.push(taken.spot.error(message).help(help));
            } else {
                let message = format!(
                    "{fields} all lead from `{parent}` to `{child}`, and {way} taken as the way back of {shown}"
                );
                let help = format!("confirm or correct it by a line for {shown} under `graph.edges`");
                self.found.push(taken.spot.warning(message).help(help));
            }
        }
    }

    /// The fields that lead to the same as one does, it among them; of a type to itself, those that lead to as many.
    fn forward(&self, taken: &Taken) -> Vec<&'a str> {
        let schema: &'a Schema = self.schema;
        let leads = |type_name: &str| {
            type_name == taken.child || schema.vertex_connection(type_name).is_some_and(|(_, node)| node == taken.child)
        };
        let own = schema.field(&taken.parent, &taken.field);
        let alike = |field: &&FieldDef| {
            taken.parent != taken.child || own.is_some_and(|own| self.is_several(own) == self.is_several(field))
        };
        let all = schema.fields(&taken.parent).iter().filter(|f| !f.needs_arguments() && leads(f.ty.name()));
        all.filter(alike).map(|f| f.name.as_str()).collect()
    }

    /// An inverse that answers in pages shows its first page only.
    pub(super) fn paged(&mut self, site: &EdgeSite, path: &[String]) {
        let Some(field) = path.first().and_then(|first| self.schema.field(&site.child_type, first)) else { return };
        if let Some(argument) = field.arguments.iter().find(|a| is_paging(&a.name)) {
            let beyond = if self.schema.tells_next_page(field.ty.name()) {
                "a change of one with more is set aside as a dead letter"
            } else {
                "parents beyond it are missed"
            };
            let child = &site.child_type;
            let message = format!(
                "`{child}.{}` comes in pages (`{}:`), and the parents of a changed `{child}` are read from the first: {beyond}",
                field.name, argument.name
            );
            let help = format!(
                "name a way without pages for `{}.{}` under `graph.edges`, such as `stored_in: parent` or `tables:`",
                site.parent_type, site.field
            );
            self.found.push(site.spot.warning(message).help(help));
        }
    }
}

/// A way back that was found, and nobody declared.
pub(super) struct Taken {
    parent: String,
    child: String,
    field: String,
    /// In words.
    way: String,
    /// Whether it is a field of the child.
    by_field: bool,
    spot: Spot,
}

/// The columns that a field is named after, as in `moviesByDirectorId`.
fn by(field: &str) -> Option<&str> {
    field.split_once("By").map(|(_, columns)| columns).filter(|columns| columns.starts_with(|c: char| c.is_uppercase()))
}

/// A question for the user.
pub(super) fn which_inverse(site: &EdgeSite, candidates: &[Vec<String>]) -> Diagnostic {
    let paths: Vec<String> = candidates.iter().map(|path| path.join(".")).collect();
    let edge = format!("{}.{}", site.parent_type, site.field);
    let message = format!(
        "several fields of `{}` lead to `{}`: {}; which one is the inverse of `{edge}`?",
        site.child_type,
        site.parent_type,
        listed(paths.iter().map(String::as_str)),
    );
    let mut help = "name it in the pipeline, under `graph.edges`:".to_owned();
    for path in &paths {
        help.push_str(&format!("\n{edge}: {{ inverse: {path} }}"));
    }
    site.spot.error(message).help(help)
}

fn no_way(site: &EdgeSite) -> Diagnostic {
    let EdgeSite { parent_type: parent, field, child_type: child, .. } = site;
    let message =
        format!("nothing leads from `{child}` back to `{parent}`, so new edges of `{parent}.{field}` would be missed");
    let help = format!(
        "say in the pipeline how they are found, under `graph.edges`:\n\
         {parent}.{field}: {{ stored_in: parent }}      # the edge is a column of the {parent}'s own row\n\
         {parent}.{field}: {{ inverse: <field> }}       # a field of {child} that leads to its {parent}\n\
         or under `graph.vertices`, by a table whose rows name both:\n\
         schema.table: [{{ type: {parent}, id: \"{{…}}\" }}, {{ type: {child}, id: \"{{…}}\" }}]"
    );
    site.spot.error(message).help(help)
}
