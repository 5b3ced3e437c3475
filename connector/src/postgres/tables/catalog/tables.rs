//! Tables, their columns and indexes, as the catalog has them now.

use std::collections::HashMap;
use std::sync::Arc;

use tributary_event::{Column, TableName, TableSchema};

use super::super::publication::Published;
use super::{TableInfo, Types};
use crate::error::ConnectorError;
use crate::postgres::wire::sql::Sql;
use crate::settings::ValueOptions;

/// Which columns of a table.
#[derive(Clone, Copy)]
pub(in crate::postgres) enum Which<'a> {
    /// All of them.
    All,
    /// Those that a publication has; of a table that it lacks, those that it would have of it.
    Published(&'a Published),
}

/// A column.
pub(in crate::postgres) struct CatalogColumn {
    pub(in crate::postgres) name: String,
    pub(in crate::postgres) type_oid: u32,
    pub(in crate::postgres) modifier: i32,
    type_name: String,
    /// `pg_attribute.attgenerated`.
    generated: String,
}

/// Columns of the indexes that matter, in index order.
#[derive(Default)]
struct Indexes {
    primary: Vec<String>,
    identity: Vec<String>,
}

/// The tables of these names that exist, in the order of the names, with the columns that are asked for.
pub(in crate::postgres) async fn tables(
    sql: &Sql,
    names: &[(String, String)],
    which: Which<'_>,
) -> Result<Vec<TableInfo>, ConnectorError> {
    tables_as(sql, names, which, ValueOptions::default()).await
}

/// The same, with codecs for values that travel as is said.
pub(in crate::postgres) async fn tables_as(
    sql: &Sql,
    names: &[(String, String)],
    which: Which<'_>,
    values: ValueOptions,
) -> Result<Vec<TableInfo>, ConnectorError> {
    const SQL: &str = "with wanted as (select c.oid, n.nspname::text as schema, c.relname::text as name, \
            c.relkind::text as kind, c.relreplident::text as identity, c.relowner, c.relpersistence::text = 'p' as logged, o \
            from unnest($1::text[], $2::text[]) with ordinality as w(s, t, o) \
            join pg_catalog.pg_namespace n on n.nspname = w.s \
            join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t and c.relkind in ('r', 'p')), \
        heirs as (select i.inhparent, array_agg(n.nspname::text order by h.oid) as schemas, \
                array_agg(h.relname::text order by h.oid) as names from pg_catalog.pg_inherits i join pg_catalog.pg_class h on h.oid = i.inhrelid and h.relkind = 'r' \
            join pg_catalog.pg_namespace n on n.oid = h.relnamespace where not h.relispartition group by 1) \
        select w.oid, schema, name, kind, identity, has_table_privilege(w.oid, 'SELECT'), pg_has_role(relowner, 'USAGE'), \
            logged, coalesce(h.schemas, '{}'), coalesce(h.names, '{}') from wanted w left join heirs h on h.inhparent = w.oid order by o";
    let (schemas, relations): (Vec<&str>, Vec<&str>) = names.iter().map(|(s, t)| (s.as_str(), t.as_str())).unzip();
    let rows = sql.query("reading pg_class", SQL, &[&schemas, &relations]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = columns(sql, &oids).await?;
    let mut indexes = indexes(sql, &oids).await?;
    let roots = rows.iter().filter(|row| row.get::<_, &str>(3) == "p").map(|row| (row.get(0), row.get(4)));
    let mut odd = odd_partitions(sql, roots.collect()).await?;
    let mut types = Types::new(values);
    types.load(sql, columns.values().flatten().map(|c| c.type_oid)).await?;
    let known_types = Arc::new(types.rows());
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let oid: u32 = row.get(0);
        let (schema, name): (&str, &str) = (row.get(1), row.get(2));
        let (columns, unpublished) = parted(columns.remove(&oid).unwrap_or_default(), which, schema, name);
        let Indexes { primary, identity } = indexes.remove(&oid).unwrap_or_default();
        let letter = |i: usize| row.get::<_, &str>(i).chars().next().unwrap_or('?');
        let key = primary.iter().filter_map(|k| columns.iter().position(|c| c.name == *k)).collect();
        let codecs = columns.iter().map(|c| types.codec(c.type_oid, c.modifier)).collect();
        let text_only = columns.iter().find(|c| types.form(c.type_oid).is_none()).map(|c| c.name.clone());
        let type_of = |c: &CatalogColumn| (c.type_oid, c.modifier);
        let types_of: Vec<(u32, i32)> = columns.iter().map(type_of).collect();
        let columns =
            columns.into_iter().map(|c| Column { name: c.name.into(), type_name: c.type_name.into() }).collect();
        let row_filter = match which {
            Which::All => None,
            Which::Published(publication) => publication.row_filter(schema, name).map(str::to_owned),
        };
        found.push(TableInfo {
            oid,
            schema: Arc::new(TableSchema::new(schema, name, columns, key)),
            primary_key: primary,
            kind: letter(3),
            identity: letter(4),
            identity_index: identity,
            selectable: row.get(5),
            owned: row.get(6),
            persistent: row.get(7),
            codecs,
            unpublished: unpublished.into_iter().map(|column| column.name).collect(),
            made_types: types.made_by_users(types_of.iter().map(|(oid, _)| *oid)),
            types: types_of,
            known_types: known_types.clone(),
            row_filter,
            text_only,
            heirs: row.get::<_, Vec<String>>(8).into_iter().zip(row.get::<_, Vec<String>>(9)).map(of_parts).collect(),
            odd_partition: odd.remove(&oid),
        });
    }
    Ok(found)
}

