//! Names of tables, as users write and read them: `schema.table`, with SQL's quotes where a part needs them.
//!
//! A part is taken exactly as it stands: unlike SQL, `public.Movie` is the table `Movie`. A part that has a dot or a quote in
//! it is written in double quotes, in which a quote is written twice: `"my.schema"."odd""table"`. What is printed is read
//! again as the same name, and two names never print alike.

use std::fmt;
use std::str::FromStr;

use bytestring::ByteString;

/// The schema of names that have none.
const PUBLIC: &str = "public";

/// Schema and name of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema (PostgreSQL) or database (MySQL).
    pub schema: ByteString,
    /// Table.
    pub name: ByteString,
}

/// A text that names no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableNameError {
    /// One part alone.
    #[error("write `{PUBLIC}.{0}`")]
    Unqualified(String),
    /// Unquoted dots could end the schema's name at several places.
    #[error("a part with a dot in it is written in quotes, as in `{0}` or `{1}`")]
    Ambiguous(String, String),
    /// A quote is not closed, or stands within a part.
    #[error("a part is written in quotes as a whole, and a quote in it twice, as in `\"my.schema\".\"odd\"\"table\"`")]
    Quotes,
    /// A part is missing, or begins or ends with a space that is not quoted.
    #[error("write `schema.table`")]
    Shape,
}

impl TableName {
    /// The table `name` of `schema`.
    pub fn new(schema: impl Into<ByteString>, name: impl Into<ByteString>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// Reads `"quoted"` or bare text up to a dot; gives the part, and what is left behind the dot if there was one.
fn part(text: &str) -> Result<(String, Option<&str>), TableNameError> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (part, rest) = text.split_once('.').map_or((text, None), |(part, rest)| (part, Some(rest)));
        return match part {
            _ if part.contains('"') => Err(TableNameError::Quotes),
            _ if part.is_empty() || part.trim() != part => Err(TableNameError::Shape),
            _ => Ok((part.to_owned(), rest)),
        };
    };
    let mut part = String::new();
    loop {
        let (before, after) = rest.split_once('"').ok_or(TableNameError::Quotes)?;
        part.push_str(before);
        if let Some(more) = after.strip_prefix('"') {
            part.push('"');
            rest = more;
            continue;
        }
        return match after.strip_prefix('.') {
            _ if part.is_empty() => Err(TableNameError::Shape),
            Some(behind) => Ok((part, Some(behind))),
            None if after.is_empty() => Ok((part, None)),
            None => Err(TableNameError::Quotes),
        };
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(text: &str) -> Result<Self, TableNameError> {
        let (schema, rest) = part(text)?;
        let Some(rest) = rest else { return Err(TableNameError::Unqualified(text.to_owned())) };
        match part(rest)? {
            (name, None) => Ok(Self::new(schema, name)),
            (_, Some(_)) if !text.contains('"') && text.split('.').all(|part| !part.trim().is_empty()) => {
                let ends = [text.rfind('.'), text.find('.')].map(Option::unwrap_or_default);
                let [last, first] = ends.map(|at| Self::new(&text[..at], &text[at + 1..]).to_string());
                Err(TableNameError::Ambiguous(last, first))
            }
            _ => Err(TableNameError::Shape),
        }
    }
}

/// For names in code: what is no `schema.table` is the name of a table in `public`.
impl From<&str> for TableName {
    fn from(text: &str) -> Self {
        text.parse().unwrap_or_else(|_| match part(text) {
            Ok((name, None)) => Self::new(PUBLIC, name),
            _ => Self::new(PUBLIC, text),
        })
    }
}

impl From<&TableName> for TableName {
    fn from(name: &TableName) -> Self {
        name.clone()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, end) in [(&*self.schema, "."), (&*self.name, "")] {
            if part.is_empty() || part.contains(['.', '"']) || part.trim() != part {
                write!(f, "\"{}\"{end}", part.replace('"', "\"\""))?;
            } else {
                write!(f, "{part}{end}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn odd_part() -> impl Strategy<Value = String> {
        proptest::string::string_regex("[ .\"a-cA{}ü']{1,6}").expect("a pattern")
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(schema in odd_part(), name in odd_part()) {
            let table = TableName::new(schema, name);
            prop_assert_eq!(table.to_string().parse(), Ok(table));
        }

        #[test]
        fn two_names_never_print_alike(a in odd_part(), b in odd_part(), c in odd_part(), d in odd_part()) {
            let (one, other) = (TableName::new(a, b), TableName::new(c, d));
            prop_assert_eq!(one == other, one.to_string() == other.to_string());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ .\"ab]{0,12}") {
            if let Ok(table) = text.parse::<TableName>() {
                prop_assert_eq!(table.to_string().parse(), Ok(table));
            }
            let _ = TableName::from(text.as_str());
        }
    }

    #[test]
    fn names_are_exact_and_quoted_where_they_must_be() {
        let read = |text: &str| text.parse::<TableName>();
        assert_eq!(read("public.Movie"), Ok(TableName::new("public", "Movie")));
        assert_eq!(read("\"public\".\"movie\"").map(|t| t.to_string()), Ok("public.movie".into()));
        let odd = TableName::new("my.schema", "odd}\"table");
        assert_eq!(odd.to_string(), "\"my.schema\".\"odd}\"\"table\"");
        assert_eq!(read("public.my table"), Ok(TableName::new("public", "my table")));
        assert_eq!(read("movie"), Err(TableNameError::Unqualified("movie".into())));
        assert_eq!(read("a.b.c"), Err(TableNameError::Ambiguous("\"a.b\".c".into(), "a.\"b.c\"".into())));
        for text in ["", ".", "a.", ".a", "a..b", " a.b", "\"\".a", "a.\"\""] {
            assert_eq!(read(text), Err(TableNameError::Shape), "{text}");
        }
        for text in ["\"a.b", "a\"b.c", "\"a\"b.c", "a.\"b\"c"] {
            assert_eq!(read(text), Err(TableNameError::Quotes), "{text}");
        }
        assert_eq!(TableName::from("movie"), TableName::new("public", "movie"));
        assert_eq!(TableName::from("\"a.b\""), TableName::new("public", "a.b"));
    }
}
