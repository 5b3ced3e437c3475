//! The versions of tables, kept in the transport beside the source's checkpoint: before a row behind a definition is published, the table
//! as it is behind that definition is durable. So a restart, wherever it goes on, finds the tables of that place.

use serde::{Deserialize, Serialize};
use tributary_event::TableName;
use tributary_transport::{Batch, Checkpoint, Purpose, Transport};

use super::Shape;
use crate::error::ConnectorError;
use crate::mysql::position::{GroupId, LogPosition};

/// A table, from a definition on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::mysql) struct Version {
    pub schema: String,
    pub table: String,
    /// The group with the definition; none: it was so where the capture began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<GroupId>,
    pub shape: Shape,
}

/// All versions, in the order of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::mysql) struct History {
    versions: Vec<Version>,
}

fn name(source: &str) -> String {
    format!("{source}.tables")
}

impl History {
    /// What is kept of a source.
    pub(in crate::mysql) async fn load(source: &str, transport: &dyn Transport) -> Result<Self, ConnectorError> {
        let content = transport.checkpoint(&name(source)).await?;
        Ok(content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default())
    }

    /// Keeps it.
    pub(in crate::mysql) async fn keep(&self, source: &str, transport: &dyn Transport) -> Result<(), ConnectorError> {
        let name = name(source);
        let mut batch = Batch::new();
        let content = serde_json::to_vec(self).unwrap_or_default().into();
        batch.checkpoint = Some(Checkpoint { name: name.clone(), content });
        transport.producer(&name, Purpose::Stage).await?.append(&batch).await?;
        Ok(())
    }

    /// The table where a position is.
    pub(in crate::mysql) fn at(&self, table: &TableName, position: &LogPosition) -> Option<&Shape> {
        let is_past = |version: &&Version| version.since.as_ref().is_none_or(|since| position.contains(since));
        self.of(table).filter(is_past).last().map(|version| &version.shape)
    }

    /// The table behind a definition, if it was looked up before.
    pub(in crate::mysql) fn behind(&self, table: &TableName, group: &GroupId) -> Option<&Shape> {
        self.of(table).find(|version| version.since.as_ref() == Some(group)).map(|version| &version.shape)
    }

    fn of<'a>(&'a self, table: &TableName) -> impl Iterator<Item = &'a Version> {
        let (schema, name) = (table.schema.clone(), table.name.clone());
        self.versions.iter().filter(move |version| *version.schema == *schema && *version.table == *name)
    }

    /// A version that follows all others.
    pub(in crate::mysql) fn add(&mut self, table: &TableName, since: Option<GroupId>, shape: Shape) {
        let (schema, table) = (table.schema.to_string(), table.name.to_string());
        self.versions.push(Version { schema, table, since, shape });
    }

    /// Forgets what no place behind a position needs, and tables that are not captured.
    pub(in crate::mysql) fn prune(&mut self, tables: &[TableName], position: &LogPosition) {
        let all = std::mem::take(&mut self.versions);
        for (at, version) in all.iter().enumerate() {
            let table = TableName::new(version.schema.as_str(), version.table.as_str());
            let is_same = |later: &&Version| later.schema == version.schema && later.table == version.table;
            let is_past = |later: &Version| later.since.as_ref().is_some_and(|since| position.contains(since));
            let is_replaced = all[at + 1..].iter().filter(is_same).any(is_past);
            if tables.contains(&table) && !is_replaced {
                self.versions.push(version.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_version_of_its_place() {
        let table = TableName::new("films", "movie");
        let shape = |columns: usize| Shape { columns: Vec::new(), key: vec![columns] };
        let at = |text: &str| LogPosition::Domains(text.parse().expect("a position"));
        let group = |text: &str| GroupId::Domain(text.parse().expect("a GTID"));
        let mut history = History::default();
        history.add(&table, None, shape(1));
        history.add(&table, Some(group("0-1-5")), shape(2));
        history.add(&table, Some(group("0-1-9")), shape(3));
        assert_eq!(history.at(&table, &at("0-1-4")), Some(&shape(1)));
        assert_eq!(history.at(&table, &at("0-1-5")), Some(&shape(2)));
        assert_eq!(history.behind(&table, &group("0-1-9")), Some(&shape(3)));
        history.prune(std::slice::from_ref(&table), &at("0-1-6"));
        assert_eq!((history.at(&table, &at("0-1-4")), history.at(&table, &at("0-1-8"))), (None, Some(&shape(2))));
        history.prune(&[], &at("0-1-6"));
        assert_eq!(history, History::default());
    }
}