fn of_parts((schema, name): (String, String)) -> TableName {
    TableName::new(schema, name)
}

/// The columns that are asked for, and the others.
fn parted(
    columns: Vec<CatalogColumn>,
    which: Which<'_>,
    schema: &str,
    table: &str,
) -> (Vec<CatalogColumn>, Vec<CatalogColumn>) {
    let Which::Published(publication) = which else { return (columns, Vec::new()) };
    let published = publication.columns(schema, table);
    let is_published = |column: &CatalogColumn| match published {
        Some(names) => names.contains(&column.name),
        None => column.generated.is_empty() || publication.stored_generated && column.generated == "s",
    };
    columns.into_iter().partition(is_published)
}

/// The columns of tables, in order.
async fn columns(sql: &Sql, tables: &[u32]) -> Result<HashMap<u32, Vec<CatalogColumn>>, ConnectorError> {
    const SQL: &str = "select attrelid, attname::text, atttypid, atttypmod, format_type(atttypid, atttypmod), \
        attgenerated::text from pg_catalog.pg_attribute \
        where attrelid = any($1) and attnum > 0 and not attisdropped order by attrelid, attnum";
    let mut columns: HashMap<u32, Vec<CatalogColumn>> = HashMap::new();
    for row in sql.query("reading pg_attribute", SQL, &[&tables]).await? {
        columns.entry(row.get(0)).or_default().push(CatalogColumn {
            name: row.get(1),
            type_oid: row.get(2),
            modifier: row.get(3),
            type_name: row.get(4),
            generated: row.get(5),
        });
    }
    Ok(columns)
}

/// The columns of primary keys and of the indexes that are replica identities.
async fn indexes(sql: &Sql, tables: &[u32]) -> Result<HashMap<u32, Indexes>, ConnectorError> {
    const SQL: &str = "select i.indrelid, i.indisprimary, i.indisreplident, array_agg(a.attname::text order by k.o) \
        from pg_catalog.pg_index i cross join unnest(i.indkey) with ordinality as k(n, o) \
        join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.n \
        where i.indrelid = any($1) and (i.indisprimary or i.indisreplident) and k.o <= i.indnkeyatts group by i.indexrelid";
    let mut indexes: HashMap<u32, Indexes> = HashMap::new();
    for row in sql.query("reading pg_index", SQL, &[&tables]).await? {
        let of_table = indexes.entry(row.get(0)).or_default();
        if row.get(1) {
            of_table.primary = row.get(3);
        }
        if row.get(2) {
            of_table.identity = row.get(3);
        }
    }
    Ok(indexes)
}

