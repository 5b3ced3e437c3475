//! Reads templates.

use std::iter::Peekable;
use std::str::CharIndices;

use super::expression::{Expression, Function};
use super::{IdTemplate, Part, TemplateError};

type Chars<'a> = Peekable<CharIndices<'a>>;

/// Functions inside of one another, at most.
const MAX_DEPTH: usize = 20;

pub(super) fn template(text: &str) -> Result<IdTemplate, TemplateError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '{' if chars.next_if(|(_, n)| *n == '{').is_some() => literal.push('{'),
            '}' if chars.next_if(|(_, n)| *n == '}').is_some() => literal.push('}'),
            '}' => return Err(TemplateError::Unopened(at)),
            '{' => {
                let value = braces(text, at, &mut chars)?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Value(value));
            }
            c => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal));
    }
    let template = IdTemplate(parts);
    if template.columns().next().is_none() { Err(TemplateError::NoColumn) } else { Ok(template) }
}

/// What stands in braces, of which the first was read.
fn braces(text: &str, at: usize, chars: &mut Chars<'_>) -> Result<Expression, TemplateError> {
    blanks(chars);
    if chars.next_if(|(_, c)| *c == '"').is_some() {
        let name = quoted('"', chars).ok_or(TemplateError::Quotes(at))?;
        blanks(chars);
        chars.next_if(|(_, c)| *c == '}').ok_or(TemplateError::Quotes(at))?;
        return if name.is_empty() { Err(TemplateError::Empty(at)) } else { Ok(Expression::Column(name)) };
    }
    let Some((start, _)) = chars.peek().copied() else { return Err(TemplateError::Unclosed(at)) };
    let rest = &text[start..];
    let end = rest.find(['}', '(']).ok_or(TemplateError::Unclosed(at))?;
    if rest[end..].starts_with('(') {
        let value = argument(text, chars, 0)?;
        blanks(chars);
        return match chars.next() {
            Some((_, '}')) => Ok(value),
            Some((at, _)) => Err(TemplateError::Expected { at, expected: "`}`" }),
            None => Err(TemplateError::Unclosed(at)),
        };
    }
    while chars.next_if(|(_, c)| *c != '}').is_some() {}
    chars.next();
    let name = rest[..end].trim();
    if name.is_empty() { Err(TemplateError::Empty(at)) } else { Ok(Expression::Column(name.to_owned())) }
}

/// A column, a text, or a function with its arguments.
fn argument(text: &str, chars: &mut Chars<'_>, depth: usize) -> Result<Expression, TemplateError> {
    blanks(chars);
    let at = chars.peek().map_or(text.len(), |(at, _)| *at);
    if depth > MAX_DEPTH {
        return Err(TemplateError::Expected { at, expected: "fewer functions inside of one another" });
    }
    if chars.next_if(|(_, c)| *c == '"').is_some() {
        let name = quoted('"', chars).filter(|name| !name.is_empty());
        return name.map(Expression::Column).ok_or(TemplateError::Quotes(at));
    }
    if chars.next_if(|(_, c)| *c == '\'').is_some() {
        let expected = "the end of the text in quotes";
        let text = quoted('\'', chars).ok_or(TemplateError::Expected { at: text.len(), expected })?;
        return Ok(Expression::Text(text));
    }
    let mut name = String::new();
    while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() || "_.-$".contains(*c)) {
        name.push(c);
    }
    if name.is_empty() {
        return Err(TemplateError::Expected { at, expected: "a column, a text in single quotes or a function" });
    }
    blanks(chars);
    if chars.next_if(|(_, c)| *c == '(').is_none() {
        return Ok(Expression::Column(name));
    }
    let Some(function) = Function::named(&name) else { return Err(TemplateError::UnknownFunction { name, at }) };
    let mut arguments = Vec::new();
    blanks(chars);
    if chars.next_if(|(_, c)| *c == ')').is_none() {
        loop {
            arguments.push(argument(text, chars, depth + 1)?);
            blanks(chars);
            match chars.next() {
                Some((_, ')')) => break,
                Some((_, ',')) => {}
                other => {
                    let at = other.map_or(text.len(), |(at, _)| at);
                    return Err(TemplateError::Expected { at, expected: "a comma or `)`" });
                }
            }
        }
    }
    match function.refuses(arguments.len()) {
        Some(takes) => Err(TemplateError::Arguments { name: function.name(), at, takes }),
        None => Ok(Expression::Call(function, arguments)),
    }
}

fn blanks(chars: &mut Chars<'_>) {
    while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {}
}

/// What stands in quotes, of which the first was read. A quote itself is written twice.
fn quoted(quote: char, chars: &mut Chars<'_>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()?.1 {
            c if c == quote && chars.next_if(|(_, c)| *c == quote).is_some() => text.push(quote),
            c if c == quote => return Some(text),
            c => text.push(c),
        }
    }
}
