//! The tables of a database with their keys, for who proposes what to do with them.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class`, `pg_index`, `pg_constraint`.

use std::collections::HashMap;

use tributary_event::TableName;

use crate::dependent::description::{Description, Reference};
use crate::error::ConnectorError;
use crate::postgres::wire::hosts;
use crate::postgres::wire::sql::Sql;
use crate::settings::Secret;

/// Describes the tables that the role may read, partitions and the server's own left out; sorted by name.
///
/// # Errors
/// The server does not answer, or lets us not in.
pub async fn describe(url: &Secret) -> Result<Vec<Description>, ConnectorError> {
    const TABLES: &str = "select n.nspname::text, c.relname::text, \
            array(select a.attname::text from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 \
                and not a.attisdropped order by a.attnum), \
            array(select a.attname::text from pg_catalog.pg_index i, \
                unnest(i.indkey::int2[]) with ordinality as k(number, place) \
                join pg_catalog.pg_attribute a on a.attnum = k.number \
                where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid order by k.place) \
        from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' \
            and has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT') order by 1, 2";
    const KEYS: &str = "select n.nspname::text, c.relname::text, \
            array(select a.attname::text from unnest(f.conkey) with ordinality as k(number, place) \
                join pg_catalog.pg_attribute a on a.attnum = k.number where a.attrelid = c.oid order by k.place), \
            tn.nspname::text, t.relname::text \
        from pg_catalog.pg_constraint f join pg_catalog.pg_class c on c.oid = f.conrelid \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace join pg_catalog.pg_class t on t.oid = f.confrelid \
        join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace \
        join pg_catalog.pg_index i on i.indrelid = t.oid and i.indisprimary and i.indexrelid = f.conindid \
        where f.contype = 'f' and f.conparentid = 0 and not c.relispartition order by f.conname";
    let sql = Sql::connect(&hosts::find(url).await?).await?;
    let rows = sql.query("reading tables", TABLES, &[]).await?;
    let keys = sql.query("reading foreign keys", KEYS, &[]).await?;
    let mut references: HashMap<(String, String), Vec<Reference>> = HashMap::new();
    for row in &keys {
        let to = TableName::new(row.get::<_, &str>(3), row.get::<_, &str>(4));
        references.entry((row.get(0), row.get(1))).or_default().push((row.get(2), to));
    }
    let described = rows.iter().map(|row| {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        Description {
            name: TableName::new(schema.as_str(), name.as_str()),
            columns: row.get(2),
            key: row.get(3),
            references: references.remove(&(schema, name)).unwrap_or_default(),
        }
    });
    Ok(described.collect())
}
