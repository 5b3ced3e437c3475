//! Id templates such as `{movie_id}`, `{tenant}/{number}`, or `{base64(json('Movie', id))}`.

mod expression;
mod proposal;
mod reader;

use expression::{Expression, Function};

pub use expression::IdValue;
pub use proposal::{Columns, Look, propose};

/// Text with columns in braces. `{{` and `}}` are braces themselves. A column whose name has other characters than letters, digits
/// and `_.-$` in it may be quoted as in SQL, and must be where they are a brace, a quote or a parenthesis: `{"odd}column"}`.
///
/// In braces there may be a function instead: `base64(…)`, `base64url(…)` (without padding), `json(…, …)` (a JSON array without
/// blanks, numbers as numbers, but for whole ones beyond 2^53), `concat(…, …)`, `text(…)` (a number as text, so that `json` quotes it), `lower(…)`, `upper(…)`,
/// `date(…)` (a date as `2024-01-31`), `trim(…)` (without the blanks that fill up `char(n)`). It takes columns, texts in single quotes, and functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Value(Expression),
}

/// The text is no template. Offsets are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without its `}`.
    #[error("the brace opened at offset {0} is never closed")]
    Unclosed(usize),
    /// `}` without its `{`.
    #[error("the brace closed at offset {0} was never opened (write }}}} for a brace itself)")]
    Unopened(usize),
    /// `{"a` or `{"a"b}`.
    #[error("the quoted column at offset {0} must end with `\"}}` (a quote in a name is written twice)")]
    Quotes(usize),
    /// `{}`.
    #[error("the braces at offset {0} name no column")]
    Empty(usize),
    /// Nothing but text: every row would be the same vertex.
    #[error("the template names no column, so every row would have the same id")]
    NoColumn,
    /// `{md5(id)}`.
    #[error(
        "there is no function `{name}` (at offset {at}); there are base64, base64url, json, concat, text, lower, upper, date and trim"
    )]
    UnknownFunction {
        /// As written.
        name: String,
        /// Where.
        at: usize,
    },
    /// `{base64()}`, `{base64(a, b)}`.
    #[error("the function `{name}` at offset {at} takes {takes}")]
    Arguments {
        /// The function.
        name: &'static str,
        /// Where.
        at: usize,
        /// What it takes.
        takes: &'static str,
    },
    /// Something else stands where an argument, a comma or a parenthesis is expected.
    #[error("at offset {at}, {expected} is expected")]
    Expected {
        /// Where.
        at: usize,
        /// What.
        expected: &'static str,
    },
}

impl IdTemplate {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        reader::template(text)
    }

    /// The template of columns' values, with slashes between them.
    pub(crate) fn of_columns(columns: &[String]) -> Self {
        let mut parts = Vec::new();
        for column in columns {
            if !parts.is_empty() {
                parts.push(Part::Literal("/".to_owned()));
            }
            parts.push(Part::Value(Expression::Column(column.clone())));
        }
        Self(parts)
    }

    /// The columns it names, in order; one may come twice.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.taken().into_iter().map(|(column, _)| column)
    }

    /// The columns whose values are taken as they come, and not as dates.
    pub fn undated(&self) -> impl Iterator<Item = &str> {
        self.taken().into_iter().filter(|(_, function)| *function != Some(Function::Date)).map(|(column, _)| column)
    }

    /// The template with the column taken as a date, wherever it is not.
    #[must_use]
    pub fn dated(&self, column: &str) -> Self {
        let part = |part: &Part| match part {
            Part::Literal(text) => Part::Literal(text.clone()),
            Part::Value(expression) => Part::Value(expression.dated(column)),
        };
        Self(self.0.iter().map(part).collect())
    }

    fn taken(&self) -> Vec<(&str, Option<Function>)> {
        let mut columns = Vec::new();
        for part in &self.0 {
            if let Part::Value(expression) = part {
                expression.columns(None, &mut columns);
            }
        }
        columns
    }

    /// The id for a row; `None` if one of its columns is null or absent there.
    pub fn render(&self, column: impl Fn(&str) -> Option<IdValue>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Value(expression) => out.push_str(expression.value(&column)?.as_str()),
            }
        }
        Some(out)
    }
}

