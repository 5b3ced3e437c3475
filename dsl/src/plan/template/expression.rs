//! What stands in a template's braces: a column, or a function of columns.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tributary_event::calendar::civil_from_days;

/// A value that ids are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdValue {
    /// The digits of a number.
    Number(String),
    /// Anything else.
    Text(String),
}

impl IdValue {
    /// Its characters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(text) | Self::Text(text) => text,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    Column(String),
    Text(String),
    Call(Function, Vec<Expression>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Function {
    Base64,
    Base64Url,
    Json,
    Concat,
    Text,
    Lower,
    Upper,
    Date,
    Trim,
}

impl Function {
    pub const ALL: [Self; 9] = [
        Self::Base64,
        Self::Base64Url,
        Self::Json,
        Self::Concat,
        Self::Text,
        Self::Lower,
        Self::Upper,
        Self::Date,
        Self::Trim,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Base64Url => "base64url",
            Self::Json => "json",
            Self::Concat => "concat",
            Self::Text => "text",
            Self::Lower => "lower",
            Self::Upper => "upper",
            Self::Date => "date",
            Self::Trim => "trim",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.name() == name)
    }

    /// What it takes, if it does not take so many arguments.
    pub fn refuses(self, arguments: usize) -> Option<&'static str> {
        match self {
            Self::Json | Self::Concat => (arguments == 0).then_some("at least one argument"),
            _ => (arguments != 1).then_some("one argument"),
        }
    }

    fn of(self, arguments: &[IdValue]) -> String {
        let all = || arguments.iter().map(IdValue::as_str);
        let first = || all().next().unwrap_or_default();
        match self {
            Self::Base64 => STANDARD.encode(first()),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(first()),
            Self::Json => {
                let item = |value: &IdValue| match value {
                    // A whole number that no double holds is quoted, as every server does whose numbers are doubles.
                    IdValue::Number(digits) if is_exact(digits) => digits.clone(),
                    IdValue::Number(digits) => format!("\"{digits}\""),
                    IdValue::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
                };
                format!("[{}]", arguments.iter().map(item).collect::<Vec<_>>().join(","))
            }
            Self::Concat => all().collect(),
            Self::Text => first().to_owned(),
            Self::Lower => first().to_lowercase(),
            Self::Upper => first().to_uppercase(),
            Self::Date => arguments.first().map(date).unwrap_or_default(),
            Self::Trim => first().trim_end_matches(' ').to_owned(),
        }
    }
}

/// Days that stand for `infinity` and `-infinity` in events.
const INFINITE: [(i64, &str); 2] = [(2_146_033_979, "infinity"), (-2_147_472_691, "-infinity")];

/// A date as PostgreSQL writes it, and most graphs: of the days since 1970-01-01 that events have, or of a text of ISO 8601, whose
/// zone says nothing.
pub(super) fn date(value: &IdValue) -> String {
    let text = value.as_str();
    let Ok(days) = text.parse::<i64>() else { return text.strip_suffix('Z').unwrap_or(text).to_owned() };
    if let Some((_, name)) = INFINITE.iter().find(|(infinite, _)| *infinite == days) {
        return (*name).to_owned();
    }
    let (year, month, day) = civil_from_days(days);
    match year {
        1.. => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{:04}-{month:02}-{day:02} BC", 1 - year),
    }
}

/// Whether a double holds a number, as far as that can be told: whole numbers up to 2^53.
pub(super) fn is_exact(digits: &str) -> bool {
    digits.parse::<i128>().map_or(!digits.is_empty(), |number| number.unsigned_abs() < 1 << 53)
}

impl Expression {
    /// Its value for a row; `None` if one of its columns is null or absent there.
    pub fn value(&self, column: &impl Fn(&str) -> Option<IdValue>) -> Option<IdValue> {
        match self {
            Self::Column(name) => column(name),
            Self::Text(text) => Some(IdValue::Text(text.clone())),
            Self::Call(function, arguments) => {
                let values: Option<Vec<IdValue>> = arguments.iter().map(|argument| argument.value(column)).collect();
                Some(IdValue::Text(function.of(&values?)))
            }
        }
    }

    /// The columns that it names, each with the function that takes it, if one does.
    pub fn columns<'a>(&'a self, within: Option<Function>, into: &mut Vec<(&'a str, Option<Function>)>) {
        match self {
            Self::Column(name) => into.push((name, within)),
            Self::Text(_) => {}
            Self::Call(function, arguments) => {
                arguments.iter().for_each(|argument| argument.columns(Some(*function), into));
            }
        }
    }
}

/// Whether a column's name needs no quotes.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "_.-$".contains(c))
}

impl Expression {
    /// The same with a column taken as a date, wherever it is not.
    pub fn dated(&self, column: &str) -> Self {
        match self {
            Self::Column(name) if name == column => Self::Call(Function::Date, vec![self.clone()]),
            Self::Call(Function::Date, _) | Self::Column(_) | Self::Text(_) => self.clone(),
            Self::Call(function, arguments) => {
                Self::Call(*function, arguments.iter().map(|argument| argument.dated(column)).collect())
            }
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column(name) if is_plain(name) => f.write_str(name),
            Self::Column(name) => write!(f, "\"{}\"", name.replace('"', "\"\"")),
            Self::Text(text) => write!(f, "'{}'", text.replace('\'', "''")),
            Self::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                for (i, argument) in arguments.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{argument}")?;
                }
                f.write_str(")")
            }
        }
    }
}
