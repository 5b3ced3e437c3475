//! Whether the log carries what the rules of `graph.vertices` ask for.
//!
//! A rule makes a vertex's id of a row's columns. A column that does not exist gives no id, a column that updates and deletes do
//! not log gives none for the row as it was: the document that embedded it would keep it for ever. So both are refused, at the
//! start and whenever it becomes so; as is a column whose type has another text in events than in the graph, and a publication
//! that leaves out rows or operations, for documents are built of all rows.

use std::collections::BTreeMap;

use tributary_connector::{AsId, Carried};
use tributary_dsl::Diagnostic;
use tributary_dsl::plan::{
    DecimalHandling, EdgePlan, IdTemplate, Place, Plan, Reach, SourcePlan, SourceSettings, VertexRule,
};
use tributary_event::TableName;

/// Rules as they are written, by the table that they are for.
pub type Written = BTreeMap<TableName, Vec<VertexRule>>;

/// What is wrong with the rules of a source's tables.
pub fn check(plan: &Plan, source: &SourcePlan, tables: &[Carried]) -> Vec<Diagnostic> {
    examine(&plan.graph.vertices, Some(plan), source, tables)
}

/// What is wrong whatever the graph's schema is: all but whether old rows lack something that an index needs.
pub fn check_without_schema(rules: &Written, source: &SourcePlan, tables: &[Carried]) -> Vec<Diagnostic> {
    examine(rules, None, source, tables)
}

/// What was found, a line each, as a refusal.
///
/// # Errors
/// Anything was found.
pub fn refusal(found: &[Diagnostic]) -> Result<(), String> {
    if found.is_empty() { Ok(()) } else { Err(found.iter().map(Diagnostic::line).collect::<Vec<_>>().join("\n")) }
}

fn examine(rules: &Written, plan: Option<&Plan>, source: &SourcePlan, tables: &[Carried]) -> Vec<Diagnostic> {
    let row_filters = matches!(&source.settings, SourceSettings::Postgres(postgres) if postgres.row_filters);
    let mut wrong = Vec::new();
    for table in tables {
        let name = table.schema.qualified_name();
        let Some(rules) = rules.get(&table.schema.table_name()) else { continue };
        for rule in rules {
            columns(&name, table, rule, source.settings.decimals(), &mut wrong);
        }
        if let Some(plan) = plan {
            images(plan, &name, table, rules, &mut wrong);
        }
        if let Some(first) = rules.first() {
            left_out(&name, table, (&first.place, row_filters), &mut wrong);
        }
    }
    wrong
}

fn columns(name: &str, table: &Carried, rule: &VertexRule, decimals: DecimalHandling, wrong: &mut Vec<Diagnostic>) {
    let mut seen: Vec<&str> = Vec::new();
    for column in rule.id.columns() {
        if seen.contains(&column) {
            continue;
        }
        seen.push(column);
        let Some(place) = table.schema.column(column) else {
            let known: Vec<&str> = table.schema.columns.iter().map(|c| &*c.name).collect();
            let (publication, quoted) = (&table.quoted_publication, &table.quoted_name);
            let (why, remedy) = match table.unpublished.iter().any(|left_out| left_out == column) {
                true => (
                    format!("which the publication {publication} leaves out"),
                    format!(
                        "run: ALTER PUBLICATION {publication} DROP TABLE {quoted}; ALTER PUBLICATION {publication} ADD TABLE {quoted};\n\
                         of a generated column (PostgreSQL 18): ALTER PUBLICATION {publication} SET (publish_generated_columns = stored);"
                    ),
                ),
                false => (
                    "which events do not have".to_owned(),
                    format!(
                        "write one that they have ({}); or, if it was renamed, give it its name again:\n\
                         ALTER TABLE {quoted} RENAME COLUMN … TO {};",
                        known.join(", "),
                        table.quoted(column)
                    ),
                ),
            };
            let message =
                format!("graph.vertices: the rule of {name} for {} names the column `{column}`, {why}", rule.type_name);
            wrong.push(rule.place.error(message).help(remedy));
            continue;
        };
        let type_name = table.schema.columns.get(place).map_or("?", |c| &*c.type_name);
        let is_bare = rule.id.undated().any(|bare| bare == column);
        let (why, remedy) = match table.as_id(place, decimals == DecimalHandling::String) {
            AsId::Date if is_bare => {
                let dated = rule.id.dated(column);
                (
                    "events have it as a number of days".to_owned(),
                    format!("write \"{dated}\", if the graph has 2024-01-31"),
                )
            }
            AsId::Date => continue,
            AsId::Same if is_bare => continue,
            AsId::Same => ("it is no date".to_owned(), "take it as it is, without `date(…)`".to_owned()),
            AsId::Decimal => {
                ("decimals travel as bytes".to_owned(), "set `decimals: string` for the source".to_owned())
            }
            AsId::Never(why) => (why.to_owned(), "use a column of integers, decimals, text, uuid or dates".to_owned()),
        };
        let message = format!(
            "graph.vertices: the rule of {name} for {} uses the column `{column}` of type {type_name}, whose values look different in \
             events and in the graph: {why}",
            rule.type_name
        );
        wrong.push(rule.place.error(message).help(remedy));
    }
}

