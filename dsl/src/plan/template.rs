//! Id templates such as `{movie_id}` or `{tenant}/{number}`.

/// Text with columns in braces. `{{` and `}}` are braces themselves. A column whose name has a brace or a quote in it is
/// quoted as in SQL: `{"odd}column"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Column(String),
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
}

impl IdTemplate {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '{' if chars.next_if(|(_, n)| *n == '{').is_some() => literal.push('{'),
                '}' if chars.next_if(|(_, n)| *n == '}').is_some() => literal.push('}'),
                '}' => return Err(TemplateError::Unopened(at)),
                '{' => {
                    while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
                    let name = match chars.next_if(|(_, c)| *c == '"') {
                        Some(_) => quoted(&mut chars).ok_or(TemplateError::Quotes(at))?,
                        None => bare(&mut chars).ok_or(TemplateError::Unclosed(at))?,
                    };
                    if name.is_empty() {
                        return Err(TemplateError::Empty(at));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Column(name));
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if !parts.iter().any(|p| matches!(p, Part::Column(_))) {
            return Err(TemplateError::NoColumn);
        }
        Ok(Self(parts))
    }

    /// The columns it names, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|p| match p {
            Part::Column(name) => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The id for a row; `None` if one of its columns is null or absent there.
    pub fn render(&self, column: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Column(name) => out.push_str(&column(name)?),
            }
        }
        Some(out)
    }
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

/// A column's name up to its brace.
fn bare(chars: &mut Chars<'_>) -> Option<String> {
    let mut name = String::new();
    loop {
        match chars.next()?.1 {
            '}' => return Some(name.trim().to_owned()),
            c => name.push(c),
        }
    }
}

/// A column's name up to its quote, and the brace behind it.
fn quoted(chars: &mut Chars<'_>) -> Option<String> {
    let mut name = String::new();
    loop {
        match chars.next()?.1 {
            '"' if chars.next_if(|(_, c)| *c == '"').is_some() => name.push('"'),
            '"' => break,
            c => name.push(c),
        }
    }
    while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
    chars.next_if(|(_, c)| *c == '}').map(|_| name)
}

impl std::fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Column(name) if name.contains(['{', '}', '"']) || name.trim() != name => {
                    write!(f, "{{\"{}\"}}", name.replace('"', "\"\""))?;
                }
                Part::Column(name) => write!(f, "{{{name}}}")?,
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
        let row = |name: &str| Some(name.to_uppercase());
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

    proptest! {
        #[test]
        fn any_column_can_be_named_and_what_is_printed_is_read_again(
            columns in prop::collection::vec("[{}\" a.]{1,5}", 1..4),
            literal in "[{}\" /a]{0,4}",
        ) {
            let mut parts = Vec::new();
            for column in &columns {
                parts.push(Part::Column(column.clone()));
                if !literal.is_empty() {
                    parts.push(Part::Literal(literal.clone()));
                }
            }
            let template = IdTemplate(parts);
            prop_assert_eq!(IdTemplate::parse(&template.to_string()), Ok(template));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[{}\" a]{0,12}") {
            if let Ok(template) = IdTemplate::parse(&text) {
                prop_assert_eq!(IdTemplate::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
