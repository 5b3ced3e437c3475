//! What the server knows about tables and types.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class`, `pg_attribute`, `pg_index`, `pg_type`.

use std::collections::HashMap;
use std::sync::Arc;

use tributary_event::{Column, TableName, TableSchema};

use super::absent::no_such_table;
use super::binary::Form;
use super::hosts;
use super::publication::Published;
use super::sql::Sql;
use super::sqlstate::quote;
use super::value::Codec;
use crate::error::ConnectorError;
use crate::settings::{PostgresSettings, ValueOptions};

/// A table as the catalog has it now.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its OID.
    pub oid: u32,
    /// The columns that events have, and the key.
    pub schema: Arc<TableSchema>,
    /// Names of the primary key's columns, in key order.
    pub primary_key: Vec<String>,
    /// `pg_class.relkind`: `r` for a table, `p` for a partitioned one.
    pub kind: char,
    /// `pg_class.relreplident`.
    pub identity: char,
    pub(super) identity_index: Vec<String>,
    pub(super) selectable: bool,
    pub(super) owned: bool,
    pub(super) persistent: bool,
    pub(super) codecs: Vec<Codec>,
    /// The first column whose values are read as text alone.
    pub(super) text_only: Option<String>,
    /// Tables that inherit from it and are no partitions.
    pub(super) heirs: Vec<TableName>,
    /// The first partition that logs less of old rows than the table's identity says.
    pub(super) odd_partition: Option<String>,
}

impl TableInfo {
    /// Whether the log has the column's value for rows as they were before an update or a delete.
    pub fn is_logged_before(&self, column: usize) -> bool {
        let name = self.schema.columns.get(column).map_or("", |c| &*c.name);
        match self.identity {
            'f' => true,
            'i' => self.identity_index.iter().any(|c| c == name),
            _ => self.primary_key.iter().any(|c| c == name),
        }
    }

    /// Whether the column's values are the same text in events, in pages of keys and for everyone else, so that ids can be
    /// made of them.
    pub fn is_id(&self, column: usize, decimals_are_text: bool) -> bool {
        match self.codecs.get(column) {
            Some(Codec::Int | Codec::Bool | Codec::Text) => true,
            Some(Codec::Numeric(_)) => decimals_are_text,
            _ => false,
        }
    }

    /// Schema and name.
    pub(super) fn name(&self) -> (String, String) {
        (self.schema.schema.to_string(), self.schema.name.to_string())
    }

    /// The table as SQL names it.
    pub fn quoted_name(&self) -> String {
        format!("{}.{}", quote(&self.schema.schema), quote(&self.schema.name))
    }
}

/// The columns, types and key of a table.
///
/// # Errors
/// The server cannot be reached, or has no such table (similar names are suggested).
pub async fn table_columns(
    settings: &PostgresSettings,
    table: impl Into<TableName>,
) -> Result<TableInfo, ConnectorError> {
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let table = table.into();
    let name = (table.schema.to_string(), table.name.to_string());
    match tables(&sql, std::slice::from_ref(&name), Which::All).await?.pop() {
        Some(info) => Ok(info),
        None => Err(no_such_table(&sql, &name).await?),
    }
}

/// The tables of these names that exist, in the order of the names.
///
/// Their columns are those that are asked for.
pub(super) async fn tables(
    sql: &Sql,
    names: &[(String, String)],
    which: Which<'_>,
) -> Result<Vec<TableInfo>, ConnectorError> {
    const SQL: &str = "select c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relreplident::text, \
        has_table_privilege(c.oid, 'SELECT'), pg_has_role(c.relowner, 'USAGE'), c.relpersistence::text = 'p', \
        array(select unnest(array[s, t]) from (select hn.nspname::text s, h.relname::text t from pg_catalog.pg_inherits i \
              join pg_catalog.pg_class h on h.oid = i.inhrelid join pg_catalog.pg_namespace hn on hn.oid = h.relnamespace \
              where i.inhparent = c.oid and c.relkind = 'r' order by 1, 2) heirs) \
        from unnest($1::text[], $2::text[]) with ordinality as w(s, t, o) \
        join pg_catalog.pg_namespace n on n.nspname = w.s \
        join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t and c.relkind in ('r', 'p') order by w.o";
    let (schemas, relations): (Vec<&str>, Vec<&str>) = names.iter().map(|(s, t)| (s.as_str(), t.as_str())).unzip();
    let mut types = Types::default();
    let mut found = Vec::new();
    for row in sql.query("reading pg_class", SQL, &[&schemas, &relations]).await? {
        let oid: u32 = row.get(0);
        let columns = columns(sql, oid, which, (row.get(1), row.get(2))).await?;
        types.load(sql, columns.iter().map(|c| c.type_oid)).await?;
        let primary_key = index_columns(sql, oid, "indisprimary").await?;
        let letter = |i: usize| row.get::<_, String>(i).chars().next().unwrap_or('?');
        let key = primary_key.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).collect();
        let codecs = columns.iter().map(|c| types.codec(c.type_oid, c.modifier)).collect();
        let text_only = columns.iter().find(|c| types.form(c.type_oid).is_none()).map(|c| c.name.clone());
        let columns =
            columns.into_iter().map(|c| Column { name: c.name.into(), type_name: c.type_name.into() }).collect();
        found.push(TableInfo {
            oid,
            schema: Arc::new(TableSchema::new(row.get::<_, String>(1), row.get::<_, String>(2), columns, key)),
            primary_key,
            kind: letter(3),
            identity: letter(4),
            identity_index: index_columns(sql, oid, "indisreplident").await?,
            selectable: row.get(5),
            owned: row.get(6),
            persistent: row.get(7),
            codecs,
            text_only,
            heirs: row.get::<_, Vec<String>>(8).as_chunks().0.iter().map(|[s, t]| TableName::new(&**s, &**t)).collect(),
            odd_partition: if letter(3) == 'p' { odd_partition(sql, oid, letter(4)).await? } else { None },
        });
    }
    Ok(found)
}

