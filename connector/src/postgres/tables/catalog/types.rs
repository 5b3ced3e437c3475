//! What is known of types, and the codecs that follow.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_type`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::error::ConnectorError;
use crate::postgres::values::binary::Form;
use crate::postgres::values::value::Codec;
use crate::postgres::wire::sql::Sql;
use crate::settings::ValueOptions;

/// What is known of types, and the codecs that follow.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Types {
    known: HashMap<u32, TypeFacts>,
    /// What was known of types that may be gone by now. A type that is made later has another OID.
    earlier: HashMap<u32, TypeFacts>,
    options: ValueOptions,
}

/// What `pg_type` says of a type, as far as codecs follow from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::postgres) struct TypeRow {
    oid: u32,
    /// The base type and its modifier, for a domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base: Option<(u32, i32)>,
    /// The element's type, for an array.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    element: Option<u32>,
    delimiter: u8,
    /// Of a type that may be an extension's.
    name: String,
    /// The name of its send function; empty if it has none.
    send: String,
}

/// OIDs from here on are given to what users and extensions make (`FirstNormalObjectId`).
const FIRST_OF_USERS: u32 = 16_384;

#[derive(Debug, Clone)]
struct TypeFacts {
    row: TypeRow,
    /// The codec that follows from the name, for a type of an extension.
    extension: Option<Codec>,
    /// The form of binary values that follows from the send function.
    form: Option<Form>,
}

impl TypeRow {
    /// The types that it is made of.
    fn parts(&self) -> impl Iterator<Item = u32> {
        self.base.map(|(base, _)| base).into_iter().chain(self.element)
    }
}

impl TypeFacts {
    fn of(row: TypeRow, options: ValueOptions) -> Self {
        let form = match row.send.as_str() {
            "" => Some(Form::Output),
            // The text of an extension's type may be another than that of the type whose function it borrows.
            send => Form::of_send_function(send).filter(|form| row.oid < FIRST_OF_USERS || *form == Form::Text),
        };
        Self { form, extension: Codec::of_extension(&row.name, options), row }
    }
}

impl Types {
    /// Nothing is known yet.
    pub(in crate::postgres) fn new(options: ValueOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Remembers types as they were, for when they are gone.
    pub(in crate::postgres) fn remember(&mut self, rows: impl IntoIterator<Item = TypeRow>) {
        let options = self.options;
        self.earlier.extend(rows.into_iter().map(|row| (row.oid, TypeFacts::of(row, options))));
    }

    /// Of these types and those that they are made of, the ones that users and extensions have made.
    pub(in crate::postgres) fn made_by_users(&self, oids: impl Iterator<Item = u32>) -> BTreeMap<u32, TypeRow> {
        let (mut rows, mut wanted) = (BTreeMap::new(), oids.collect::<Vec<u32>>());
        while let Some(oid) = wanted.pop() {
            let Some(facts) = self.facts(oid).filter(|_| !rows.contains_key(&oid)) else { continue };
            wanted.extend(facts.row.parts());
            if oid >= FIRST_OF_USERS {
                rows.insert(oid, facts.row.clone());
            }
        }
        rows
    }

    /// All that is known.
    pub(in crate::postgres) fn rows(&self) -> Vec<TypeRow> {
        self.known.values().map(|facts| facts.row.clone()).collect()
    }

    fn facts(&self, oid: u32) -> Option<&TypeFacts> {
        self.known.get(&oid).or_else(|| self.earlier.get(&oid))
    }

    /// Learns these types and those that they are made of; gives those that `pg_type` lacks and that were never known.
    pub(in crate::postgres) async fn load(
        &mut self,
        sql: &Sql,
        oids: impl Iterator<Item = u32>,
    ) -> Result<Vec<u32>, ConnectorError> {
        // Internal functions (12) are known by their name in C, whatever an extension calls them.
        const SQL: &str = "select t.oid, typtype = 'd', typbasetype, typtypmod, \
            case when typcategory = 'A' and typlen = -1 and t.oid not in (22, 30) then typelem else 0 end, \
            ascii(typdelim::text), \
            case when t.oid >= 16384 and typtype = 'b' then typname::text else '' end, \
            case when p.oid is null then '' when p.prolang = 12 then p.prosrc else '?' end \
            from pg_catalog.pg_type t left join pg_catalog.pg_proc p on p.oid = t.typsend where t.oid = any($1)";
        let mut wanted: Vec<u32> = oids.filter(|oid| !self.known.contains_key(oid)).collect();
        let mut lacking = Vec::new();
        while !wanted.is_empty() {
            wanted.sort_unstable();
            wanted.dedup();
            let mut next = Vec::new();
            for row in sql.query("reading pg_type", SQL, &[&wanted]).await? {
                let (oid, domain, base, modifier): (u32, bool, u32, i32) =
                    (row.get(0), row.get(1), row.get(2), row.get(3));
                let (element, delimiter): (u32, i32) = (row.get(4), row.get(5));
                let row = TypeRow {
                    oid,
                    base: domain.then_some((base, modifier)),
                    element: (element != 0).then_some(element),
                    delimiter: u8::try_from(delimiter).unwrap_or(b','),
                    name: row.get(6),
                    send: row.get(7),
                };
                let facts = TypeFacts::of(row, self.options);
                next.extend(facts.row.parts());
                self.known.insert(oid, facts);
            }
            for oid in wanted.into_iter().filter(|oid| !self.known.contains_key(oid)) {
                match self.earlier.get(&oid) {
                    // What it is made of may be there.
                    Some(gone) => next.extend(gone.row.parts()),
                    None => lacking.push(oid),
                }
            }
            next.retain(|oid| !self.known.contains_key(oid));
            wanted = next;
        }
        Ok(lacking)
    }

    /// Asks for everything anew, for types may have been altered.
    pub(in crate::postgres) fn clear(&mut self) {
        self.earlier.extend(self.known.drain());
    }

    /// The codec of a type. Types that are not known travel as text.
    pub(in crate::postgres) fn codec(&self, oid: u32, modifier: i32) -> Codec {
        self.codec_within(oid, modifier, 8)
    }

    /// The form of a type's values in a stream of binary ones; `None` if we read them as text alone.
    pub(in crate::postgres) fn form(&self, oid: u32) -> Option<Form> {
        self.form_within(oid, 8)
    }

    fn form_within(&self, oid: u32, depth: u32) -> Option<Form> {
        let facts = self.facts(oid).filter(|_| depth > 0)?;
        match (facts.row.base, facts.row.element) {
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
        let Some(facts) = self.facts(oid).filter(|_| depth > 0) else {
            return Codec::builtin(oid, modifier, self.options);
        };
        if let Some((base, declared)) = facts.row.base {
            return self.codec_within(base, if declared >= 0 { declared } else { modifier }, depth - 1);
        }
        if let Some(element) = facts.row.element {
            let delimiter = self.facts(element).map_or(facts.row.delimiter, |e| e.row.delimiter);
            let element = Box::new(self.codec_within(element, modifier, depth - 1));
            return Codec::Array { element, delimiter };
        }
        if let Some(codec) = &facts.extension {
            return codec.clone();
        }
        Codec::builtin(oid, modifier, self.options)
    }
}