impl std::fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Value(expression) => write!(f, "{{{expression}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn templates_render_and_print() {
        let template = IdTemplate::parse("{{{tenant}/{ number }").expect("a template");
        assert_eq!(template.to_string(), "{{{tenant}/{number}");
        let row = |name: &str| Some(IdValue::Text(name.to_uppercase()));
        assert_eq!(template.render(row).as_deref(), Some("{TENANT/NUMBER"));
        assert_eq!(template.render(|_| None), None);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(IdTemplate::parse("{id"), Err(TemplateError::Unclosed(0)));
        assert_eq!(IdTemplate::parse("id}"), Err(TemplateError::Unopened(2)));
        assert_eq!(IdTemplate::parse("a{ }"), Err(TemplateError::Empty(1)));
        assert_eq!(IdTemplate::parse("id"), Err(TemplateError::NoColumn));
        assert_eq!(IdTemplate::parse("a{\"b"), Err(TemplateError::Quotes(1)));
        assert_eq!(IdTemplate::parse("{\"a\"b}"), Err(TemplateError::Quotes(0)));
        assert_eq!(IdTemplate::parse("{\"\"}"), Err(TemplateError::Empty(0)));
    }

    #[test]
    fn global_ids_are_made_by_functions() {
        let row = |name: &str| match name {
            "id" => Some(IdValue::Number("7".into())),
            "big" => Some(IdValue::Number("9007199254740992".into())),
            "name" => Some(IdValue::Text("Ä \"b\"".into())),
            "day" => Some(IdValue::Number("19782".into())),
            "iso" => Some(IdValue::Text("2024-02-29Z".into())),
            "before" => Some(IdValue::Number("-735160".into())),
            "never" => Some(IdValue::Number("2146033979".into())),
            "first" => Some(IdValue::Number("-2147472691".into())),
            "padded" => Some(IdValue::Text(" ab  ".into())),
            _ => None,
        };
        for (template, id, printed) in [
            ("{base64(json('Movie', id))}", "WyJNb3ZpZSIsN10=", "{base64(json('Movie', id))}"),
            ("{base64( json( 'Movie' , text(id) ) ) }", "WyJNb3ZpZSIsIjciXQ==", "{base64(json('Movie', text(id)))}"),
            ("{base64(concat('Movie:', id))}", "TW92aWU6Nw==", "{base64(concat('Movie:', id))}"),
            ("{base64url(concat('Movie:', \"id\"))}", "TW92aWU6Nw", "{base64url(concat('Movie:', id))}"),
            ("{json(name, id)}", "[\"Ä \\\"b\\\"\",7]", "{json(name, id)}"),
            ("{json(big)}", "[\"9007199254740992\"]", "{json(big)}"),
            ("{upper(name)}-{lower(name)}", "Ä \"B\"-ä \"b\"", "{upper(name)}-{lower(name)}"),
            ("{date(day)}", "2024-02-29", "{date(day)}"),
            ("{base64(json('Day', date(iso)))}", "WyJEYXkiLCIyMDI0LTAyLTI5Il0=", "{base64(json('Day', date(iso)))}"),
            (
                "{date(before)}/{date(never)}/{date(first)}",
                "0044-03-15 BC/infinity/-infinity",
                "{date(before)}/{date(never)}/{date(first)}",
            ),
            ("{trim(padded)}.", " ab.", "{trim(padded)}."),
            ("{concat('it''s ', id)}", "it's 7", "{concat('it''s ', id)}"),
        ] {
            let parsed = IdTemplate::parse(template).expect(template);
            assert_eq!(parsed.render(row).as_deref(), Some(id), "{template}");
            assert_eq!(parsed.to_string(), printed);
        }
        let template = IdTemplate::parse("{base64(json('Movie', id, other))}").expect("a template");
        assert_eq!(template.columns().collect::<Vec<_>>(), ["id", "other"]);
        assert_eq!(template.render(row), None);
    }

    #[test]
    fn wrong_functions_are_refused() {
        let error = |text: &str| IdTemplate::parse(text).expect_err(text).to_string();
        assert!(error("{md5(id)}").contains("no function `md5`"));
        assert!(error("{base64()}").contains("`base64` at offset 1 takes one argument"));
        assert!(error("{base64(a, b)}").contains("takes one argument"));
        assert!(error("{json()}").contains("takes at least one argument"));
        assert!(error("{base64(id}").contains("a comma or `)`"), "{}", error("{base64(id}"));
        assert!(error("{base64('a)}").contains("the end of the text in quotes"));
        assert!(error("{base64(id)x}").contains("`}` is expected"));
        assert!(error("{base64('a')}").contains("names no column"));
        assert!(error("{base64(, a)}").contains("a column, a text in single quotes or a function"));
    }

    #[test]
    fn columns_are_known_as_dates_or_not() {
        let template = IdTemplate::parse("{day}-{date(day)}-{date(until)}-{lower(name)}").expect("a template");
        assert_eq!(template.undated().collect::<Vec<_>>(), ["day", "name"]);
        let dated = template.dated("day");
        assert_eq!(dated.to_string(), "{date(day)}-{date(day)}-{date(until)}-{lower(name)}");
        assert_eq!(dated.columns().collect::<Vec<_>>(), ["day", "day", "until", "name"]);
    }

    proptest! {
        #[test]
        fn any_column_can_be_named_and_what_is_printed_is_read_again(
            columns in prop::collection::vec("[{}()\" a.']{1,5}", 1..4),
            literal in "[{}\" /a]{0,4}",
        ) {
            let mut parts = Vec::new();
            for column in &columns {
                parts.push(Part::Value(Expression::Column(column.clone())));
                if !literal.is_empty() {
                    parts.push(Part::Literal(literal.clone()));
                }
            }
            let template = IdTemplate(parts);
            prop_assert_eq!(IdTemplate::parse(&template.to_string()), Ok(template));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[{}\" a(),']{0,12}|\\{(base64|json|concat)\\([a, '\"(){}]{0,8}") {
            if let Ok(template) = IdTemplate::parse(&text) {
                prop_assert_eq!(IdTemplate::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
