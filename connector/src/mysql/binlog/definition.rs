//! What definitions do to the rows of tables without an event for each: partitions that go with their rows, tables that take another's name,
//! columns that are given or converted. There is no grammar here either: what is not known to leave rows as they are is taken to change them.

use super::statement::{Statement, Word};

/// What a definition may do to a table's rows without events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unlogged {
    /// They may be others.
    Rows,
    /// The name may be another table's, or nobody's.
    Name,
}

/// Clauses of `ALTER TABLE` that leave rows as they are, by their first word, which is that of no column.
const HARMLESS: [&str; 48] = [
    "algorithm",
    "alter",
    "analyze",
    "auto_increment",
    "autoextend_size",
    "avg_row_length",
    "character",
    "charset",
    "check",
    "checksum",
    "coalesce",
    "collate",
    "comment",
    "compression",
    "default",
    "delay_key_write",
    "disable",
    "enable",
    "encrypted",
    "encryption",
    "encryption_key_id",
    "engine",
    "force",
    "insert_method",
    "key_block_size",
    "lock",
    "max_rows",
    "min_rows",
    "optimize",
    "order",
    "pack_keys",
    "page_checksum",
    "page_compressed",
    "page_compression_level",
    "partition",
    "rebuild",
    "remove",
    "reorganize",
    "repair",
    "row_format",
    "secondary_engine",
    "secondary_load",
    "secondary_unload",
    "stats_auto_recalc",
    "stats_persistent",
    "stats_sample_pages",
    "tablespace",
    "transactional",
];
/// What `ADD` and `DROP` name beside columns; these words are reserved, so that no column is called so without quotes.
const ADDED: [&str; 9] =
    ["index", "key", "unique", "fulltext", "spatial", "constraint", "foreign", "check", "partition"];
const DROPPED: [&str; 6] = ["index", "key", "foreign", "check", "constraint", "primary"];

impl Statement {
    /// What the definition, which concerns the table, may do to its rows without events; none: it leaves them as they are, or makes a table that
    /// has none before its events.
    pub(in super::super) fn unlogged(&self, schema: &str, table: &str) -> Option<Unlogged> {
        let words: Vec<Word> = self.words().collect();
        let head = Head::of(&words);
        match () {
            () if head.begins("rename") => Some(Unlogged::Name),
            () if head.is_about("index") => None,
            () if head.begins("drop") => (!head.says("temporary")).then_some(Unlogged::Rows),
            () if head.begins("create") => (head.says("replace") && !head.says("temporary")).then_some(Unlogged::Rows),
            () if head.is_about("database") || head.is_about("schema") => None,
            () if head.is_about("table") && !head.says("ignore") => {
                let (is_it, clauses) = self.alters(&head, schema, table);
                clauses.into_iter().filter_map(|clause| altered(clause, is_it)).max_by_key(|found| *found as u8)
            }
            () => Some(Unlogged::Rows),
        }
    }

    /// Whether the definition, which concerns the table, leaves it the columns and the key that it had.
    pub(in super::super) fn keeps_columns(&self, schema: &str, table: &str) -> bool {
        let words: Vec<Word> = self.words().collect();
        let head = Head::of(&words);
        match () {
            () if head.begins("rename") => false,
            () if head.says("temporary") => true,
            // `DROP INDEX PRIMARY` is about the key.
            () if head.is_about("index") => !names_primary(&words),
            () if !head.begins("alter") => false,
            () if head.is_about("table") => {
                let (is_it, clauses) = self.alters(&head, schema, table);
                clauses.into_iter().all(|clause| is_about_rows(clause, is_it))
            }
            () => head.is_about("database") || head.is_about("schema"),
        }
    }

    /// Whether it is the table that is altered, and the clauses that say how.
    fn alters<'a>(&self, head: &Head<'a>, schema: &str, table: &str) -> (bool, Vec<&'a [Word]>) {
        let mut name = head.thing + 1;
        if head.word(name).is("if") {
            name += 2;
        }
        if *head.word(name) == Word::Mark('.') {
            name += 1;
        }
        let (within, name, behind) = match *head.word(name + 1) == Word::Mark('.') {
            true => (head.word(name).name(), head.word(name + 2), name + 3),
            false => (None, head.word(name), name + 1),
        };
        let is_it = |a: Option<&str>, b: &str| a.is_some_and(|a| a.to_lowercase() == b.to_lowercase());
        let is_it = is_it(within.or(Some(&self.schema)), schema) && is_it(name.name(), table);
        (is_it, clauses(head.words.get(behind..).unwrap_or_default()))
    }
}

