//! Rows of a table, and the ids that a rule makes of them.

use std::collections::BTreeSet;

use tributary_connector::{ConnectorError, KeyPager, KeyRow};
use tributary_dsl::plan::{IdTemplate, IdValue, SourcePlan, VertexRule};
use tributary_event::TableName;
use tributary_indexer::graph::GraphError;
use tributary_indexer::resolve::vertices::id_value;

use super::Silence;
use crate::backends::rows_of;

/// A row, and the id that a rule makes of it.
pub(super) struct Made {
    pub columns: Vec<(String, IdValue)>,
    pub id: String,
}

/// Rows of both ends of a table, where the oldest and the newest keys are; all of one that has no more. None of a table that cannot be
/// paged.
pub(super) async fn rows(
    source: &SourcePlan,
    table: &TableName,
    rule: &VertexRule,
    most: usize,
) -> Result<Vec<Made>, Silence> {
    let failed =
        |e: ConnectorError| Silence::Source(GraphError::new(e.class(), format!("source {}: {e}", source.name)));
    let mut columns: Vec<String> = Vec::new();
    for column in rule.id.columns() {
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    let mut pager = match KeyPager::open(&rows_of(source), table, &columns).await {
        Ok(pager) => pager,
        // What is wrong with the table or its columns is told by the check of the rules.
        Err(ConnectorError::Table { .. } | ConnectorError::Privilege { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let half = most.div_ceil(2);
    let mut page = pager.page(None, half).await.map_err(failed)?;
    if page.len() == half {
        let known: BTreeSet<Vec<String>> = page.iter().map(|row| row.place.clone()).collect();
        let last = pager.last(most - half).await.map_err(failed)?;
        page.extend(last.into_iter().filter(|row| !known.contains(&row.place)));
    }
    Ok(page.iter().filter_map(|row| made(row, &columns, &rule.id)).collect())
}

fn made(row: &KeyRow, names: &[String], template: &IdTemplate) -> Option<Made> {
    let values: Option<Vec<IdValue>> = row.values.iter().map(id_value).collect();
    let columns: Vec<(String, IdValue)> = names.iter().cloned().zip(values?).collect();
    let id = template.render(|name| columns.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))?;
    Some(Made { columns, id })
}