/// Of partitioned tables with their replica identity: the first partition whose identity is neither that nor `FULL`.
async fn odd_partitions(sql: &Sql, roots: Vec<(u32, String)>) -> Result<HashMap<u32, String>, ConnectorError> {
    const SQL: &str = "select r.oid, min(c.oid::regclass::text) from unnest($1::oid[], $2::text[]) as r(oid, identity) \
        cross join lateral pg_partition_tree(r.oid::regclass) p join pg_catalog.pg_class c on c.oid = p.relid \
        where p.isleaf and c.relkind = 'r' and c.relreplident not in ('f', r.identity::\"char\") group by r.oid";
    if roots.is_empty() {
        return Ok(HashMap::new());
    }
    let (oids, identities): (Vec<u32>, Vec<String>) = roots.into_iter().unzip();
    let rows = sql.query("reading the partitions", SQL, &[&oids, &identities]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The columns of one table, which also has a name, in order.
pub(in crate::postgres) async fn columns_of(
    sql: &Sql,
    table: u32,
    which: Which<'_>,
    (schema, name): (&str, &str),
) -> Result<Vec<CatalogColumn>, ConnectorError> {
    let columns = columns(sql, &[table]).await?.remove(&table).unwrap_or_default();
    Ok(parted(columns, which, schema, name).0)
}

/// The columns of a table's primary key, in key order.
pub(in crate::postgres) async fn primary_key_of(sql: &Sql, table: u32) -> Result<Vec<String>, ConnectorError> {
    Ok(primary_keys_of(sql, &[table]).await?.remove(&table).unwrap_or_default())
}

/// The same of many tables.
pub(in crate::postgres) async fn primary_keys_of(
    sql: &Sql,
    tables: &[u32],
) -> Result<HashMap<u32, Vec<String>>, ConnectorError> {
    Ok(indexes(sql, tables).await?.into_iter().map(|(table, indexes)| (table, indexes.primary)).collect())
}

/// The table that has this schema and name now.
pub(in crate::postgres) async fn table_of(sql: &Sql, name: &(String, String)) -> Result<Option<u32>, ConnectorError> {
    const SQL: &str = "select c.oid from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where n.nspname = $1::text::name and c.relname = $2::text::name and c.relkind in ('r', 'p')";
    Ok(sql.query("reading pg_class", SQL, &[&name.0, &name.1]).await?.first().map(|row| row.get(0)))
}

/// Schema and name that a table has now, if it is there.
pub(in crate::postgres) async fn name_of(sql: &Sql, table: u32) -> Result<Option<TableName>, ConnectorError> {
    const SQL: &str = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1";
    let rows = sql.query("reading pg_class", SQL, &[&table]).await?;
    Ok(rows.first().map(|row| of_parts((row.get(0), row.get(1)))))
}

/// What the server calls these types, with their modifiers.
pub(in crate::postgres) async fn type_names(sql: &Sql, types: &[(u32, i32)]) -> Result<Vec<String>, ConnectorError> {
    const SQL: &str = "select coalesce(format_type(t, m), '???') from unnest($1::oid[], $2::int4[]) with ordinality \
        as w(t, m, o) order by o";
    let (oids, modifiers): (Vec<u32>, Vec<i32>) = types.iter().copied().unzip();
    Ok(sql.query("naming types", SQL, &[&oids, &modifiers]).await?.iter().map(|row| row.get(0)).collect())
}
