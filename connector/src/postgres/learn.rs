//! Looks up the tables of relation messages: the key, the types, and whether the log carries there what is needed of them.
//!
//! The log is read with the catalog of its own time, the questions are answered by the catalog of today, and a transaction is
//! in the log a moment before others can see it. So a transaction that may have made a type or a table is waited for until it
//! is visible; what is gone since is not known any more.
//!
//! A table that the log carries in a way that does not suffice (columns, replica identity) stops the source only if that is
//! still so today. If it was mended since, the log has a stretch in which something lacks: whoever depends on the table is told
//! that rows may have changed unseen, and reading goes on.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_event::TableName;

use super::catalog::{Carried, Types, Which, columns_of, primary_key_of, table_of, tables, type_names};
use super::pgoutput::{self, Message, Relation};
use super::publication::Published;
use super::relation::{Decoder, Relayed, earlier_names, schema_name};
use super::session::Session;
use super::texts::Texts;
use super::visibility::{Held, until_over};
use crate::dependent::{Dependent, Doubt};
use crate::error::ConnectorError;

/// The transaction that a relation message came in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within {
    pub xid: u32,
    /// It is prepared: nobody sees it before it is committed.
    pub prepared: bool,
}

/// Who looks tables up, over a session of its own.
pub(super) struct Learner {
    pub session: Arc<Session>,
    pub held: Held,
    pub publication: String,
    pub types: Types,
    /// The listed tables.
    pub wanted: Vec<(String, String)>,
    /// Declared keys: schema, table, columns.
    pub keys: Vec<(String, String, Vec<String>)>,
    /// What the names meant when they were last looked up, by OID.
    pub captured: HashMap<u32, (String, String)>,
    /// Whether the server sends values as its types' send functions write them.
    pub binary: bool,
    /// How texts are read.
    pub texts: Arc<Texts>,
    pub dependent: Arc<dyn Dependent>,
}

/// What the listed name of a table in the log stands for today.
enum Naming {
    /// The table is listed by the name that it has in the log.
    Listed,
    /// The table is listed, and has an earlier name in the log.
    Earlier((String, String)),
    /// The table was listed by a name that no table has any more.
    Renamed((String, String)),
    /// The table is not listed, or another one has taken its listed name.
    Other,
}

impl Learner {
    /// Looks up the table of a relation message. Gives itself back.
    pub(super) async fn learn(
        mut self,
        message: Bytes,
        within: Option<Within>,
    ) -> (Self, Result<Option<(u32, Relayed)>, ConnectorError>) {
        let texts = self.texts.clone();
        let (readable, bad_name) = texts.message(&message);
        let learnt = match pgoutput::decode(&readable) {
            Ok(Message::Relation(relation)) => {
                let table = self.table(&relation, message.clone(), bad_name, within).await;
                table.map(|table| Some((relation.oid, table)))
            }
            _ => Ok(None),
        };
        (self, learnt)
    }

    async fn table(
        &mut self,
        relation: &Relation<'_>,
        message: Bytes,
        bad_name: Option<&[u8]>,
        within: Option<Within>,
    ) -> Result<Relayed, ConnectorError> {
        let in_log = (schema_name(relation).to_owned(), relation.name.to_owned());
        let concerns = self.wanted.contains(&in_log) || self.captured.contains_key(&relation.oid);
        if let Some(within) = within.filter(|within| concerns && !within.prepared) {
            until_over(&*self.session.get().await?, within, &mut self.held).await?;
        }
        let (name, wanted, renamed_from) = match self.naming(relation.oid, &in_log).await? {
            Naming::Listed => (in_log, true, None),
            Naming::Earlier(listed) => (listed, true, None),
            Naming::Renamed(listed) => (in_log, false, Some(TableName::new(listed.0, listed.1))),
            Naming::Other => (in_log, false, None),
        };
        if let (true, true, Some(bad)) = (wanted, self.texts.stops(), bad_name) {
            return Err(self.texts.refuse_name(&TableName::new(name.0, name.1).to_string(), bad));
        }
        let types: Vec<(u32, i32)> = relation.columns().map(|c| (c.type_oid, c.modifier)).collect();
        let (primary_key, names) =
            if wanted { self.describe(relation, &name, &types, within).await? } else { Default::default() };
        let known = &self.types;
        let decoder =
            |&(oid, modifier): &(u32, i32)| Decoder { codec: known.codec(oid, modifier), form: known.form(oid) };
        let decoders: Vec<_> = types.iter().map(decoder).collect();
        if let (true, true, Some(at)) = (self.binary, wanted, decoders.iter().position(|d| d.form.is_none())) {
            let column = relation.columns().nth(at).map_or("?", |c| c.name);
            let type_name = names.get(at).map_or("?", String::as_str);
            let cause = format!(
                "table {}, column {column}: values of type {type_name} are read as text",
                TableName::new(name.0, name.1)
            );
            return Err(ConnectorError::TextOnly { cause });
        }
        let mut table = Relayed::new(relation, message, &name, &primary_key, decoders, names, wanted);
        table.renamed_from = renamed_from;
        table.texts = self.texts.clone();
        tracing::debug!(table = %table.schema.qualified_name(), wanted, "table seen in the log");
        if wanted {
            self.suffices(relation, &table, &name).await?;
            self.captured.insert(relation.oid, name);
        }
        Ok(table)
    }

