//! Id templates such as `{movie_id}` or `{tenant}/{number}`.

/// Text with columns in braces. `{{` and `}}` are braces themselves.
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
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some((_, '}')) => break,
                            Some((_, c)) => name.push(c),
                            None => return Err(TemplateError::Unclosed(at)),
                        }
                    }
                    if name.trim().is_empty() {
                        return Err(TemplateError::Empty(at));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Column(name.trim().to_owned()));
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

impl std::fmt::Display for IdTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in &self.0 {
            match part {
                Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Column(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
