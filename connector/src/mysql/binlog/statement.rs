//! Statements of the log: as much of them as says what they may do to tables. There is no grammar here: a statement is read word by word, and
//! what may concern a captured table is taken to concern it.

use super::super::cursor::{Cursor, Malformed, from_digits};
use super::xa;

/// What a statement that inserts writes to stands in its first words, so many at most; behind them come rows.
const WRITTEN: usize = 16_384;
/// The modes of SQL that change how a statement is read.
const ANSI_QUOTES: u64 = 4;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// A statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Statement {
    /// The session that ran it.
    pub thread: u32,
    /// The database that was chosen.
    pub schema: String,
    pub text: String,
    pub(super) mode: u64,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum StatementKind {
    /// It begins a transaction; an XA transaction is named.
    Begin(Option<Vec<u8>>),
    Commit,
    Rollback,
    /// It marks a place in the transaction.
    Savepoint(String),
    /// It undoes what came behind such a mark.
    RollbackTo(String),
    /// It commits or rolls back a prepared transaction.
    XaCommit(Vec<u8>),
    XaRollback(Vec<u8>),
    /// It empties a table: its database, if named, and its name.
    Truncate(Option<String>, String),
    /// It may change definitions.
    Definition,
    /// It changes rows by itself, instead of the log having them.
    Rows,
    /// None of these.
    Nothing,
}

/// A word of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// An identifier or keyword without quotes.
    Bare(String),
    /// An identifier in quotes.
    Quoted(String),
    /// A text; of one in hexadecimal digits, its bytes.
    Text(Vec<u8>),
    Mark(char),
}

impl Word {
    pub(super) fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Bare(name) | Self::Quoted(name) => Some(name),
            Self::Text(_) | Self::Mark(_) => None,
        }
    }
}

impl Statement {
    /// Reads the event. `compressed`: its text is.
    pub(in super::super) fn read(body: &[u8], compressed: bool) -> Result<Self, Malformed> {
        Self::read_with(body, 0, compressed)
    }

    /// Reads the event of a statement that loads a file (`LOAD DATA`): it says beside which file, and where its name stands in the text.
    pub(in super::super) fn read_load(body: &[u8]) -> Result<Self, Malformed> {
        const FILE: usize = 4 + 4 + 4 + 1;
        Self::read_with(body, FILE, false)
    }

