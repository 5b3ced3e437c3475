//! What can change the rows of a captured table without an event of the log, and how it is noticed: the state of each table
//! is read from the catalog, kept from one reading to the next (also while no process runs), and compared.
//!
//! | what happens | how it shows |
//! |---|---|
//! | another table takes the name (dropped and made anew, swapped) | another OID |
//! | the publication leaves rows out for a while | another publication, entry of it, set of operations, or row filter |
//! | a partition with rows is attached | a part that is new, has rows, and was not made as a partition |
//! | a partition is detached and attached again | a part whose entry in the table is another |
//! | a partition is detached or dropped | a part is gone that had rows |
//! | a partition is truncated alone | a part of a partitioned table has another file |
//! | `ALTER TABLE` rewrites the table (`TYPE … USING`, `ADD COLUMN` with a volatile default, `SET EXPRESSION`, `SET LOGGED`) | another TOAST table, which `VACUUM FULL`, `CLUSTER` and `TRUNCATE` leave; of a table without one: another file, and columns that were altered |
//! | the table is unlogged for a while | as any rewrite; of a table without a TOAST table: another file, where the publication does not name the table (where it does, the server refuses that) |
//! | `ALTER TYPE … RENAME VALUE` | another label of an enum |
//! | `ADD COLUMN` with a constant default, or with a virtual generated value | a new column that has a value in old rows |
//! | `DROP COLUMN` | a column less |
//! | `RENAME COLUMN` (also to a name that another column had) | a column with another name |
//!
//! `VACUUM FULL`, `CLUSTER` and their like of a partition look like the truncation of it, and of a table without long values, under a
//! publication of all tables or of a schema, so does `TRUNCATE`, like a while in which it was unlogged; and `ALTER TABLE` to a type whose
//! values print the same looks like any rewrite: what was derived of the table is derived again then though nothing changed.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class.relfilenode`, `pg_attribute.atthasmissing`, `pg_inherits`,
//! `pg_publication_rel`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{TableInfo, TypeRow};
use crate::error::ConnectorError;
use crate::postgres::wire::sql::Sql;

/// What is kept of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::postgres) struct TableState {
    pub(in crate::postgres) oid: u32,
    /// The number of the newest column, dropped ones among them.
    newest: i16,
    /// How many columns there are.
    columns: u16,
    /// Changes whenever a column is altered.
    altered: String,
    /// The names of the columns, by their numbers. Those of a state that was kept before names were are not known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    names: BTreeMap<i16, String>,
    /// Changes with the expressions of virtual columns.
    virtuals: String,
    /// The tables that keep its rows, itself or its partitions, by OID.
    parts: BTreeMap<u32, Part>,
    /// The labels of the enums of its columns, by OID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<u32, String>,
    /// Its types and those that they are made of, as far as users and extensions have made them; also those that it had and that
    /// are gone, for the log may have values of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::postgres) types: BTreeMap<u32, TypeRow>,
    /// Changes with what the publication has of the table.
    published: String,
    /// Something of it does not suffice: when it does again, rows may have changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::postgres) unfit: bool,
}

/// What is kept of a table that keeps rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// Its file (`pg_relation_filenode`).
    file: u32,
    /// Its TOAST table; 0 if it has none.
    toast: u32,
    /// Changes when it, or a partition above it, is attached.
    entry: String,
    /// Whether it has a page of rows.
    rows: bool,
}

/// A table as a reading finds it.
#[derive(Debug, Clone, Default)]
pub(in crate::postgres) struct Reading {
    /// What is kept.
    pub(in crate::postgres) state: TableState,
    /// Numbers of the columns that have a value in rows that are older than they are.
    valued: BTreeSet<i16>,
    /// Parts that have rows and were not made as partitions.
    attached: BTreeSet<u32>,
    /// The publication names the table, rather than all of its schema or of the database: then the server lets nobody make it
    /// unlogged.
    named: bool,
}

/// Types of a table that are remembered, at most.
const TYPES: usize = 256;

impl TableState {
    /// Keeps types that the table had before.
    pub(in crate::postgres) fn keep_types(&mut self, before: &Self) {
        for (oid, row) in &before.types {
            if self.types.len() < TYPES {
                self.types.entry(*oid).or_insert_with(|| row.clone());
            }
        }
    }
}