/// Changes that the publication leaves out are those of documents too.
fn left_out(name: &str, table: &Carried, (place, row_filters): (&Place, bool), wrong: &mut Vec<Diagnostic>) {
    let publication = table.quoted_publication.clone();
    if let Some(filter) = table.row_filter.as_ref().filter(|_| !row_filters) {
        let message = format!(
            "graph.vertices: {name} has a rule, and the publication {publication} publishes only its rows that meet {filter}, so documents \
             would not hear of changes of the others"
        );
        let help = format!(
            "run: ALTER PUBLICATION {publication} DROP TABLE {table}; ALTER PUBLICATION {publication} ADD TABLE {table};\n\
             or, if the graph leaves out the same rows, set `row_filters: accept` for the source",
            table = table.quoted_name
        );
        wrong.push(place.error(message).help(help));
    }
    if !table.left_out.is_empty() {
        let message = format!(
            "graph.vertices: {name} has a rule, and the publication {publication} leaves out every {}, so documents would not hear of them",
            table.left_out.join(" and ")
        );
        let help = format!("run: ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate');");
        wrong.push(place.error(message).help(help));
    }
}

/// A rule over columns that old rows lack needs another one that leads to the same documents: the vertex of the row itself, by
/// its key, which the index embeds.
fn images(plan: &Plan, name: &str, table: &Carried, rules: &[VertexRule], wrong: &mut Vec<Diagnostic>) {
    let lacks = |template: &IdTemplate| {
        template
            .columns()
            .find(|c| table.schema.column(c).is_some_and(|place| !table.is_logged_before(place)))
            .map(str::to_owned)
    };
    let own = table.schema.table_name();
    for rule in rules {
        let Some(column) = lacks(&rule.id) else { continue };
        let message = |so: &str| {
            format!(
                "graph.vertices: the rule of {name} for {} uses the column `{column}`, which the log does not have for rows as they were \
                 before an update or a delete, {so}",
                rule.type_name
            )
        };
        let statement = format!("run: {}", table.whole_rows);
        if let Some((index, path)) = counted(plan, table, rule, rules) {
            let so = format!("and documents of {index} count such rows, or show them by their place, at `{path}`");
            wrong.push(rule.place.error(message(&so)).help(statement));
            continue;
        }
        let reached = |other: &&VertexRule| {
            lacks(&other.id).is_none()
                && plan
                    .indexes
                    .iter()
                    .filter(|index| index.vertex_types().contains(rule.type_name.as_str()))
                    // Documents that do not show the row's own vertex show nothing of it, unless an edge is made of such rows.
                    .all(|index| {
                        index.vertex_types().contains(other.type_name.as_str())
                            || !index
                                .edges
                                .iter()
                                .any(|edge| matches!(&edge.reach, Reach::Tables(tables) if tables.contains(&own)))
                    })
        };
        if !rules.iter().any(|other| reached(&other)) {
            let help = format!(
                "{statement}\nor add a rule for the vertex of the row itself, by its key, to a query that embeds it"
            );
            let so = "so documents that lose such a row would keep it";
            wrong.push(rule.place.error(message(so)).help(help));
        }
    }
}

/// The index, and the place in its documents, where rows of a table count that documents do not show: only the rows say whose they
/// were.
fn counted<'p>(plan: &'p Plan, table: &Carried, rule: &VertexRule, rules: &[VertexRule]) -> Option<(&'p str, &'p str)> {
    let maps = |name: &str| rules.iter().any(|rule| rule.type_name == name);
    let name = table.schema.table_name();
    let counts = |edge: &&EdgePlan| {
        let by_rows = match &edge.reach {
            Reach::Tables(tables) => tables.contains(&name),
            Reach::Inverse { .. } | Reach::StoredInParent => maps(&edge.child_type),
        };
        edge.counted && by_rows && edge.parent_type == rule.type_name
    };
    plan.indexes.iter().find_map(|index| {
        let edge = index.edges.iter().find(counts)?;
        Some((index.name.as_str(), edge.path.as_str()))
    })
}
