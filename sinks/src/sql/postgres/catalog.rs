//! What PostgreSQL's catalog says of a table.

use tokio_postgres::types::Type;

use super::super::failure::Failure;
use super::super::table::{Column, Table, Target};
use super::dialect::Postgres;
use super::session::PostgresSession;

/// Looks at the table; none: there is none.
pub(super) async fn table(session: &PostgresSession, target: &Target) -> Result<Option<Table>, Failure> {
    const KIND: &str = "select c.oid, c.relkind in ('r', 'p') from pg_catalog.pg_class c \
         where c.oid = pg_catalog.to_regclass($1)";
    const COLUMNS: &str = "select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef, \
         a.attgenerated <> '' or a.attidentity = 'a', a.attidentity <> '' \
         from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped";
    const UNIQUE: &str = "select array(select a.attname::text from pg_catalog.pg_attribute a \
         where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
         from pg_catalog.pg_index i where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate \
         and i.indpred is null and i.indexprs is null";
    let kind = session.query(KIND, &[(&target.sql(&Postgres), Type::TEXT)]).await?;
    let Some(row) = kind.first() else { return Ok(None) };
    let (oid, is_table): (u32, bool) = (row.get(0), row.get(1));
    let mut table = Table { is_table, ..Table::default() };
    for row in session.query(COLUMNS, &[(&oid, Type::OID)]).await? {
        let (not_null, has_default, computed, identity): (bool, bool, bool, bool) =
            (row.get(2), row.get(3), row.get(4), row.get(5));
        let needed = not_null && !has_default && !computed && !identity;
        let column = Column { kind: row.get(1), needed, nullable: !not_null, computed, fixed: false };
        table.columns.insert(row.get(0), column);
    }
    for row in session.query(UNIQUE, &[(&oid, Type::OID)]).await? {
        table.unique.push(row.get::<_, Vec<String>>(0).into_iter().collect());
    }
    Ok(Some(table))
}
