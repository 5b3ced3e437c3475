//! The GraphQL text of an index: one operation, its fragments, and where each stands.

mod collect;
mod directives;
mod leaf;
mod merge;
mod partial;
mod print;
mod resolve;
mod root;
mod values;

pub(crate) use leaf::{Scalars, is_known, sent_as};
pub(crate) use partial::{Part, can_be_cut, is_paging};
pub(crate) use resolve::{EdgeSite, Resolved, resolve};
pub(crate) use values::{Constants, Variables, check_arguments, unused_variables};

use std::sync::Arc;

use async_graphql_parser::types::{ExecutableDocument, OperationDefinition, OperationType};
use async_graphql_parser::{Error as GraphqlError, Pos, Positioned, parse_query};

use crate::diagnostic::{Diagnostic, Spot};
use crate::text::SourceText;

/// Braces, brackets and parentheses inside of one another, at most: the parser recurses.
const MAX_DEPTH: usize = 60;

/// A GraphQL file with one query.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub text: Arc<SourceText>,
    pub parsed: ExecutableDocument,
}

impl Document {
    /// Parses a file. It has exactly one operation, and that is a query.
    pub fn parse(file: &str, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let shown = Arc::new(SourceText::plain(file, text));
        guard_depth(&shown, text)?;
        let parsed = parse_query(text).map_err(|e| vec![syntax(&shown, &e)])?;
        let document = Self { text: shown, parsed };
        let mut operations: Vec<_> = document.parsed.operations.iter().map(|(_, operation)| operation).collect();
        operations.sort_by_key(|operation| operation.pos);
        let mut found = Vec::new();
        for extra in operations.iter().skip(1) {
            let spot = document.spot(extra.pos, 1);
            found.push(
                spot.error("a second operation in the file").help("an index has one query, in a file of its own"),
            );
        }
        for operation in operations.iter().take(1).filter(|o| o.node.ty != OperationType::Query) {
            let message = format!("an index needs a query, not a {}", operation.node.ty);
            found.push(document.spot(operation.pos, operation.node.ty.to_string().len()).error(message));
        }
        if found.is_empty() { Ok(document) } else { Err(found) }
    }

    /// The query and its name, if it has one.
    pub fn operation(&self) -> Option<(Option<&str>, &Positioned<OperationDefinition>)> {
        self.parsed.operations.iter().next().map(|(name, operation)| (name.map(|name| name.as_str()), operation))
    }

    pub fn spot(&self, pos: Pos, length: usize) -> Spot {
        Spot::new(&self.text, pos.line, pos.column, length)
    }

    /// The place of a name.
    pub fn name_spot<T: AsRef<str>>(&self, name: &Positioned<T>) -> Spot {
        self.spot(name.pos, name.node.as_ref().chars().count())
    }
}

/// Refuses text that would be nested too deeply for a recursive parser.
pub(crate) fn guard_depth(shown: &Arc<SourceText>, text: &str) -> Result<(), Vec<Diagnostic>> {
    let (mut line, mut column, mut depth) = (1, 1, 0_usize);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => string_length(rest),
            _ => c.len_utf8(),
        };
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            let spot = Spot::new(shown, line, column, 1);
            return Err(vec![spot.error(format!("more than {MAX_DEPTH} levels inside of one another"))]);
        }
        for c in rest[..skipped].chars() {
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        rest = &rest[skipped..];
    }
    Ok(())
}

/// Bytes of the string that a text starts with; the quote alone where it is never closed.
fn string_length(text: &str) -> usize {
    if let Some(block) = text.strip_prefix("\"\"\"") {
        let mut from = 0;
        while let Some(at) = block[from..].find("\"\"\"").map(|at| at + from) {
            if !block[..at].ends_with('\\') {
                return at + 6;
            }
            from = at + 3;
        }
        return 3;
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => break,
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    1
}

/// A syntax error of the GraphQL parser in our form.
pub(crate) fn syntax(shown: &Arc<SourceText>, error: &GraphqlError) -> Diagnostic {
    let pos = error.positions().next().unwrap_or(Pos { line: 1, column: 1 });
    let spot = Spot::new(shown, pos.line, pos.column, 1);
    match error {
        GraphqlError::Syntax { message, .. } => {
            // The parser's message ends with a line "= expected a, b, or c", naming the rules of its grammar.
            let expected = message.rsplit("= ").next().map(str::trim).filter(|text| text.starts_with("expected "));
            let help = expected.map(|text| text.replace('_', " ").replace("EOI", "the end of the file"));
            spot.error("this is no GraphQL").maybe_help(help)
        }
        GraphqlError::MissingOperation => spot.error("the file has no query"),
        other => spot.error(other.to_string()),
    }
}