    /// `further`: bytes behind the fixed part that concern us not.
    fn read_with(body: &[u8], further: usize, compressed: bool) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let thread = cursor.u32()?;
        cursor.u32()?;
        let schema = usize::from(cursor.u8()?);
        cursor.u16()?;
        let status = usize::from(cursor.u16()?);
        cursor.take(further)?;
        let mode = mode(Cursor(cursor.take(status)?));
        let schema = String::from_utf8_lossy(cursor.take(schema)?).into_owned();
        cursor.u8()?;
        let text = match compressed {
            true => String::from_utf8_lossy(&super::uncompressed(cursor.0)?).into_owned(),
            false => String::from_utf8_lossy(cursor.0).into_owned(),
        };
        Ok(Self { thread, schema, text, mode })
    }

    /// What it does.
    pub(in super::super) fn kind(&self) -> StatementKind {
        let words: Vec<Word> = self.words().take(8).collect();
        let word = |at: usize| words.get(at).cloned().unwrap_or(Word::Mark(';'));
        let first = match words.first() {
            Some(Word::Bare(first)) => first.to_ascii_uppercase(),
            _ => String::new(),
        };
        match first.as_str() {
            "BEGIN" => StatementKind::Begin(None),
            "START" if word(1).is("transaction") => StatementKind::Begin(None),
            "COMMIT" => StatementKind::Commit,
            "SAVEPOINT" => StatementKind::Savepoint(word(1).name().unwrap_or_default().to_owned()),
            "ROLLBACK" if words.iter().any(|word| word.is("to")) => {
                let name = words.iter().rev().find_map(Word::name);
                StatementKind::RollbackTo(name.unwrap_or_default().to_owned())
            }
            "ROLLBACK" => StatementKind::Rollback,
            "XA" => {
                let all: Vec<Word> = self.words().skip(2).collect();
                let is = |keyword: &str| word(1).is(keyword);
                match () {
                    () if is("start") || is("begin") => StatementKind::Begin(Some(xa::stated(&all))),
                    () if is("commit") => StatementKind::XaCommit(xa::stated(&all)),
                    () if is("rollback") => StatementKind::XaRollback(xa::stated(&all)),
                    () => StatementKind::Nothing,
                }
            }
            "TRUNCATE" => {
                let at = if word(1).is("table") { 2 } else { 1 };
                let name = |at: usize| word(at).name().map(str::to_owned);
                match (name(at), word(at + 1), name(at + 2)) {
                    (schema, Word::Mark('.'), Some(table)) => StatementKind::Truncate(schema, table),
                    (Some(table), _, _) => StatementKind::Truncate(None, table),
                    (None, _, _) => StatementKind::Definition,
                }
            }
            "ALTER" | "CREATE" | "DROP" | "RENAME" if self.defines_other_things() => StatementKind::Nothing,
            "ALTER" | "CREATE" | "DROP" | "RENAME" => StatementKind::Definition,
            "INSERT" | "UPDATE" | "DELETE" | "REPLACE" | "LOAD" | "WITH" => StatementKind::Rows,
            // In the log for a function or a procedure that changes rows.
            "SELECT" | "DO" | "CALL" => StatementKind::Rows,
            _ => StatementKind::Nothing,
        }
    }

    /// Whether rows follow that belong to it (`CREATE TABLE … SELECT`).
    pub(in super::super) fn starts_transaction(&self) -> bool {
        self.text.trim_end().to_ascii_uppercase().ends_with("START TRANSACTION")
    }

    /// Whether it defines what has no columns that rows of the log have: tools that alter tables online put triggers on them, between rows.
    fn defines_other_things(&self) -> bool {
        const OTHERS: [&str; 9] =
            ["trigger", "view", "procedure", "function", "event", "user", "role", "server", "package"];
        const THESE: [&str; 5] = ["table", "tables", "database", "schema", "index"];
        let is = |word: &Word, names: &[&str]| names.iter().any(|name| word.is(name));
        // Before it stand whose it is, and how it is to be run; all of these before a name of a table.
        let thing = self.words().take(24).find(|word| is(word, &OTHERS) || is(word, &THESE));
        thing.is_some_and(|thing| is(&thing, &OTHERS))
    }

    /// How many of its words say what it defines: of a table that is made, those up to its name, for what it is made like stays as it is.
    fn defining(&self) -> usize {
        let head: Vec<Word> = self.words().take(12).collect();
        let word = |at: usize| head.get(at).unwrap_or(&Word::Mark(';'));
        if !word(0).is("create") {
            return usize::MAX;
        }
        let table = head.iter().take_while(|word| matches!(word, Word::Bare(_))).position(|word| word.is("table"));
        let Some(mut name) = table.map(|at| at + 1) else { return usize::MAX };
        if word(name).is("if") {
            name += 3;
        }
        if *word(name + 1) == Word::Mark('.') { name + 3 } else { name + 1 }
    }

    /// Whether the table, or its database as a whole, is named in it.
    pub(in super::super) fn may_concern(&self, schema: &str, table: &str) -> bool {
        self.names(schema, table, self.defining())
    }

    /// The same of its first words, so many.
    fn names(&self, schema: &str, table: &str, words: usize) -> bool {
        // Names may be compared without their case, by the server's settings.
        let is = |word: &Word, name: &str| word.name().is_some_and(|word| word.to_lowercase() == name.to_lowercase());
        let is_chosen = self.schema.to_lowercase() == schema.to_lowercase();
        let (mut names_schema, mut whole) = (false, false);
        let (mut owner, mut before) = (None, None);
        for (at, word) in self.words().enumerate().take(words) {
            if is(&word, table) {
                // `schema.table`, or a table of the database that was chosen.
                // MariaDB lets the point stand alone (`TABLE .movie`).
                let is_alone = |owner: &Word| ["table", "exists", "to", "with"].iter().any(|word| owner.is(word));
                let within = owner.as_ref().filter(|o| before == Some(Word::Mark('.')) && !is_alone(o));
                if within.and_then(Word::name).map_or(is_chosen, |_| within.is_some_and(|within| is(within, schema))) {
                    return true;
                }
            }
            names_schema |= is(&word, schema);
            whole |= at <= 4 && (word.is("database") || word.is("schema"));
            owner = before.replace(word);
        }
        whole && names_schema
    }

    /// Whether rows of the table may be changed by it: of one that reads elsewhere, only what it writes to counts; one that calls a function
    /// does not say what that changes, so it may be any table of a database that it names or was run in.
    pub(in super::super) fn may_write_to(&self, schema: &str, table: &str) -> bool {
        let first = self.words().next();
        let begins = |keywords: &[&str]| first.as_ref().is_some_and(|first| keywords.iter().any(|word| first.is(word)));
        if begins(&["select", "do", "call"]) {
            let named = |word: Word| word.name().is_some_and(|word| word.to_lowercase() == schema.to_lowercase());
            return self.schema.to_lowercase() == schema.to_lowercase() || self.words().take(WRITTEN).any(named);
        }
        if !begins(&["insert", "replace"]) {
            return self.may_concern(schema, table);
        }
        let words = self.words().take(WRITTEN).position(|word| word.is("select")).unwrap_or(WRITTEN);
        self.names(schema, table, words)
    }

    /// Its words, behind the settings that MariaDB lets stand before a statement (`SET STATEMENT … FOR`).
    pub(super) fn words(&self) -> Words<'_> {
        let all = Words { text: &self.text, mode: self.mode };
        let mut words = Words { text: &self.text, mode: self.mode };
        let is_set = |words: &mut Words<'_>, keyword: &str| words.next().is_some_and(|word| word.is(keyword));
        if is_set(&mut words, "set") && is_set(&mut words, "statement") && words.any(|word| word.is("for")) {
            words
        } else {
            all
        }
    }
}

