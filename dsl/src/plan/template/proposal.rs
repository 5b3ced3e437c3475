//! From an id that a graph answered to the template that makes such ids of rows.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value as Json;

use super::expression::{Expression, Function, IdValue, date, is_exact};
use super::{IdTemplate, Part};

/// Columns of a row, with their values.
pub type Columns = [(String, IdValue)];

/// The template for ids such as one that the graph answered, if there is one. `same`: it is the id of this very row, so that its parts
/// must be the row's values; otherwise it is that of another, and its parts are taken for the columns in their order.
pub fn propose(seen: &str, row: &Columns, same: bool) -> Option<IdTemplate> {
    if same {
        let column = row.iter().find(|(_, value)| value.as_str() == seen);
        if let Some((name, _)) = column {
            return Some(IdTemplate(vec![Part::Value(Expression::Column(name.clone()))]));
        }
        let written = |function: Function, value: &IdValue| match function {
            Function::Date => date(value) == seen,
            _ => value.as_str().trim_end_matches(' ') == seen,
        };
        for function in [Function::Trim, Function::Date] {
            if let Some((name, _)) = row.iter().find(|(_, value)| written(function, value)) {
                let column = vec![Expression::Column(name.clone())];
                return Some(IdTemplate(vec![Part::Value(Expression::Call(function, column))]));
            }
        }
    }
    if let (Look::Date, [(name, IdValue::Number(_))]) = (Look::of(seen), row) {
        let column = vec![Expression::Column(name.clone())];
        return Some(IdTemplate(vec![Part::Value(Expression::Call(Function::Date, column))]));
    }
    for (function, decoded) in
        [(Function::Base64, STANDARD.decode(seen)), (Function::Base64Url, URL_SAFE_NO_PAD.decode(seen))]
    {
        let Some(text) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { continue };
        let inner = array(&text, row, same).or_else(|| prefixed(&text, row, same));
        if let Some(inner) = inner {
            return Some(IdTemplate(vec![Part::Value(Expression::Call(function, vec![inner]))]));
        }
    }
    match prefixed(seen, row, same)? {
        Expression::Call(_, parts) => {
            let part = |part| if let Expression::Text(text) = part { Part::Literal(text) } else { Part::Value(part) };
            Some(IdTemplate(parts.into_iter().map(part).collect()))
        }
        other => Some(IdTemplate(vec![Part::Value(other)])),
    }
}

/// `["Movie",7]`.
fn array(text: &str, row: &Columns, same: bool) -> Option<Expression> {
    let Ok(Json::Array(items)) = serde_json::from_str::<Json>(text) else { return None };
    let (Json::String(name), values) = items.split_first()? else { return None };
    if values.is_empty() || !same && values.len() != row.len() {
        return None;
    }
    let mut arguments = vec![Expression::Text(name.clone())];
    for (i, item) in values.iter().enumerate() {
        let written = match item {
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            _ => return None,
        };
        let column = if same { row.iter().find(|(_, value)| value.as_str() == written) } else { row.get(i) };
        let (name, value) = column?;
        let column = Expression::Column(name.clone());
        // A number that is no double is quoted anyway.
        let quoted = item.is_string() && matches!(value, IdValue::Number(_)) && is_exact(&written);
        arguments.push(if quoted { Expression::Call(Function::Text, vec![column]) } else { column });
    }
    Some(Expression::Call(Function::Json, arguments))
}

/// `Movie:7`, `movies/7`.
fn prefixed(text: &str, row: &Columns, same: bool) -> Option<Expression> {
    let (prefix, name) = if same {
        let ends = |value: &IdValue| {
            let rest =
                text.strip_suffix(value.as_str()).filter(|rest| !value.as_str().is_empty() && !rest.is_empty())?;
            // A digit before the value would be a part of it.
            (!rest.ends_with(|c: char| c.is_alphanumeric())).then_some(rest)
        };
        row.iter().find_map(|(name, value)| Some((ends(value)?, name)))?
    } else {
        let at = text.rfind([':', '/', '|', '_', '-', '.', '#'])?;
        let prefix = &text[..=at];
        let is_name = |c: char| c.is_ascii_alphanumeric() || ":/|_.#".contains(c);
        if !prefix.starts_with(|c: char| c.is_ascii_alphabetic()) || !prefix.chars().all(is_name) {
            return None;
        }
        let [(name, _)] = row else { return None };
        (prefix, name)
    };
    let parts = vec![Expression::Text(prefix.to_owned()), Expression::Column(name.clone())];
    Some(Expression::Call(Function::Concat, parts))
}

/// What an id looks like: two of one type that look unlike were not made in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Digits.
    Number,
    /// A UUID.
    Uuid,
    /// Year, month and day.
    Date,
    /// Base64 of a text that names a type.
    Global,
    /// A name before a colon.
    Prefixed,
    /// Anything else.
    Other,
}

impl Look {
    /// What stands in an id that is base64 of a text that names a type.
    pub fn inside(id: &str) -> Option<String> {
        let decoded = STANDARD.decode(id).or_else(|_| URL_SAFE_NO_PAD.decode(id)).ok()?;
        String::from_utf8(decoded).ok().filter(|_| Self::of(id) == Self::Global)
    }

