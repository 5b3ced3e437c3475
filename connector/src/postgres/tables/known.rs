//! What was known of the captured tables when they were last looked at, kept in the transport beside the source's checkpoint,
//! so that what changed rows without events is noticed also if it happened while nobody looked.

use std::collections::BTreeMap;
use std::time::Duration;

use tributary_event::{ErrorClass, TableName};
use tributary_transport::{Batch, Checkpoint, Purpose, Transport};

use super::catalog::state::{self, TableState};
use super::catalog::{TableInfo, TypeRow};
use crate::dependent::{Dependent, Doubt, Independent};
use crate::error::ConnectorError;
use crate::postgres::wire::sql::Sql;

/// How often it is looked for what another process keeps, and the pause before each.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);

/// The last known state of each table, by the name that is listed.
pub(crate) struct Known {
    /// Name of the checkpoint and the producer.
    name: String,
    /// None before the first look.
    tables: Option<BTreeMap<String, TableState>>,
    /// The types that tables had when the process began, by OID: the log may have values of them, whether anything was derived of
    /// the tables or not.
    types: BTreeMap<u32, TypeRow>,
}

impl Known {
    /// What is known of the tables of a source.
    pub(crate) async fn load(source: &str, transport: &dyn Transport) -> Result<Self, ConnectorError> {
        Self::read(format!("{source}.tables"), transport).await
    }

    async fn read(name: String, transport: &dyn Transport) -> Result<Self, ConnectorError> {
        let content = transport.checkpoint(&name).await?;
        // What cannot be read says as little as what is not there.
        let tables: Option<BTreeMap<String, TableState>> =
            content.and_then(|content| serde_json::from_slice(&content).ok());
        let states = tables.iter().flat_map(BTreeMap::values);
        let types = states.flat_map(|state| state.types.clone()).collect();
        Ok(Self { name, tables, types })
    }

    /// Whether nothing is known yet.
    pub(in crate::postgres) fn is_none(&self) -> bool {
        self.tables.is_none()
    }

    /// The types that tables had.
    pub(in crate::postgres) fn types(&self) -> Vec<TypeRow> {
        self.types.values().cloned().collect()
    }

    /// The OID that a listed table had.
    pub(in crate::postgres) fn oid_of(&self, (schema, name): &(String, String)) -> Option<u32> {
        Some(self.tables.as_ref()?.get(&TableName::new(&**schema, &**name).to_string())?.oid)
    }

    /// Looks at tables that nobody looked at before. Another process of the source may do so at the same moment: one of the two is refused,
    /// and goes by what the other one keeps.
    ///
    /// # Errors
    /// As of [`Known::look`].
    pub(in crate::postgres) async fn begin(
        &mut self,
        sql: &Sql,
        version: i32,
        of: (&str, &[TableName]),
        tables: &[TableInfo],
        transport: &dyn Transport,
    ) -> Result<(), ConnectorError> {
        let mut tries = 0;
        while self.is_none() {
            match self.look(sql, version, of, tables, &Independent, transport).await {
                Ok(()) => break,
                Err(error) if error.class() == ErrorClass::Fatal && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
            *self = Self::read(std::mem::take(&mut self.name), transport).await?;
        }
        Ok(())
    }

    /// Looks at the tables, tells what may have changed without events, and keeps what it saw.
    ///
    /// # Errors
    /// The server or the transport did not answer; then nothing was kept, and the next look tells the same.
    pub(in crate::postgres) async fn look(
        &mut self,
        sql: &Sql,
        version: i32,
        (publication, listed): (&str, &[TableName]),
        tables: &[TableInfo],
        dependent: &dyn Dependent,
        transport: &dyn Transport,
    ) -> Result<(), ConnectorError> {
        let readings = state::read(sql, version, publication, tables).await?;
        let mut now = BTreeMap::new();
        let mut doubts = Vec::new();
        for (table, reading) in tables.iter().zip(readings) {
            let name = table.schema.qualified_name();
            let why = match &self.tables {
                None => None,
                Some(known) => match known.get(&name) {
                    Some(before) => reading.doubt(before),
                    None => Some("it was not captured before"),
                },
            };
            if let Some(why) = why {
                doubts.push(Doubt { table: table.schema.table_name(), why: why.to_owned() });
            }
            let mut state = reading.state;
            if let Some(before) = self.tables.as_ref().and_then(|known| known.get(&name)) {
                state.keep_types(before);
            }
            now.insert(name, state);
        }
        // One that is not there for now is known as it was when it comes back.
        for name in listed.iter().map(ToString::to_string) {
            if let Some(before) = self.tables.as_ref().and_then(|known| known.get(&name)) {
                now.entry(name).or_insert_with(|| before.clone());
            }
        }
        if self.tables.as_ref() == Some(&now) {
            return Ok(());
        }
        if !doubts.is_empty() {
            dependent.doubt(&doubts).await?;
        }
        self.keep(now, transport).await
    }

    /// Keeps that the tables do not suffice, so that the next look at them, when they do again, has its doubts.
    pub(in crate::postgres) async fn unfit(
        &mut self,
        tables: &[TableInfo],
        transport: &dyn Transport,
    ) -> Result<(), ConnectorError> {
        let Some(mut known) = self.tables.clone() else { return Ok(()) };
        for table in tables {
            if let Some(state) = known.get_mut(&table.schema.qualified_name()) {
                state.unfit = true;
            }
        }
        if self.tables.as_ref() == Some(&known) { Ok(()) } else { self.keep(known, transport).await }
    }

    async fn keep(
        &mut self,
        tables: BTreeMap<String, TableState>,
        transport: &dyn Transport,
    ) -> Result<(), ConnectorError> {
        let mut batch = Batch::new();
        let content = serde_json::to_vec(&tables).unwrap_or_default().into();
        batch.checkpoint = Some(Checkpoint { name: self.name.clone(), content });
        transport.producer(&self.name, Purpose::Stage).await?.append(&batch).await?;
        self.tables = Some(tables);
        Ok(())
    }
}