impl Reading {
    /// Why rows may have changed without an event since the table was in this state; none if they did not.
    pub(in crate::postgres) fn doubt(&self, before: &TableState) -> Option<&'static str> {
        let now = &self.state;
        let is_partitioned = |state: &TableState| state.parts.keys().any(|part| *part != state.oid);
        let any_part = |differs: &dyn Fn(&Part, &Part) -> bool| {
            before.parts.iter().any(|(oid, before)| now.parts.get(oid).is_some_and(|now| differs(before, now)))
        };
        let moved = any_part(&|before, now| before.file != now.file);
        let altered = before.altered != now.altered;
        let rewritten = any_part(&|before, now| match before.toast {
            0 => before.file != now.file && altered,
            toast => now.toast != toast,
        });
        let is_old = |number: &&i16| **number <= before.newest;
        Some(if before.oid != now.oid {
            "another table has its name now (it was made anew, or swapped)"
        } else if before.unfit {
            "the log lacked something of it for a while"
        } else if before.published != now.published {
            "its publication was changed, and may have left changes out"
        } else if before.parts.iter().any(|(oid, part)| part.rows && !now.parts.contains_key(oid)) {
            "a partition was detached or dropped, and its rows with it"
        } else if self.attached.iter().any(|part| !before.parts.contains_key(part)) {
            "a partition was attached that has rows"
        } else if any_part(&|before, now| before.entry != now.entry) {
            "a partition was detached and attached again"
        } else if rewritten {
            "an ALTER TABLE rewrote its rows"
        } else if before.labels.iter().any(|(oid, label)| now.labels.get(oid).is_some_and(|now| now != label)) {
            "a label of an enum was renamed"
        } else if moved && is_partitioned(before) {
            "a partition was truncated or rewritten"
        } else if !self.named && any_part(&|before, now| (before.toast, now.toast) == (0, 0) && before.file != now.file)
        {
            "its rows are in another file, and it may have been unlogged meanwhile"
        } else if self.valued.iter().any(|number| !is_old(&number)) {
            "a column was added that has a value in every row"
        } else if now.names.keys().filter(is_old).count() < usize::from(before.columns) {
            "a column was dropped"
        } else if before.names.iter().any(|(number, name)| now.names.get(number).is_some_and(|now| now != name)) {
            "a column was renamed"
        } else if before.virtuals != now.virtuals {
            "the expression of a virtual column was changed"
        } else {
            return None;
        })
    }
}

/// Reads the state of tables, which are in the same order.
pub(in crate::postgres) async fn read(
    sql: &Sql,
    version: i32,
    publication: &str,
    tables: &[TableInfo],
) -> Result<Vec<Reading>, ConnectorError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut readings: HashMap<u32, Reading> = HashMap::with_capacity(oids.len());
    for table in tables {
        let (oid, types) = (table.oid, table.made_types.clone());
        let state = TableState { oid, types, ..TableState::default() };
        readings.insert(oid, Reading { state, ..Reading::default() });
    }
    read_columns(sql, version, &oids, &mut readings).await?;
    read_parts(sql, &oids, &mut readings).await?;
    read_labels(sql, &oids, &mut readings).await?;
    read_published(sql, version, publication, &oids, &mut readings).await?;
    Ok(oids.iter().map(|oid| readings.get(oid).cloned().unwrap_or_default()).collect())
}

async fn read_columns(
    sql: &Sql,
    version: i32,
    oids: &[u32],
    readings: &mut HashMap<u32, Reading>,
) -> Result<(), ConnectorError> {
    let is_virtual = if version >= 180_000 { "a.attgenerated = 'v'" } else { "false" };
    let statement = format!(
        "select a.attrelid, max(a.attnum), array_agg(a.attnum order by a.attnum) filter (where not a.attisdropped), \
         array_agg(a.attname::text order by a.attnum) filter (where not a.attisdropped), \
         coalesce(array_agg(a.attnum) filter (where not a.attisdropped and (a.atthasmissing or {is_virtual})), '{{}}'), \
         hashtextextended(string_agg(a.attnum || ':' || a.xmin, ',' order by a.attnum), 0)::text, \
         hashtextextended(coalesce(string_agg(a.attnum || ':' || d.adbin::text, ',' order by a.attnum) filter (where {is_virtual}), ''), 0)::text \
         from pg_catalog.pg_attribute a left join pg_catalog.pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
         where a.attrelid = any($1) and a.attnum > 0 group by a.attrelid"
    );
    for row in sql.query("reading pg_attribute", &statement, &[&oids]).await? {
        let Some(reading) = readings.get_mut(&row.get(0)) else { continue };
        let (numbers, names): (Option<Vec<i16>>, Option<Vec<String>>) = (row.get(2), row.get(3));
        reading.state.names = numbers.into_iter().flatten().zip(names.into_iter().flatten()).collect();
        reading.valued = row.get::<_, Vec<i16>>(4).into_iter().collect();
        reading.state.newest = row.get(1);
        reading.state.columns = u16::try_from(reading.state.names.len()).unwrap_or(u16::MAX);
        reading.state.altered = row.get(5);
        reading.state.virtuals = row.get(6);
    }
    Ok(())
}

