//! Looks up the tables of relation messages: the key, the types, and whether the log carries there what is needed of them.
//!
//! The log is read with the catalog of its own time, the questions are answered by the catalog of today, and a transaction is
//! in the log a moment before others can see it. So a transaction that may have made a type or a table is waited for until it
//! is visible; what is gone since is as it was when it was last looked at, which is kept (see `known`). Nothing is asked of a table
//! that the log has as the catalog had it when the session began, but its primary key where its relation message does not tell that:
//! then those of all such tables are.
//!
//! A table that the log carries in a way that does not suffice (columns, replica identity) stops the source only if that is
//! still so today. If it was mended since, the log has a stretch in which something lacks: whoever depends on the table is told
//! that rows may have changed unseen, and reading goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tributary_event::TableName;

use super::pgoutput::{self, Message, Relation};
use super::visibility::{Held, Snapshot, now_visible, until_over};
use crate::dependent::carried::Carried;
use crate::dependent::{Dependent, Doubt};
use crate::error::ConnectorError;
use crate::postgres::tables::catalog::{
    TableInfo, Types, Which, as_ids, columns_of, primary_key_of, primary_keys_of, quoted, table_of, tables, type_names,
    whole_rows,
};
use crate::postgres::tables::publication::Published;
use crate::postgres::tables::relation::{Decoder, Relayed, earlier_names, schema_name};
use crate::postgres::values::texts::Texts;
use crate::postgres::wire::session::Session;
use crate::postgres::wire::sqlstate::quote;
use crate::settings::DroppedTypes;

/// The transaction that a relation message came in.
#[derive(Debug, Clone, Copy)]
pub(in crate::postgres) struct Within {
    pub xid: u32,
    /// It is prepared: nobody sees it before it is committed.
    pub prepared: bool,
}

/// Who looks tables up, over a session of its own.
pub(in crate::postgres) struct Learner {
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
    /// The listed tables as they were when the session began, by OID. Nothing is asked of one that the log has just so.
    pub begun_with: HashMap<u32, TableInfo>,
    /// The primary keys of those whose relation messages do not tell them, when they were last asked for.
    pub primary_keys: Option<PrimaryKeys>,
    /// What becomes of values of types that nobody knows any more.
    pub dropped_types: DroppedTypes,
    /// Whether the server sends values as its types' send functions write them.
    pub binary: bool,
    /// How texts are read.
    pub texts: Arc<Texts>,
    pub dependent: Arc<dyn Dependent>,
}

/// Primary keys of many tables, as of one moment.
pub(in crate::postgres) struct PrimaryKeys {
    asked: Instant,
    /// What was visible then, or before.
    visible: Snapshot,
    /// By OID.
    of: HashMap<u32, Vec<String>>,
}

