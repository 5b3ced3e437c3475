//! Edges whose children a document does not show, or shows in part: cut, filtered or counted lists, and lists of what has no key.
//!
//! A child that is not shown is found by no lookup, for no document holds its reference. So when it changes its parents are asked for,
//! or its own row names them. Where children count by going away too, their rows must name the parents, as they were and as they are:
//! a row that is gone leads nowhere.

use tributary_event::TableName;

use super::Checker;
use super::edges::which_inverse;
use crate::definition::Kept;
use crate::diagnostic::Diagnostic;
use crate::plan::Reach;
use crate::proposal::alike;
use crate::query::{EdgeSite, Part};

impl Checker<'_> {
    /// The way to the parents of a child that documents may not show. `None`: there is none, which is said.
    pub(super) fn partly_shown(&mut self, site: &EdgeSite, part: &Part) -> Option<Reach> {
        let reach = self.way_from_unseen(site, part)?;
        if let Part::Silent(argument) = part {
            let EdgeSite { parent_type: parent, field, .. } = site;
            let message = format!(
                "`{field}` can be cut by `{argument}:`, and the server may do so where the query does not say how many it wants"
            );
            let help = format!(
                "say it: `{field}({argument}: 1000)`, or as many as there can be; or, if the server has no limit, in the pipeline:\n\
                 graph: {{ edges: {{ {parent}.{field}: {{ limit: none }} }} }}"
            );
            self.found.push(site.spot.warning(message).help(help));
        }
        Some(reach)
    }

    fn way_from_unseen(&mut self, site: &EdgeSite, part: &Part) -> Option<Reach> {
        let hint = self.hint(site);
        let tables: Vec<TableName> = match hint.and_then(|hint| hint.kept.as_ref()) {
            Some(Kept::InParent) => {
                self.way_back(site, part, &[]).map(|path| path.into_iter().for_each(|path| self.want(site, path)))?;
                return Some(Reach::StoredInParent);
            }
            Some(Kept::Tables(tables)) => tables.iter().map(|t| t.name.clone()).collect(),
            None => self.tables(site),
        };
        if tables.is_empty() && part.is_counted() {
            self.found.push(self.needs_rows(site, part));
            return None;
        }
        let path = self.way_back(site, part, &tables)?;
        if tables.is_empty() {
            let declared = hint.is_some_and(|hint| hint.inverse.is_some());
            return path.map(|path| Reach::Inverse { path, declared });
        }
        path.into_iter().for_each(|path| self.want(site, path));
        Some(Reach::Tables(tables))
    }

    /// A counted child that goes away is known by its row alone.
    fn needs_rows(&self, site: &EdgeSite, part: &Part) -> Diagnostic {
        let EdgeSite { parent_type: parent, field, child_type: child, .. } = site;
        let message = format!(
            "every `{child}` of `{parent}.{field}` counts in documents ({}), also one that they do not show: nothing tells which \
             {parent} it belonged to when it goes away",
            part.why()
        );
        let own = self.tables_of_type(child);
        let table = own.first().map_or_else(|| "schema.table".to_owned(), ToString::to_string);
        let help = format!(
            "map the table that holds the {parent} of each {child} to both, under `graph.vertices`:\n\
             {table}: [{{ type: {child}, id: \"{{…}}\" }}, {{ type: {parent}, id: \"{{…}}\" }}]\n\
             and let the log keep its rows as they were: ALTER TABLE {table} REPLICA IDENTITY FULL"
        );
        site.spot.error(message).help(help)
    }

    /// The path by which parents are asked for; none if rows of the child's tables name them all. `None`: there is no way, which is said.
    fn way_back(&mut self, site: &EdgeSite, part: &Part, tables: &[TableName]) -> Option<Option<Vec<String>>> {
        if let Some(text) = self.hint(site).and_then(|hint| hint.inverse.as_ref()) {
            return match self.declared_inverse(site, text)? {
                Reach::Inverse { path, .. } => Some(Some(path)),
                _ => Some(None),
            };
        }
        let own = self.tables_of_type(&site.child_type);
        let others: Vec<TableName> = own.into_iter().filter(|table| !tables.contains(table)).collect();
        // What a member leads to changes neither which members there are nor their order, as far as a schema shows.
        if !tables.is_empty() && (others.is_empty() || !site.member) {
            return Some(None);
        }
        let mut candidates = self.inverses(site);
        match candidates.len() {
            1 => {
                let path = candidates.remove(0);
                self.paged(site, &path);
                Some(Some(path))
            }
            0 => {
                let EdgeSite { parent_type: parent, field, child_type: child, .. } = site;
                let message = format!(
                    "documents show `{parent}.{field}` in part ({}), and nothing leads from a changed `{child}` that they do not \
                     show back to its {parent}",
                    part.why()
                );
                let table = others.first().map_or_else(|| "schema.table".to_owned(), ToString::to_string);
                let no_limit = match part {
                    Part::Silent(_) => format!(
                        "if the server has no limit, say so: graph: {{ edges: {{ {parent}.{field}: {{ limit: none }} }} }};\nor "
                    ),
                    Part::Cut(_) | Part::Counted(_) => String::new(),
                };
                let help = format!(
                    "{no_limit}show all of the list; or name a field of {child} that leads to its {parent}:\n\
                     graph: {{ edges: {{ {parent}.{field}: {{ inverse: <field> }} }} }}\n\
                     or map the table that holds the {parent} of each {child} to both, under `graph.vertices`:\n\
                     {table}: [{{ type: {child}, id: \"{{…}}\" }}, {{ type: {parent}, id: \"{{…}}\" }}]"
                );
                self.found.push(site.spot.error(message).help(help));
                None
            }
            _ => {
                let diagnostic = which_inverse(site, &candidates);
                self.found.push(diagnostic);
                None
            }
        }
    }

    /// The tables whose rows are the members of a list without a key.
    pub(super) fn rows_of(&mut self, site: &EdgeSite) -> Option<Reach> {
        let kept = self.hint(site).and_then(|hint| hint.kept.as_ref());
        match kept {
            Some(Kept::InParent) => return Some(Reach::StoredInParent),
            Some(Kept::Tables(tables)) => return Some(Reach::Tables(tables.iter().map(|t| t.name.clone()).collect())),
            None => {}
        }
        let (parent, field, child) = (&site.parent_type, &site.field, &site.child_type);
        let parents = self.tables_of_type(parent);
        let named: Vec<TableName> =
            parents.iter().filter(|table| alike(&table.name) == alike(child)).cloned().collect();
        if !named.is_empty() {
            return Some(Reach::Tables(named));
        }
        let message = format!(
            "`{parent}.{field}` lists objects without a key (`{child}`), and it is unknown which table's rows they are: a change of \
             one would be missed"
        );
        let help = format!(
            "name the table, whose rule must map to {parent}, in the pipeline:\n\
             graph: {{ edges: {{ {parent}.{field}: {{ tables: [schema.table] }} }} }}   # or {{ stored_in: parent }}\n\
             or say which field of {child} is different for each: graph: {{ types: {{ {child}: {{ id: <field> }} }} }}"
        );
        self.found.push(site.spot.error(message).help(help));
        None
    }

    /// The tables with a rule for a type.
    fn tables_of_type(&self, type_name: &str) -> Vec<TableName> {
        let maps = |table: &&TableName| self.vertices[*table].iter().any(|rule| rule.type_name == type_name);
        self.vertices.keys().filter(maps).cloned().collect()
    }
}