async fn read_parts(sql: &Sql, oids: &[u32], readings: &mut HashMap<u32, Reading>) -> Result<(), ConnectorError> {
    // What is made as a partition has its entry in pg_inherits from the transaction that made it (a system column is never
    // altered, so it tells which that was), and its bound before that; what is attached has its bound after it.
    const SQL: &str = "with parts as (select c.oid as root, c.oid as part from pg_catalog.pg_class c \
            where c.oid = any($1) and c.relkind = 'r' \
            union all select c.oid, p.relid from pg_catalog.pg_class c cross join lateral pg_partition_tree(c.oid) p \
            where c.oid = any($1) and c.relkind = 'p' and p.isleaf) \
        select root, part, coalesce(pg_relation_filenode(part), 0::oid), \
            (select reltoastrelid from pg_catalog.pg_class where oid = part), \
            case when root <> part then (select string_agg(i.xmin::text, ',' order by i.inhrelid) \
                from pg_partition_ancestors(part) x(relid) join pg_catalog.pg_inherits i on i.inhrelid = x.relid \
                where x.relid <> root) end, \
            coalesce(pg_relation_size(part), 0) > 0, root <> part and exists ( \
                select from pg_partition_ancestors(part) x(relid) join pg_catalog.pg_inherits i on i.inhrelid = x.relid \
                join pg_catalog.pg_attribute a on a.attrelid = x.relid and a.attnum = -1 \
                join pg_catalog.pg_class c on c.oid = x.relid where x.relid <> root and ( \
                    i.xmin <> a.xmin or c.xmin = i.xmin and c.cmin::text::int8 >= i.cmin::text::int8)) \
        from parts where part is not null";
    for row in sql.query("reading the parts of the tables", SQL, &[&oids]).await? {
        let Some(reading) = readings.get_mut(&row.get(0)) else { continue };
        let part = Part {
            file: row.get(2),
            toast: row.get(3),
            entry: row.get::<_, Option<String>>(4).unwrap_or_default(),
            rows: row.get(5),
        };
        if part.rows && row.get(6) {
            reading.attached.insert(row.get(1));
        }
        reading.state.parts.insert(row.get(1), part);
    }
    Ok(())
}

async fn read_labels(sql: &Sql, oids: &[u32], readings: &mut HashMap<u32, Reading>) -> Result<(), ConnectorError> {
    const SQL: &str = "select distinct a.attrelid, e.oid, e.enumlabel::text from pg_catalog.pg_attribute a \
        join pg_catalog.pg_type t on t.oid = a.atttypid join pg_catalog.pg_enum e on e.enumtypid in (t.oid, t.typelem) \
        where a.attrelid = any($1) and a.attnum > 0 and not a.attisdropped";
    for row in sql.query("reading pg_enum", SQL, &[&oids]).await? {
        if let Some(reading) = readings.get_mut(&row.get(0)) {
            reading.state.labels.insert(row.get(1), row.get(2));
        }
    }
    Ok(())
}

async fn read_published(
    sql: &Sql,
    version: i32,
    publication: &str,
    oids: &[u32],
    readings: &mut HashMap<u32, Reading>,
) -> Result<(), ConnectorError> {
    let filter = if version >= 150_000 { "coalesce(r.prqual::text, '')" } else { "''" };
    let schema = if version >= 150_000 {
        "(select s.oid from pg_catalog.pg_publication_namespace s join pg_catalog.pg_class c on c.relnamespace = s.pnnspid \
            where s.pnpubid = p.oid and c.oid = t.oid)"
    } else {
        "null"
    };
    // All that concerns the publication is also in the entry of each table.
    let statement = format!(
        "select t.oid, hashtextextended(concat_ws(':', p.oid, p.xmin, r.oid, {schema}, {filter}), 0)::text, r.oid is not null from unnest($1::oid[]) as t(oid) \
         cross join pg_catalog.pg_publication p \
         left join pg_catalog.pg_publication_rel r on r.prpubid = p.oid and r.prrelid = t.oid \
         where p.pubname = $2::text::name"
    );
    for row in sql.query("reading pg_publication", &statement, &[&oids, &publication]).await? {
        if let Some(reading) = readings.get_mut(&row.get(0)) {
            reading.state.published = row.get(1);
            reading.named = row.get(2);
        }
    }
    Ok(())
}