    async fn naming(&mut self, oid: u32, in_log: &(String, String)) -> Result<Naming, ConnectorError> {
        if self.wanted.contains(in_log) {
            return Ok(Naming::Listed);
        }
        let Some(listed) = self.captured.get(&oid).cloned() else { return Ok(Naming::Other) };
        let today = table_of(&*self.session.get().await?, &listed).await?;
        Ok(match today {
            Some(today) if today == oid => Naming::Earlier(listed),
            // Swapped: the name is that of another table now, which is captured in its place.
            Some(_) => Naming::Other,
            None => Naming::Renamed(listed),
        })
    }

    /// The key of a table, the primary one unless another is declared, and the names of these types; also learns the types.
    async fn describe(
        &mut self,
        relation: &Relation<'_>,
        name: &(String, String),
        types: &[(u32, i32)],
        within: Option<Within>,
    ) -> Result<(Vec<String>, Vec<String>), ConnectorError> {
        let sql = self.session.get().await?;
        let mut lacking = self.types.load(&sql, types.iter().map(|(oid, _)| *oid)).await?;
        if let (false, Some(within)) = (lacking.is_empty(), within.filter(|within| within.prepared)) {
            tracing::warn!(
                table = %TableName::new(&*name.0, &*name.1),
                "a prepared transaction changes the table by types that it has made; waiting until it is committed or rolled back"
            );
            until_over(&sql, within, &mut self.held).await?;
            lacking = self.types.load(&sql, types.iter().map(|(oid, _)| *oid)).await?;
        }
        if !lacking.is_empty() {
            tracing::warn!(
                table = %TableName::new(&*name.0, &*name.1),
                types = ?lacking,
                "the log has values of types that were dropped since; they are published as text"
            );
        }
        let declared = self.keys.iter().find(|(s, t, _)| (s, t) == (&name.0, &name.1)).map(|(_, _, key)| key.clone());
        let mut key = match declared {
            Some(key) => key,
            None => primary_key_of(&sql, relation.oid).await?,
        };
        if key.iter().any(|name| relation.columns().all(|c| c.name != name)) {
            // Renamed since this point of the log.
            let published = Published::read(&sql, &self.publication).await?;
            let in_log = (schema_name(relation), relation.name);
            let now = columns_of(&sql, relation.oid, Which::Published(&published), in_log).await?;
            let now: Vec<(&str, u32)> = now.iter().map(|c| (c.name.as_str(), c.type_oid)).collect();
            key = earlier_names(relation, &now, &key);
        }
        Ok((key, type_names(&sql, types).await?))
    }

    /// Whether the log carries enough of the table at this place, or did not but does from some place on.
    async fn suffices(
        &mut self,
        relation: &Relation<'_>,
        table: &Relayed,
        name: &(String, String),
    ) -> Result<(), ConnectorError> {
        let Err(lacks) = self.dependent.check(&[carried(relation, table, &self.publication)]) else { return Ok(()) };
        let sql = self.session.get().await?;
        let published = Published::read(&sql, &self.publication).await?;
        let today = tables(&sql, std::slice::from_ref(name), Which::Published(&published)).await?;
        let today: Vec<Carried> = today.iter().map(|t| t.carried(&self.publication, &published.left_out)).collect();
        // A table that is gone has no rows that could be shown.
        self.dependent.check(&today).map_err(ConnectorError::Refused)?;
        let doubt = Doubt {
            table: table.schema.table_name(),
            why: format!("the log has a stretch in which it does not suffice ({lacks})"),
        };
        self.dependent.doubt(&[doubt]).await
    }
}

/// What the log carries of a table from a relation message on.
fn carried(relation: &Relation<'_>, table: &Relayed, publication: &str) -> Carried {
    let full = relation.identity == b'f';
    Carried {
        schema: table.schema.clone(),
        row_filter: None,
        left_out: Vec::new(),
        publication: publication.to_owned(),
        codecs: table.codecs().cloned().collect(),
        before: relation.columns().map(|c| full || c.identity).collect(),
    }
}