/// The words before what a definition is about say how it is to be done.
struct Head<'a> {
    words: &'a [Word],
    /// Where that stands.
    thing: usize,
}

impl<'a> Head<'a> {
    fn of(words: &'a [Word]) -> Self {
        const THINGS: [&str; 5] = ["table", "tables", "database", "schema", "index"];
        let is_thing = |at: &usize| THINGS.iter().any(|name| words[*at].is(name));
        Self { words, thing: (1..words.len().min(24)).find(is_thing).unwrap_or(0) }
    }

    fn word(&self, at: usize) -> &'a Word {
        self.words.get(at).unwrap_or(&Word::Mark(';'))
    }

    fn begins(&self, keyword: &str) -> bool {
        self.word(0).is(keyword)
    }

    fn is_about(&self, thing: &str) -> bool {
        self.word(self.thing).is(thing)
    }

    fn says(&self, keyword: &str) -> bool {
        self.words[..self.thing].iter().any(|word| word.is(keyword))
    }
}

/// What stands between commas, outside of parentheses. What is done to partitions stands alone, and they are listed with commas.
fn clauses(words: &[Word]) -> Vec<&[Word]> {
    if plain(words).get(1).is_some_and(|word| word.is("partition")) {
        return vec![words];
    }
    let mut depth = 0_usize;
    words
        .split(|word| {
            match word {
                Word::Mark('(') => depth += 1,
                Word::Mark(')') => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && *word == Word::Mark(',')
        })
        .collect()
}

/// A clause without how long to wait, which stands before the first one of MariaDB.
fn plain(clause: &[Word]) -> &[Word] {
    match clause {
        [word, _, rest @ ..] if word.is("wait") => rest,
        [word, rest @ ..] if word.is("nowait") => rest,
        _ => clause,
    }
}

/// What a clause of `ALTER TABLE` may do to rows of a table: of the altered one, or of one that is named elsewhere in the statement.
fn altered(clause: &[Word], is_it: bool) -> Option<Unlogged> {
    let clause = plain(clause);
    let second = |names: &[&str]| clause.get(1).is_some_and(|word| names.iter().any(|name| word.is(name)));
    let first = clause.first()?;
    let effect = match () {
        () if first.is("rename") && second(&["index", "key"]) => None,
        // The name may have been another column's.
        () if first.is("rename") && second(&["column"]) => is_it.then_some(Unlogged::Rows),
        () if first.is("rename") => Some(Unlogged::Name),
        () if first.is("exchange") || first.is("convert") => Some(Unlogged::Rows),
        // All others are about the altered table alone.
        () if !is_it => None,
        () if first.is("add") && second(&ADDED) && !names_primary(clause) => None,
        () if first.is("add") => gives_values(clause).then_some(Unlogged::Rows),
        () if first.is("drop") && second(&DROPPED) => None,
        () if HARMLESS.iter().any(|name| first.is(name)) => None,
        () => Some(Unlogged::Rows),
    };
    effect.or_else(|| (is_it && leaves_innodb(clause)).then_some(Unlogged::Rows))
}

/// Whether a clause of `ALTER TABLE` is about rows, indexes or storage, and neither about columns nor the key.
fn is_about_rows(clause: &[Word], is_it: bool) -> bool {
    const ROWS: [&str; 5] = ["truncate", "exchange", "discard", "import", "union"];
    let clause = plain(clause);
    let Some(first) = clause.first() else { return true };
    let second = |names: &[&str]| clause.get(1).is_some_and(|word| names.iter().any(|name| word.is(name)));
    let is = |names: &[&str]| names.iter().any(|name| first.is(name));
    match () {
        () if first.is("rename") => second(&["index", "key"]),
        // All others are about the altered table alone.
        () if !is_it => !first.is("convert"),
        () if first.is("add") => second(&ADDED) && !names_primary(clause),
        () if first.is("drop") => (second(&DROPPED) || second(&["partition"])) && !names_primary(clause),
        () => is(&HARMLESS) || is(&ROWS),
    }
}

/// Whether the key is named: as a word, or as its index is called.
fn names_primary(clause: &[Word]) -> bool {
    clause.iter().any(|word| word.name().is_some_and(|name| name.eq_ignore_ascii_case("primary")))
}

/// Whether columns that are added have values in rows that are there.
fn gives_values(clause: &[Word]) -> bool {
    const GIVING: [&str; 5] = ["as", "generated", "auto_increment", "serial", "primary"];
    clause.iter().enumerate().any(|(at, word)| {
        let is_null = clause.get(at + 1).is_some_and(|next| next.is("null"));
        GIVING.iter().any(|giving| word.is(giving))
            // Without `NULL` it may have the time as its default.
            || word.is("timestamp") && !clause[at + 1..].iter().take(4).any(|next| next.is("null"))
            || word.is("default") && !is_null && !is_charset(clause, at + 1)
            || word.is("not") && is_null
    })
}

/// Whether a default is that of character sets.
fn is_charset(clause: &[Word], at: usize) -> bool {
    clause.get(at).is_some_and(|word| ["character", "charset", "collate"].iter().any(|name| word.is(name)))
}

/// Whether the table goes to an engine that may not keep its rows (`BLACKHOLE`).
fn leaves_innodb(clause: &[Word]) -> bool {
    // In these it is a column's name.
    if clause.first().is_some_and(|first| ["add", "drop", "rename", "alter"].iter().any(|name| first.is(name))) {
        return false;
    }
    let engine = clause.iter().position(|word| word.is("engine"));
    let named = engine.and_then(|at| clause[at + 1..].iter().find(|word| **word != Word::Mark('=')));
    named.is_some_and(|engine| !engine.name().is_some_and(|name| name.eq_ignore_ascii_case("innodb")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlogged(text: &str) -> Option<Unlogged> {
        let statement = Statement { thread: 1, schema: "films".into(), text: text.into(), ..Statement::default() };
        assert!(statement.may_concern("films", "movie"), "{text}");
        statement.unlogged("films", "movie")
    }

    #[test]
    fn what_changes_rows_without_events_is_told() {
        for text in [
            "ALTER TABLE movie TRUNCATE PARTITION p0",
            "alter table `films`.`movie` drop partition p0, p1",
            "ALTER TABLE movie EXCHANGE PARTITION p0 WITH TABLE other WITHOUT VALIDATION",
            "ALTER TABLE other EXCHANGE PARTITION p0 WITH TABLE films.movie",
            "ALTER TABLE other CONVERT TABLE movie TO PARTITION p0 VALUES LESS THAN (5)",
            "ALTER TABLE movie IMPORT TABLESPACE",
            "ALTER TABLE movie ADD COLUMN year INT NOT NULL",
            "ALTER TABLE movie ADD KEY (id), ADD (a int, b int default 5)",
            "ALTER TABLE movie WAIT 5 ADD a int AS (id + 1) VIRTUAL",
            "ALTER TABLE movie ADD a int default (uuid())",
            "ALTER TABLE movie MODIFY title VARCHAR(10)",
            "ALTER TABLE movie CHANGE a b int",
            "ALTER TABLE movie CONVERT TO CHARACTER SET latin1",
            "ALTER TABLE movie DROP COLUMN a",
            "ALTER TABLE movie DROP a, LOCK=NONE",
            "ALTER TABLE movie DROP `key`",
            "ALTER TABLE movie ENGINE = BLACKHOLE",
            "ALTER TABLE movie ROW_FORMAT=DYNAMIC ENGINE=MyISAM",
            "ALTER TABLE movie UNION = (a, b)",
            "ALTER IGNORE TABLE movie ADD UNIQUE (title)",
            "ALTER TABLE movie ADD PRIMARY KEY (title)",
            "ALTER TABLE movie RENAME COLUMN title TO old, RENAME COLUMN new TO title",
            "ALTER TABLE movie ADD a TIMESTAMP",
            "ALTER TABLE .movie DROP PARTITION p0",
            "SET STATEMENT lock_wait_timeout=1 FOR ALTER TABLE movie DROP PARTITION p0",
            "DROP TABLE movie",
            "DROP TABLE IF EXISTS `movie` /* generated by server */",
            "DROP DATABASE films",
            "CREATE OR REPLACE TABLE movie (id int)",
        ] {
            assert_eq!(unlogged(text), Some(Unlogged::Rows), "{text}");
        }
        for text in [
            "RENAME TABLE movie TO old, new TO movie",
            "RENAME TABLE other TO movie",
            "ALTER TABLE movie RENAME TO old",
            "ALTER TABLE movie DROP COLUMN a, RENAME old",
            "ALTER TABLE other ADD COLUMN a int, RENAME AS films.movie",
        ] {
            assert_eq!(unlogged(text), Some(Unlogged::Name), "{text}");
        }
    }

    #[test]
    fn what_changes_columns_or_the_key_is_told_from_what_does_not() {
        let keeps = |text: &str| {
            let statement = Statement { thread: 1, schema: "films".into(), text: text.into(), ..Statement::default() };
            assert!(statement.may_concern("films", "movie"), "{text}");
            statement.keeps_columns("films", "movie")
        };
        for text in [
            "CREATE UNIQUE INDEX i ON movie (title)",
            "ALTER TABLE movie WAIT 5 ADD INDEX (title), ALGORITHM=INPLACE",
            "ALTER TABLE movie ALTER a SET DEFAULT 5, COMMENT 'add x int'",
            "ALTER TABLE movie TRUNCATE PARTITION p0",
            "ALTER TABLE movie DROP PARTITION p0, p1",
            "ALTER TABLE other ADD COLUMN movie int",
            "ALTER TABLE movie ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b (a), DROP INDEX d",
            "ALTER TABLE movie RENAME INDEX a TO b",
            "DROP TEMPORARY TABLE movie",
            "ALTER TABLE movie",
        ] {
            assert!(keeps(text), "{text}");
        }
        for text in [
            "ALTER TABLE movie ADD a int",
            "ALTER TABLE movie ADD INDEX (title), ADD (a int)",
            "ALTER TABLE movie DROP a",
            "ALTER TABLE movie DROP PRIMARY KEY",
            "DROP INDEX `PRIMARY` ON movie",
            "ALTER TABLE movie DROP INDEX `PRIMARY`",
            "ALTER TABLE movie DROP CONSTRAINT `primary`",
            "ALTER TABLE movie ADD CONSTRAINT PRIMARY KEY (id)",
            "ALTER TABLE movie RENAME COLUMN a TO b",
            "ALTER TABLE movie MODIFY a int unsigned",
            "ALTER TABLE movie CONVERT TO CHARACTER SET latin1",
            "ALTER TABLE other RENAME TO movie",
            "RENAME TABLE movie TO x",
            "DROP TABLE movie",
            "CREATE TABLE movie (id int)",
            "CREATE OR REPLACE TABLE movie (id int)",
        ] {
            assert!(!keeps(text), "{text}");
        }
    }

    #[test]
    fn what_leaves_rows_as_they_are_is_not() {
        for text in [
            "ALTER TABLE movie ADD COLUMN year INT",
            "ALTER TABLE movie ADD COLUMN IF NOT EXISTS year INT NULL DEFAULT NULL COMMENT 'not null default 5' AFTER title",
            "ALTER TABLE movie ADD INDEX (title), ALGORITHM=INPLACE, LOCK=NONE",
            "ALTER TABLE movie ADD UNIQUE KEY k (title, a), DROP INDEX old, ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b (a)",
            "ALTER TABLE movie DROP PRIMARY KEY",
            "ALTER TABLE movie RENAME INDEX x TO y",
            "ALTER TABLE other RENAME COLUMN movie TO b",
            "ALTER TABLE movie ADD a TIMESTAMP(3) NULL, ADD INDEX (engine), ADD engine int",
            "ALTER TABLE movie OPTIMIZE PARTITION p0, p1",
            "ALTER TABLE movie REORGANIZE PARTITION p0, p1 INTO (PARTITION p VALUES LESS THAN (9))",
            "ALTER TABLE movie ALTER a SET DEFAULT 5, COMMENT = 'x, drop column y'",
            "ALTER TABLE movie ENGINE=InnoDB",
            "ALTER TABLE movie FORCE",
            "ALTER TABLE movie AUTO_INCREMENT = 100",
            "ALTER TABLE movie DEFAULT CHARACTER SET utf8mb4",
            "ALTER TABLE movie ADD PARTITION (PARTITION p9 VALUES LESS THAN (100) ENGINE = InnoDB)",
            "ALTER TABLE movie REORGANIZE PARTITION p0 INTO (PARTITION a VALUES LESS THAN (5), PARTITION b VALUES LESS THAN (9))",
            "ALTER TABLE movie PARTITION BY HASH (id) PARTITIONS 4",
            "ALTER TABLE other ADD CONSTRAINT FOREIGN KEY (a) REFERENCES movie (id)",
            "ALTER TABLE other ADD COLUMN movie int NOT NULL DEFAULT 5",
            "ALTER DATABASE films CHARACTER SET utf8mb4",
            "CREATE TABLE movie (id int primary key)",
            "CREATE TABLE IF NOT EXISTS movie (id int primary key)",
            "CREATE DATABASE films",
            "CREATE UNIQUE INDEX i ON movie (title)",
            "DROP INDEX i ON movie",
            "DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `movie`",
            "CREATE OR REPLACE TEMPORARY TABLE movie (id int)",
        ] {
            assert_eq!(unlogged(text), None, "{text}");
        }
    }
}