    /// The look of an id.
    pub fn of(id: &str) -> Self {
        let hexadecimal =
            |part: &str, length: usize| part.len() == length && part.chars().all(|c| c.is_ascii_hexdigit());
        let groups: Vec<&str> = id.split('-').collect();
        let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        let is_date = matches!(groups.as_slice(), [year, month, day] if year.len() >= 4 && month.len() == 2 && day.len() == 2)
            && groups.iter().all(|part| digits(part));
        let is_uuid = groups.len() == 5 && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, n)| hexadecimal(group, n));
        let decoded = STANDARD.decode(id).or_else(|_| URL_SAFE_NO_PAD.decode(id)).ok();
        let names =
            |text: &str| text.starts_with("[\"") || text.split_once(':').is_some_and(|(name, _)| is_type_name(name));
        if !id.is_empty() && id.trim_start_matches('-').chars().all(|c| c.is_ascii_digit()) {
            Self::Number
        } else if is_uuid {
            Self::Uuid
        } else if is_date {
            Self::Date
        } else if decoded.and_then(|bytes| String::from_utf8(bytes).ok()).is_some_and(|text| names(&text)) {
            Self::Global
        } else if id.split_once(':').is_some_and(|(name, _)| is_type_name(name)) {
            Self::Prefixed
        } else {
            Self::Other
        }
    }
}

fn is_type_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_global_id() {
        assert_eq!(Look::inside("WyJNb3ZpZSIsIjciXQ==").as_deref(), Some(r#"["Movie","7"]"#));
        assert_eq!(Look::inside("TW92aWU6Nw").as_deref(), Some("Movie:7"));
        assert_eq!(Look::inside("1234"), None);
        assert_eq!(Look::inside("Movie:7"), None);
    }

    fn row() -> Vec<(String, IdValue)> {
        let number = |name: &str, value: &str| (name.to_owned(), IdValue::Number(value.to_owned()));
        let text = |name: &str, value: &str| (name.to_owned(), IdValue::Text(value.to_owned()));
        vec![
            number("id", "7"),
            text("code", "drama"),
            number("movie_id", "17"),
            number("day", "19782"),
            text("short", "ab  "),
        ]
    }

    #[test]
    fn ids_of_the_row_itself() {
        let encode = |text: &str| STANDARD.encode(text);
        for (seen, template) in [
            ("7".to_owned(), "{id}"),
            ("drama".to_owned(), "{code}"),
            ("2024-02-29".to_owned(), "{date(day)}"),
            ("ab".to_owned(), "{trim(short)}"),
            ("ab  ".to_owned(), "{short}"),
            ("Movie:7".to_owned(), "Movie:{id}"),
            ("movies/17".to_owned(), "movies/{movie_id}"),
            (encode("[\"Movie\",7]"), "{base64(json('Movie', id))}"),
            (encode("[\"Movie\",\"7\"]"), "{base64(json('Movie', text(id)))}"),
            (encode("[\"movie_talents\",17,\"drama\"]"), "{base64(json('movie_talents', movie_id, code))}"),
            (encode("Movie:7"), "{base64(concat('Movie:', id))}"),
            (URL_SAFE_NO_PAD.encode("Movie:7"), "{base64url(concat('Movie:', id))}"),
        ] {
            let proposed = propose(&seen, &row(), true).expect(template);
            assert_eq!(proposed.to_string(), template);
            let value = |name: &str| row().into_iter().find(|(n, _)| n == name).map(|(_, value)| value);
            assert_eq!(proposed.render(value).as_deref(), Some(seen.as_str()), "{template}");
        }
        assert_eq!(propose("8", &row(), true), None);
        assert_eq!(propose(&encode("[\"Movie\",8]"), &row(), true), None);
    }

    #[test]
    fn ids_of_other_rows_show_their_form() {
        let row = &row()[..1];
        for (seen, template) in [
            (STANDARD.encode("[\"Movie\",\"99\"]"), "{base64(json('Movie', text(id)))}"),
            (STANDARD.encode("Movie:99"), "{base64(concat('Movie:', id))}"),
            ("Movie:99".to_owned(), "Movie:{id}"),
            ("2024-02-29".to_owned(), "{date(id)}"),
        ] {
            assert_eq!(propose(&seen, row, false).expect(template).to_string(), template);
        }
        assert_eq!(propose("99", row, false), None);
    }

    #[test]
    fn looks_are_told_apart() {
        assert_eq!(Look::of("-17"), Look::Number);
        assert_eq!(Look::of("1423f20b-57fb-4a0c-8fb5-0b0b0b0b0b0b"), Look::Uuid);
        assert_eq!(Look::of(&STANDARD.encode("[\"Movie\",7]")), Look::Global);
        assert_eq!(Look::of("Movie:7"), Look::Prefixed);
        assert_eq!(Look::of("2024-02-29"), Look::Date);
        assert_eq!(Look::of("drama"), Look::Other);
    }
}