/// What the tables' state depends on, as one text that stays the same while nothing of it changes: cheap to ask, also of
/// thousands of tables. Every value that is summed up only rises when a row of the catalog is changed.
pub(in crate::postgres) async fn digest(
    sql: &Sql,
    version: i32,
    publication: &str,
    names: &[(String, String)],
) -> Result<String, ConnectorError> {
    let schemas_published = if version >= 150_000 {
        "(select concat_ws(':', count(*), sum(s.oid::int8)) from pg_catalog.pg_publication_namespace s, p where s.pnpubid = p.oid)"
    } else {
        "''"
    };
    let statement = format!(
        "with p as (select oid, xmin from pg_catalog.pg_publication where pubname = $3::text::name), \
         roots as (select c.oid, c.relkind from unnest($1::text[], $2::text[]) as w(s, t) \
            join pg_catalog.pg_namespace n on n.nspname = w.s \
            join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.t and c.relkind in ('r', 'p')), \
         tree as (select oid from roots union select t.relid from roots cross join lateral pg_partition_tree(roots.oid) t \
            where roots.relkind = 'p' and t.relid is not null) \
         select concat_ws('/', \
            (select hashtextextended(string_agg(c.oid || ':' || c.xmin, ',' order by c.oid), 0) from pg_catalog.pg_class c join tree using (oid)), \
            (select concat_ws(':', count(*), sum(a.xmin::text::int8)) from pg_catalog.pg_attribute a join tree on a.attrelid = tree.oid), \
            (select concat_ws(':', count(*), sum(i.indexrelid::int8), sum(i.xmin::text::int8)) \
                from pg_catalog.pg_index i join tree on i.indrelid = tree.oid), \
            (select concat_ws(':', count(*), sum(d.oid::int8), sum(d.xmin::text::int8)) \
                from pg_catalog.pg_attrdef d join tree on d.adrelid = tree.oid), \
            (select concat_ws(':', count(*), sum(i.inhrelid::int8), sum(i.xmin::text::int8)) \
                from pg_catalog.pg_inherits i join tree on i.inhparent = tree.oid), \
            (select concat_ws(':', count(*), sum(e.xmin::text::int8)) from pg_catalog.pg_enum e), \
            (select concat_ws(':', oid, xmin) from p), \
            (select concat_ws(':', count(*), sum(r.oid::int8), sum(r.xmin::text::int8)) \
                from pg_catalog.pg_publication_rel r, p where r.prpubid = p.oid), \
            {schemas_published})"
    );
    let (schemas, relations): (Vec<&str>, Vec<&str>) = names.iter().map(|(s, t)| (s.as_str(), t.as_str())).unzip();
    let rows = sql.query("reading the catalog", &statement, &[&schemas, &relations, &publication]).await?;
    Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part without a TOAST table.
    fn part(file: u32) -> Part {
        Part { file, toast: 0, entry: "5".into(), rows: true }
    }

    fn reading() -> Reading {
        let state = TableState {
            oid: 1,
            newest: 3,
            columns: 2,
            altered: "a".into(),
            names: BTreeMap::from([(1, "a".into()), (3, "c".into())]),
            virtuals: String::new(),
            parts: BTreeMap::from([(1, part(10))]),
            labels: BTreeMap::from([(7, "sad".into())]),
            types: BTreeMap::new(),
            published: "p".into(),
            unfit: false,
        };
        Reading { state, valued: BTreeSet::from([3]), attached: BTreeSet::new(), named: true }
    }

    fn partitioned(parts: &[(u32, u32)]) -> Reading {
        let mut reading = reading();
        reading.state.parts = parts.iter().map(|(oid, file)| (*oid, part(*file))).collect();
        reading
    }

    #[test]
    fn what_moves_rows_without_events_is_doubted_and_nothing_else() {
        let before = reading();
        let doubt = |change: &dyn Fn(&mut Reading)| {
            let mut now = reading();
            change(&mut now);
            now.doubt(&before.state)
        };
        assert_eq!(doubt(&|_| {}), None);
        // VACUUM FULL; a changed default; a new column without a value.
        assert_eq!(
            doubt(&|now| {
                now.state.parts.insert(1, part(11));
            }),
            None
        );
        let unnamed = doubt(&|now| {
            now.state.parts.insert(1, part(11));
            now.named = false;
        });
        assert!(unnamed.is_some_and(|why| why.contains("unlogged")));
        assert_eq!(doubt(&|now| now.named = false), None);
        assert_eq!(doubt(&|now| now.state.altered = "b".into()), None);
        let added = |now: &mut Reading| {
            now.state.names.insert(4, "d".into());
            (now.state.newest, now.state.columns, now.state.altered) = (4, 3, "b".into());
        };
        assert_eq!(doubt(&added), None);
        let valued = doubt(&|now| {
            added(now);
            now.valued.insert(4);
        });
        assert_eq!(valued, Some("a column was added that has a value in every row"));
        let rewritten = doubt(&|now| {
            now.state.altered = "b".into();
            now.state.parts.insert(1, part(11));
        });
        assert_eq!(rewritten, Some("an ALTER TABLE rewrote its rows"));
        // One column went, another came.
        let swapped = doubt(&|now| {
            added(now);
            now.state.names.remove(&1);
            now.state.columns = 2;
        });
        assert_eq!(swapped, Some("a column was dropped"));
        let renamed = |names: [(i16, String); 2]| doubt(&|now| now.state.names = BTreeMap::from(names.clone()));
        assert_eq!(renamed([(1, "c".into()), (3, "a".into())]), Some("a column was renamed"));
        assert_eq!(renamed([(1, "b".into()), (3, "c".into())]), Some("a column was renamed"));
        // What was kept by a version that knew no names.
        let mut nameless = before.state.clone();
        nameless.names.clear();
        assert_eq!(reading().doubt(&nameless), None);
        assert!(doubt(&|now| now.state.labels = BTreeMap::from([(7, "glum".into()), (8, "ok".into())])).is_some());
        assert_eq!(doubt(&|now| drop(now.state.labels.insert(8, "ok".into()))), None);
        assert!(doubt(&|now| now.state.oid = 2).is_some_and(|why| why.contains("another table")));
        assert!(doubt(&|now| now.state.published = "q".into()).is_some_and(|why| why.contains("publication")));
        assert!(doubt(&|now| now.state.virtuals = "v".into()).is_some_and(|why| why.contains("virtual")));
    }

    #[test]
    fn partitions_may_come_empty_and_never_go_unnoticed() {
        let before = partitioned(&[(2, 20), (3, 30)]).state;
        assert_eq!(partitioned(&[(2, 20), (3, 30), (4, 40)]).doubt(&before), None);
        let mut attached = partitioned(&[(2, 20), (3, 30), (4, 40)]);
        attached.attached.extend([3, 4]);
        assert_eq!(attached.doubt(&before), Some("a partition was attached that has rows"));
        attached.state.parts.remove(&4);
        attached.attached.remove(&4);
        assert_eq!(attached.doubt(&before), None);
        assert!(partitioned(&[(2, 20)]).doubt(&before).is_some_and(|why| why.contains("detached")));
        let mut again = partitioned(&[(2, 20), (3, 30)]);
        again.state.parts.insert(3, Part { entry: "6".into(), ..part(30) });
        assert_eq!(again.doubt(&before), Some("a partition was detached and attached again"));
        let mut empty = before.clone();
        empty.parts.insert(3, Part { rows: false, ..part(30) });
        assert_eq!(partitioned(&[(2, 20)]).doubt(&empty), None);
        assert!(partitioned(&[(2, 20), (3, 31)]).doubt(&before).is_some_and(|why| why.contains("truncated")));
    }

    #[test]
    fn a_table_with_long_values_tells_a_rewrite_from_a_move() {
        let with = |file, toast| {
            let mut reading = reading();
            reading.state.parts.insert(1, Part { toast, ..part(file) });
            reading.state.altered = format!("{file}");
            reading
        };
        assert_eq!(with(11, 5).doubt(&with(10, 5).state), None);
        assert_eq!(with(11, 6).doubt(&with(10, 5).state), Some("an ALTER TABLE rewrote its rows"));
        assert_eq!(with(10, 6).doubt(&with(10, 0).state), None);
    }

    #[test]
    fn what_did_not_suffice_is_doubted_when_it_does_again() {
        let mut before = reading().state;
        before.unfit = true;
        assert_eq!(reading().doubt(&before), Some("the log lacked something of it for a while"));
    }
}