/// The mode of SQL, among the status variables, whose first are flags and mode.
fn mode(mut status: Cursor<'_>) -> u64 {
    while let Ok(code) = status.u8() {
        match code {
            0 if status.u32().is_ok() => {}
            1 => return status.u64().unwrap_or(0),
            _ => break,
        }
    }
    0
}

/// The words of a statement, without comments; those that only MySQL or MariaDB reads count.
pub(super) struct Words<'a> {
    text: &'a str,
    mode: u64,
}

impl<'a> Words<'a> {
    /// What stands in quotes, from behind the first.
    fn quoted(&mut self, quote: char, escapes: bool) -> String {
        let mut out = String::new();
        let mut chars = self.text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' if escapes => out.extend(chars.next().map(|(_, c)| c)),
                c if c == quote => match chars.peek() {
                    Some((_, next)) if *next == quote => {
                        out.push(quote);
                        chars.next();
                    }
                    _ => {
                        self.text = &self.text[at + c.len_utf8()..];
                        return out;
                    }
                },
                c => out.push(c),
            }
        }
        self.text = "";
        out
    }

    fn skip_to(&mut self, end: &str) {
        self.text = self.text.find(end).map_or("", |at| &self.text[at + end.len()..]);
    }
}

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        let escapes = self.mode & NO_BACKSLASH_ESCAPES == 0;
        loop {
            self.text = self.text.trim_start();
            let first = self.text.chars().next()?;
            let rest = &self.text[first.len_utf8()..];
            if let Some(comment) = self.text.strip_prefix("/*") {
                // `/*!80000 …*/` and `/*M! …*/` are read.
                let conditional = comment.strip_prefix('!').or_else(|| comment.strip_prefix("M!"));
                match conditional {
                    Some(inside) => self.text = inside.trim_start_matches(|c: char| c.is_ascii_digit()),
                    None => self.skip_to("*/"),
                }
                continue;
            }
            if let Some(end) = self.text.strip_prefix("*/") {
                self.text = end;
                continue;
            }
            if first == '#' || self.text.starts_with("-- ") || self.text.starts_with("--\n") {
                self.skip_to("\n");
                continue;
            }
            self.text = rest;
            return Some(match first {
                '`' => Word::Quoted(self.quoted('`', false)),
                '"' if self.mode & ANSI_QUOTES != 0 => Word::Quoted(self.quoted('"', false)),
                '\'' | '"' => Word::Text(self.quoted(first, escapes).into_bytes()),
                'x' | 'X' if rest.starts_with('\'') => {
                    self.text = &rest[1..];
                    let digits = self.quoted('\'', false).into_bytes();
                    Word::Text(from_digits(&digits).unwrap_or(digits))
                }
                c if c.is_alphanumeric() || "_$".contains(c) => {
                    let end = rest.find(|c: char| !(c.is_alphanumeric() || "_$".contains(c))).unwrap_or(rest.len());
                    self.text = &rest[end..];
                    Word::Bare(format!("{c}{}", &rest[..end]))
                }
                c => Word::Mark(c),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statement(text: &str) -> Statement {
        Statement { thread: 1, schema: "films".into(), text: text.into(), mode: 0 }
    }

    #[test]
    fn statements_are_told_apart_by_their_first_words() {
        use StatementKind::*;
        let kind = |text: &str| statement(text).kind();
        assert_eq!(kind("BEGIN"), Begin(None));
        assert_eq!(kind("/* x */ COMMIT"), Commit);
        assert_eq!(kind("ROLLBACK TO `a b`"), RollbackTo("a b".into()));
        assert_eq!(kind("rollback work to savepoint a"), RollbackTo("a".into()));
        assert_eq!(kind("rollback"), Rollback);
        assert_eq!(kind("XA COMMIT X'616263',X'',1"), kind("xa commit x'616263', X'',1 "));
        assert!(
            matches!((kind("XA START X'61',X'',1"), kind("XA COMMIT X'61',X'',1")), (Begin(Some(a)), XaCommit(b)) if a == b)
        );
        assert_eq!(kind("truncate table `films`.`a``b`"), Truncate(Some("films".into()), "a`b".into()));
        assert_eq!(kind("TRUNCATE t"), Truncate(None, "t".into()));
        for text in [
            "alter table t add x int",
            "/*!50001 CREATE */ TABLE v AS SELECT 1",
            "-- x\nDROP TABLE t",
            "#x\nRENAME TABLE a TO b",
        ] {
            assert_eq!(kind(text), Definition, "{text}");
        }
        assert_eq!(kind("/*M!100100 insert */ into t values (1)"), Rows);
        assert_eq!(
            kind("SET STATEMENT max_statement_time=1, sort_buffer_size = 2 FOR TRUNCATE t"),
            Truncate(None, "t".into())
        );
        assert_eq!(kind("set statement lock_wait_timeout=1 for alter table t add x int"), Definition);
        assert_eq!(kind("SET STATEMENT a=1 FOR insert into t values (1)"), Rows);
        assert_eq!(kind("SELECT `films`.`f`()"), Rows);
        for text in
            ["SET statement = 1", "SET STATEMENT", "SET x = 'statement for'", "SET STATEMENT a = 'for truncate t'"]
        {
            assert_eq!(kind(text), Nothing, "{text}");
        }
        assert_eq!(kind("GRANT ALL ON *.* TO a"), Nothing);
        assert_eq!(kind("SAVEPOINT `a`"), Savepoint("a".into()));
        assert_eq!(kind("RELEASE SAVEPOINT a"), Nothing);
    }

    #[test]
    fn what_may_concern_a_table_does() {
        let concerns = |text: &str| statement(text).may_concern("films", "movie");
        assert!(concerns("ALTER TABLE movie ADD x int"));
        assert!(concerns("RENAME TABLE `_movie_new` TO `Movie`"));
        assert!(concerns("DROP DATABASE films"));
        assert!(concerns("DROP TABLE other.movie, movie") && !concerns("DROP TABLE other.movie"));
        assert!(concerns("ALTER TABLE . movie ADD x int") && !concerns("RENAME TABLE staging.movie TO staging.old"));
        assert!(!concerns("ALTER TABLE talent COMMENT 'movie'"));
        assert!(!concerns("CREATE TABLE other.talent (id int) -- movie"));
        let other = Statement { schema: "other".into(), ..statement("ALTER TABLE movie ADD x int") };
        assert!(!other.may_concern("films", "movie"));
        assert!(
            Statement { text: "ALTER TABLE films . movie ADD x int".into(), ..other }.may_concern("films", "movie")
        );
        let writes = |text: &str| statement(text).may_write_to("films", "movie");
        assert!(writes("INSERT INTO movie SELECT 1"));
        assert!(!writes("INSERT INTO log SELECT * FROM movie"));
        assert!(!writes("INSERT INTO selections (id) SELECT id FROM movie"));
        assert!(statement("INSERT INTO selections VALUES (1)").may_write_to("films", "selections"));
        assert!(statement("replace into `select` values (1)").may_write_to("films", "select"));
        assert!(statement("SET STATEMENT a=1 FOR INSERT INTO movie VALUES (1)").may_write_to("films", "movie"));
        assert!(writes("SELECT f(1)"));
        let elsewhere =
            |text: &str| Statement { schema: "other".into(), ..statement(text) }.may_write_to("films", "movie");
        assert!(elsewhere("SELECT `films`.`f`()") && elsewhere("do films.f()") && !elsewhere("SELECT `other`.`f`()"));
        assert!(writes("UPDATE log, movie SET a = 1"));
    }

    #[test]
    fn what_tools_that_alter_online_do_beside_a_table_is_no_definition_of_it() {
        let concerns = |text: &str| {
            let statement = statement(text);
            statement.kind() == StatementKind::Definition && statement.may_concern("films", "movie")
        };
        for text in [
            "CREATE DEFINER=`root`@`localhost` TRIGGER `pt_osc_films_movie_ins` AFTER INSERT ON `films`.`movie` FOR EACH ROW REPLACE INTO x",
            "DROP TRIGGER IF EXISTS `films`.`movie`",
            "CREATE OR REPLACE ALGORITHM=UNDEFINED DEFINER=`a`@`%` SQL SECURITY DEFINER VIEW v AS SELECT * FROM movie",
            "CREATE TABLE `films`.`_movie_gho` LIKE `films`.`movie`",
            "create /* gh-ost */ table `films`.`_movie_gho` like `films`.`movie`",
            "CREATE TABLE IF NOT EXISTS copy (id int) SELECT * FROM movie",
            "CREATE TABLE cast (movie int, FOREIGN KEY (movie) REFERENCES movie (id))",
        ] {
            assert!(!concerns(text), "{text}");
        }
        for text in [
            "RENAME TABLE `films`.`movie` TO `films`.`_movie_old`, `films`.`_movie_new` TO `films`.`movie`",
            "CREATE TABLE movie (id int)",
            "CREATE OR REPLACE TEMPORARY TABLE IF NOT EXISTS films.movie LIKE x",
            "CREATE TABLE movie (`trigger` int)",
            "ALTER TABLE movie ADD `trigger` int",
            "CREATE UNIQUE INDEX `view` ON movie (id)",
            "DROP TABLE `event`, movie",
            "ALTER ONLINE IGNORE TABLE movie ADD event int",
        ] {
            assert!(concerns(text), "{text}");
        }
    }

    #[test]
    fn a_statement_that_loads_a_file_says_into_which_table() {
        let mut body = [7_u32.to_le_bytes(), 0_u32.to_le_bytes()].concat();
        // The length of the database's name, an error, the length of the status; the file, the places of its name, what becomes of duplicates.
        body.extend_from_slice(&[5, 0, 0, 5, 0]);
        body.extend_from_slice(&[1, 0, 0, 0, 9, 0, 0, 0, 18, 0, 0, 0, 0]);
        body.extend_from_slice(&[0, 0, 0, 0, 0]);
        body.extend_from_slice(
            b"films\0LOAD DATA INFILE '/tmp/SQL_LOAD-1' INTO TABLE `movie` FIELDS TERMINATED BY '\\t' (`id`)",
        );
        let load = Statement::read_load(&body).expect("a statement");
        assert_eq!((load.thread, &*load.schema, load.kind()), (7, "films", StatementKind::Rows));
        assert!(load.may_write_to("films", "movie") && !load.may_write_to("films", "talent"));
    }

    #[test]
    fn quotes_follow_the_mode() {
        let ansi = Statement { mode: ANSI_QUOTES, ..statement("ALTER TABLE \"movie\" ADD x int") };
        assert!(ansi.may_concern("films", "movie"));
        assert!(!Statement { mode: 0, ..ansi }.may_concern("films", "movie"));
        let text = r"ALTER TABLE t COMMENT '\' movie'";
        assert!(!statement(text).may_concern("films", "movie"));
        assert!(Statement { mode: NO_BACKSLASH_ESCAPES, ..statement(text) }.may_concern("films", "movie"));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-z`'\"\\\\/*#! \n.x-]{0,40}", mode: u64, bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let statement = Statement { mode, ..statement(&text) };
            let _ = (statement.kind(), statement.may_concern("a", "b"), statement.may_write_to("a", "b"));
            let _ = (statement.unlogged("a", "b"), statement.keeps_columns("a", "b"), Statement { text: format!("alter table a {text}"), ..statement.clone() }.unlogged("a", "a"));
            let _ = Statement::read(&bytes, false);
            let _ = Statement::read(&bytes, true);
            let _ = Statement::read_load(&bytes);
        }
    }
}
