//! Rows that the server changes by itself, for a foreign key says so, and does not log: MariaDB, and MySQL before 9.6.
//!
//! `information_schema` does not show the rules of foreign keys to who may only read a table (MariaDB); `SHOW CREATE TABLE` does. The server
//! writes that text itself: a constraint a line, names in backquotes.

use tributary_event::TableName;

use crate::error::ConnectorError;
use crate::mysql::wire::session::{Session, quoted as quoted_table};

/// What is done to rows, by its name in a definition.
const ACTIONS: [&str; 3] = ["CASCADE", "SET NULL", "SET DEFAULT"];

/// The tables that are changed so without a word in the log: what is lost of each, and the remedy.
pub(in crate::mysql) async fn unlogged(
    session: &mut Session,
    tables: &[TableName],
) -> Result<Vec<String>, ConnectorError> {
    let is_mariadb = session.is_mariadb;
    // The setting came with the version that logs them.
    const NATIVE: &str = "show global variables like 'innodb_native_foreign_keys'";
    let native: Option<(String, String)> = session.one("asking what is logged", NATIVE).await?;
    if native.is_some_and(|(_, native)| native.eq_ignore_ascii_case("OFF")) {
        return Ok(Vec::new());
    }
    let statements: Vec<String> =
        tables.iter().map(|table| format!("show create table {}", quoted_table(table))).collect();
    let mut notes = Vec::new();
    for (table, shown) in tables.iter().zip(session.each("reading foreign keys", &statements).await?) {
        // One that is being altered is not waited for; who may not see it was told.
        let Some(row) = shown else { continue };
        let name = quoted_table(table);
        let definition: String = row.get(1).unwrap_or_default();
        for cascade in cascades(&definition) {
            let Cascade { key, columns, parent, parent_columns, rules } = cascade;
            let newer = if is_mariadb { "" } else { "MySQL 9.6 and later log them; or " };
            notes.push(format!(
                "table {table}: its rows change {rules} in {parent}, and the server does not log that, so those changes are lost; {newer}\
                 let who changes {parent} change these rows first, and run: ALTER TABLE {name} DROP FOREIGN KEY {key}, ADD FOREIGN KEY \
                 ({columns}) REFERENCES {parent} ({parent_columns});"
            ));
        }
    }
    Ok(notes)
}

/// A foreign key that changes rows.
#[derive(Debug, PartialEq, Eq)]
struct Cascade<'a> {
    key: &'a str,
    columns: &'a str,
    parent: &'a str,
    parent_columns: &'a str,
    /// When, and what becomes of the rows.
    rules: String,
}

/// Those of a table, by its definition.
fn cascades(definition: &str) -> Vec<Cascade<'_>> {
    definition.lines().filter_map(cascade).collect()
}

/// ``CONSTRAINT `k` FOREIGN KEY (`a`, `b`) REFERENCES `p` (`x`, `y`) ON DELETE CASCADE``.
fn cascade(line: &str) -> Option<Cascade<'_>> {
    let rest = line.trim_start().strip_prefix("CONSTRAINT ")?;
    let (key, rest) = quoted(rest)?;
    let rest = rest.strip_prefix(" FOREIGN KEY ")?;
    let (columns, rest) = listed(rest)?;
    let rest = rest.strip_prefix(" REFERENCES ")?;
    let begin = rest;
    let (_, mut rest) = quoted(rest)?;
    if let Some(table) = rest.strip_prefix('.') {
        rest = quoted(table)?.1;
    }
    let parent = &begin[..begin.len() - rest.len()];
    let (parent_columns, rest) = listed(rest.strip_prefix(' ')?)?;
    let rule = |when: &str, said: &str| {
        let (_, what) = rest.split_once(when)?;
        let action = ACTIONS.iter().find(|action| what.starts_with(**action))?;
        Some(format!("by {action} when rows {said}"))
    };
    let rules: Vec<String> =
        [rule("ON DELETE ", "are deleted"), rule("ON UPDATE ", "change their key")].into_iter().flatten().collect();
    (!rules.is_empty()).then(|| Cascade { key, columns, parent, parent_columns, rules: rules.join(" and ") })
}

/// A name with its backquotes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let mut at = 1;
    text.strip_prefix('`')?;
    loop {
        at += text.get(at..)?.find('`')? + 1;
        // Two are one within a name.
        match text.get(at..)?.starts_with('`') {
            true => at += 1,
            false => return text.split_at_checked(at),
        }
    }
}

/// What stands between brackets, and what follows them.
fn listed(text: &str) -> Option<(&str, &str)> {
    let begin = text.strip_prefix('(')?;
    let mut rest = begin;
    loop {
        rest = quoted(rest)?.1;
        match rest.strip_prefix(", ") {
            Some(more) => rest = more,
            None => break,
        }
    }
    let list = &begin[..begin.len() - rest.len()];
    Some((list, rest.strip_prefix(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_change_rows_are_found_whatever_names_are_like() {
        let definition = "CREATE TABLE `c` (\n  `id` int NOT NULL,\n  CONSTRAINT `plain` FOREIGN KEY (`q`) REFERENCES `p` (`id`),\n  \
             CONSTRAINT `f``k )` FOREIGN KEY (`p`, `a,b`) REFERENCES `other`.`p` (`id`, `x`) ON DELETE CASCADE ON UPDATE SET NULL,\n  \
             CONSTRAINT `strict` FOREIGN KEY (`ON DELETE CASCADE`) REFERENCES `p` (`id`) ON DELETE RESTRICT ON UPDATE NO ACTION\n) \
             ENGINE=InnoDB COMMENT='CONSTRAINT `x` FOREIGN KEY (`p`) REFERENCES `p` (`id`) ON DELETE CASCADE'";
        let found = cascades(definition);
        let rules = "by CASCADE when rows are deleted and by SET NULL when rows change their key".to_owned();
        let expected = Cascade {
            key: "`f``k )`",
            columns: "`p`, `a,b`",
            parent: "`other`.`p`",
            parent_columns: "`id`, `x`",
            rules,
        };
        assert_eq!(found, [expected]);
    }
}