/// A partition whose replica identity is neither that of its root nor `FULL`.
async fn odd_partition(sql: &Sql, root: u32, identity: char) -> Result<Option<String>, ConnectorError> {
    const SQL: &str = "select c.oid::regclass::text from pg_partition_tree($1::oid::regclass) p \
        join pg_catalog.pg_class c on c.oid = p.relid \
        where p.isleaf and c.relkind = 'r' and c.relreplident not in ('f', $2::text::\"char\") \
        order by 1 limit 1";
    let rows = sql.query("reading the partitions", SQL, &[&root, &identity.to_string()]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

pub(super) struct CatalogColumn {
    pub name: String,
    pub type_oid: u32,
    modifier: i32,
    type_name: String,
}

/// Which columns of a table.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// All of them.
    All,
    /// Those that a publication has; of a table that it lacks, those that it would have of it.
    Published(&'a Published),
}

/// The columns of a table, which also has a name, in order.
pub(super) async fn columns(
    sql: &Sql,
    table: u32,
    which: Which<'_>,
    (schema, name): (&str, &str),
) -> Result<Vec<CatalogColumn>, ConnectorError> {
    const SQL: &str = "select attname::text, atttypid, atttypmod, format_type(atttypid, atttypmod) \
        from pg_catalog.pg_attribute where attrelid = $1 and attnum > 0 and not attisdropped \
        and ($3 or case when $2::text[] is null then attgenerated = '' or $4 and attgenerated = 's' \
                        else attname = any($2) end) order by attnum";
    let (all, published, stored) = match which {
        Which::All => (true, None, true),
        Which::Published(publication) => (false, publication.columns(schema, name), publication.stored_generated),
    };
    let rows = sql.query("reading pg_attribute", SQL, &[&table, &published, &all, &stored]).await?;
    let column = |row: &tokio_postgres::Row| CatalogColumn {
        name: row.get(0),
        type_oid: row.get(1),
        modifier: row.get(2),
        type_name: row.get(3),
    };
    Ok(rows.iter().map(column).collect())
}

/// Columns of the primary key (`indisprimary`) or the replica identity index (`indisreplident`), in index order.
pub(super) async fn index_columns(sql: &Sql, table: u32, which: &str) -> Result<Vec<String>, ConnectorError> {
    let statement = format!(
        "select a.attname::text from pg_catalog.pg_index i cross join unnest(i.indkey) with ordinality as k(n, o) \
         join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n \
         where i.indrelid = $1 and i.{which} and k.o <= i.indnkeyatts order by k.o"
    );
    Ok(sql.query("reading pg_index", &statement, &[&table]).await?.iter().map(|row| row.get(0)).collect())
}

/// Schema and name that a table has now.
pub(super) async fn table_name(sql: &Sql, table: u32) -> Result<Option<(String, String)>, ConnectorError> {
    const SQL: &str = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1";
    let rows = sql.query("reading pg_class", SQL, &[&table]).await?;
    Ok(rows.first().map(|row| (row.get(0), row.get(1))))
}

/// What the server calls these types, with their modifiers.
pub(super) async fn type_names(sql: &Sql, types: &[(u32, i32)]) -> Result<Vec<String>, ConnectorError> {
    const SQL: &str = "select coalesce(format_type(t, m), '???') from unnest($1::oid[], $2::int4[]) with ordinality \
        as w(t, m, o) order by o";
    let (oids, modifiers): (Vec<u32>, Vec<i32>) = types.iter().copied().unzip();
    Ok(sql.query("naming types", SQL, &[&oids, &modifiers]).await?.iter().map(|row| row.get(0)).collect())
}

/// What is known of types, and the codecs that follow.
#[derive(Debug, Default)]
pub(super) struct Types {
    known: HashMap<u32, TypeFacts>,
    options: ValueOptions,
}

/// OIDs from here on are given to what users and extensions make (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16_384;

#[derive(Debug, Clone)]
struct TypeFacts {
    /// The base type and its modifier, for a domain.
    base: Option<(u32, i32)>,
    /// The element's type, for an array.
    element: Option<u32>,
    delimiter: u8,
    /// The codec that follows from the name, for a type of an extension.
    extension: Option<Codec>,
    /// The form of binary values that follows from the send function.
    form: Option<Form>,
}

impl Types {
    /// Nothing is known yet.
    pub(super) fn new(options: ValueOptions) -> Self {
        Self { known: HashMap::new(), options }
    }

    /// Learns these types and those that they are made of.
    pub(super) async fn load(&mut self, sql: &Sql, oids: impl Iterator<Item = u32>) -> Result<(), ConnectorError> {
        // Internal functions (12) are known by their name in C, whatever an extension calls them.
        const SQL: &str = "select t.oid, typtype = 'd', typbasetype, typtypmod, \
            case when typcategory = 'A' and typlen = -1 and t.oid not in (22, 30) then typelem else 0 end, \
            ascii(typdelim::text), \
            case when t.oid >= 16384 and typtype = 'b' then typname::text else '' end, \
            case when p.oid is null then '' when p.prolang = 12 then p.prosrc else '?' end \
            from pg_catalog.pg_type t left join pg_catalog.pg_proc p on p.oid = t.typsend where t.oid = any($1)";
        let mut wanted: Vec<u32> = oids.filter(|oid| !self.known.contains_key(oid)).collect();
        while !wanted.is_empty() {
            wanted.sort_unstable();
            wanted.dedup();
            let mut next = Vec::new();
            for row in sql.query("reading pg_type", SQL, &[&wanted]).await? {
                let (oid, domain, base, modifier): (u32, bool, u32, i32) =
                    (row.get(0), row.get(1), row.get(2), row.get(3));
                let (element, delimiter): (u32, i32) = (row.get(4), row.get(5));
                let form = match row.get(7) {
                    "" => Some(Form::Output),
                    // The text of an extension's type may be another than that of the type whose function it borrows.
                    send => Form::of_send_function(send).filter(|form| oid < FIRST_OF_USERS || *form == Form::Text),
                };
                let facts = TypeFacts {
                    form,
                    base: domain.then_some((base, modifier)),
                    element: (element != 0).then_some(element),
                    delimiter: u8::try_from(delimiter).unwrap_or(b','),
                    extension: Codec::of_extension(row.get(6), self.options),
                };
                next.extend(facts.base.map(|(base, _)| base).into_iter().chain(facts.element));
                self.known.insert(oid, facts);
            }
            next.retain(|oid| !self.known.contains_key(oid));
            wanted = next;
        }
        Ok(())
    }

    /// Forgets everything, for types may have been altered.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    /// The codec of a type. Types that are not known travel as text.
    pub(super) fn codec(&self, oid: u32, modifier: i32) -> Codec {
        self.codec_within(oid, modifier, 8)
    }

    /// The form of a type's values in a stream of binary ones; `None` if we read them as text alone.
    pub(super) fn form(&self, oid: u32) -> Option<Form> {
        self.form_within(oid, 8)
    }

    fn form_within(&self, oid: u32, depth: u32) -> Option<Form> {
        let facts = self.known.get(&oid).filter(|_| depth > 0)?;
        match (facts.base, facts.element) {
            (Some((base, _)), _) => self.form_within(base, depth - 1),
            (None, Some(element)) => match self.form_within(element, depth - 1)? {
                // Without a send function of its elements the array's own would fail.
                Form::Output => None,
                form => Some(Form::Array(Box::new(form))),
            },
            (None, None) => facts.form.clone(),
        }
    }

    fn codec_within(&self, oid: u32, modifier: i32, depth: u32) -> Codec {
        let Some(facts) = self.known.get(&oid).filter(|_| depth > 0) else {
            return Codec::builtin(oid, modifier, self.options);
        };
        if let Some((base, declared)) = facts.base {
            return self.codec_within(base, if declared >= 0 { declared } else { modifier }, depth - 1);
        }
        if let Some(element) = facts.element {
            let delimiter = self.known.get(&element).map_or(facts.delimiter, |e| e.delimiter);
            let element = Box::new(self.codec_within(element, modifier, depth - 1));
            return Codec::Array { element, delimiter };
        }
        if let Some(codec) = &facts.extension {
            return codec.clone();
        }
        Codec::builtin(oid, modifier, self.options)
    }
}
