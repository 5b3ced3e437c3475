//! Values of JSON → literals, for columns of each kind. Pure.
//!
//! A number goes as a text, which a column of decimals takes digit by digit; the server would read it as a float first. What a server
//! would silently round, a fraction for a column of integers, is refused here.

use serde_json::value::RawValue;

use super::super::table::Column;
use super::moment;

/// What matters of a column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Integer,
    Json,
    Text,
    Moment,
    Other,
}

impl Class {
    fn of(column: &Column) -> Self {
        let word = column.kind.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        match word {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "bit" | "year" => Self::Integer,
            "json" => Self::Json,
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" | "enum" | "set" => Self::Text,
            "datetime" | "timestamp" => Self::Moment,
            _ => Self::Other,
        }
    }
}

/// A text as a literal. The session's `sql_mode` lets backslashes escape.
pub(super) fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('\'');
    for c in text.chars() {
        match c {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\0' => literal.push_str("\\0"),
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

/// A value as a literal for a column. `Err`: why the column cannot take it.
pub(super) fn literal(name: &str, column: &Column, value: &RawValue) -> Result<String, String> {
    let (class, json) = (Class::of(column), value.get());
    let first = json.as_bytes().first().copied().unwrap_or(b'n');
    if first == b'n' {
        return Ok("null".to_owned());
    }
    if class == Class::Json || matches!(first, b'{' | b'[') {
        return Ok(quote(json));
    }
    if matches!(first, b't' | b'f') {
        return Ok(if class == Class::Text { quote(json) } else { u8::from(first == b't').to_string() });
    }
    let text = match first {
        b'"' => {
            serde_json::from_str(json).map_err(|e| format!("its {name:?} is no text that a table can take: {e}"))?
        }
        _ => json.to_owned(),
    };
    Ok(match class {
        Class::Integer => match text.trim().parse::<i128>() {
            Ok(number) => number.to_string(),
            Err(_) => {
                let shown: String = text.chars().take(60).collect();
                return Err(format!("its {name:?} is {shown:?}, and the column is {}", column.kind));
            }
        },
        Class::Moment => quote(&moment::of_mysql(&text).unwrap_or(text)),
        _ => quote(&text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, json: &str) -> Result<String, String> {
        let column = Column { kind: kind.to_owned(), ..Column::default() };
        literal("c", &column, &RawValue::from_string(json.to_owned()).expect("JSON"))
    }

    #[test]
    fn literals_are_what_the_column_wants() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(told("bigint", "12"), ok("12"));
        assert_eq!(told("bigint(20) unsigned", "\"18446744073709551615\""), ok("18446744073709551615"));
        assert_eq!(told("tinyint(1)", "true"), ok("1"));
        assert_eq!(told("longtext", "true"), ok("'true'"));
        assert_eq!(told("decimal(65,30)", "0.1234567890123456789"), ok("'0.1234567890123456789'"));
        assert_eq!(told("json", r#""it's""#), ok(r#"'"it''s"'"#));
        assert_eq!(told("longtext", r#""it's \\ \u0000""#), ok(r"'it''s \\ \0'"));
        assert_eq!(told("longtext", r#"{"a":"\n"}"#), ok(r#"'{"a":"\\n"}'"#));
        assert_eq!(told("datetime(6)", r#""2026-01-31T09:30:00.25Z""#), ok("'2026-01-31 09:30:00.25'"));
        assert_eq!(told("varchar(9)", "null"), ok("null"));
        for unfit in ["1.5", "1e3", r#""many""#] {
            assert!(told("int", unfit).expect_err("unfit").contains("the column is int"));
        }
    }
}