/// All keys are asked for at once, but no more often than this: between that, those of single tables are.
const BETWEEN_KEYS: Duration = Duration::from_secs(1);

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
    pub(in crate::postgres) async fn learn(
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
        let alike = self.begun_with.get(&relation.oid).filter(|info| bad_name.is_none() && info.is_alike(relation));
        if let Some(info) = alike.cloned()
            && let Some(key) = self.key_of(&info, &in_log, within).await?
        {
            let names = info.schema.columns.iter().map(|column| column.type_name.to_string()).collect();
            return self.learnt(relation, message, in_log, (key, names)).await;
        }
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
        let (primary_key, names) =
            if wanted { self.describe(relation, &name, within).await? } else { Default::default() };
        if !wanted {
            let mut table = self.relayed(relation, message, &name, (primary_key, names), false)?;
            table.renamed_from = renamed_from;
            return Ok(table);
        }
        self.learnt(relation, message, name, (primary_key, names)).await
    }

    /// The key of a table that the log has as it was when the session began, if that can be known without asking for the table alone.
    async fn key_of(
        &mut self,
        info: &TableInfo,
        name: &(String, String),
        within: Option<Within>,
    ) -> Result<Option<Vec<String>>, ConnectorError> {
        if let Some(declared) = declared_key(&self.keys, name) {
            return Ok(Some(declared.to_vec()));
        }
        if info.identity == 'd' {
            // The relation message has the same columns of it.
            return Ok(Some(info.primary_key.clone()));
        }
        // Whoever alters a key is a transaction before this one, or this one.
        let Some(within) = within.filter(|within| !within.prepared) else { return Ok(None) };
        match &self.primary_keys {
            Some(keys) if keys.visible.sees(within.xid) => return Ok(keys.of.get(&info.oid).cloned()),
            Some(keys) if keys.asked.elapsed() < BETWEEN_KEYS => return Ok(None),
            _ => {}
        }
        let sql = self.session.get().await?;
        until_over(&sql, within, &mut self.held).await?;
        let Some(visible) = now_visible(&self.session).await? else { return Ok(None) };
        let unsaid = self.begun_with.values().filter(|info| info.identity != 'd').map(|info| info.oid);
        let mut of = primary_keys_of(&sql, &unsaid.clone().collect::<Vec<_>>()).await?;
        for oid in unsaid {
            of.entry(oid).or_default();
        }
        let key = of.get(&info.oid).cloned();
        self.primary_keys = Some(PrimaryKeys { asked: Instant::now(), visible, of });
        Ok(key)
    }

    /// A listed table of which key and names of types are known.
    async fn learnt(
        &mut self,
        relation: &Relation<'_>,
        message: Bytes,
        name: (String, String),
        described: (Vec<String>, Vec<String>),
    ) -> Result<Relayed, ConnectorError> {
        let table = self.relayed(relation, message, &name, described, true)?;
        self.suffices(relation, &table, &name).await?;
        self.captured.insert(relation.oid, name);
        Ok(table)
    }

    fn relayed(
        &self,
        relation: &Relation<'_>,
        message: Bytes,
        name: &(String, String),
        (primary_key, names): (Vec<String>, Vec<String>),
        wanted: bool,
    ) -> Result<Relayed, ConnectorError> {
        let types: Vec<(u32, i32)> = relation.columns().map(|c| (c.type_oid, c.modifier)).collect();
        let known = &self.types;
        let decoder =
            |&(oid, modifier): &(u32, i32)| Decoder { codec: known.codec(oid, modifier), form: known.form(oid) };
        let decoders: Vec<_> = types.iter().map(decoder).collect();
        if let (true, true, Some(at)) = (self.binary, wanted, decoders.iter().position(|d| d.form.is_none())) {
            let column = relation.columns().nth(at).map_or("?", |c| c.name);
            let type_name = names.get(at).map_or("?", String::as_str);
            let cause = format!(
                "table {}, column {column}: values of type {type_name} are read as text",
                TableName::new(&*name.0, &*name.1)
            );
            return Err(ConnectorError::TextOnly { cause });
        }
        let mut table = Relayed::new(relation, message, name, &primary_key, decoders, names, wanted);
        table.texts = self.texts.clone();
        tracing::debug!(table = %table.schema.qualified_name(), wanted, "table seen in the log");
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
        within: Option<Within>,
    ) -> Result<(Vec<String>, Vec<String>), ConnectorError> {
        let types: Vec<(u32, i32)> = relation.columns().map(|c| (c.type_oid, c.modifier)).collect();
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
            let column = relation.columns().find(|c| lacking.contains(&c.type_oid)).map_or("?", |c| c.name);
            let table = TableName::new(&*name.0, &*name.1);
            if self.dropped_types == DroppedTypes::Stop {
                return Err(ConnectorError::Table {
                    table: table.to_string(),
                    cause: format!(
                        "the log has values of the column {column} of a type that was dropped since, before it was looked at: \
                         what they are cannot be known any more"
                    ),
                    remedy: "to have them published as text, as the server prints them, set dropped_types: text under the source, and \
                             start again; the setting can go when the source is past them"
                        .into(),
                });
            }
            tracing::warn!(%table, column, types = ?lacking, "values of types that were dropped since are published as text");
        }
        let mut key = match declared_key(&self.keys, name) {
            Some(key) => key.to_vec(),
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
        Ok((key, type_names(&sql, &types).await?))
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

/// The key that was declared for a table.
fn declared_key<'a>(
    keys: &'a [(String, String, Vec<String>)],
    (schema, table): &(String, String),
) -> Option<&'a [String]> {
    keys.iter().find(|(s, t, _)| (s, t) == (schema, table)).map(|(_, _, key)| key.as_slice())
}

/// What the log carries of a table from a relation message on.
fn carried(relation: &Relation<'_>, table: &Relayed, publication: &str) -> Carried {
    let full = relation.identity == b'f';
    Carried {
        schema: table.schema.clone(),
        unpublished: Vec::new(),
        row_filter: None,
        left_out: Vec::new(),
        quoted_publication: quote(publication),
        quoted_name: quoted(&table.schema),
        quote,
        whole_rows: whole_rows(&table.schema),
        ids: as_ids(&table.schema, table.codecs()),
        before: relation.columns().map(|c| full || c.identity).collect(),
    }
}
