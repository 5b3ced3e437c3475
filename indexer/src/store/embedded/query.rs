//! Queries in Lucene's syntax: parsed by tantivy's grammar, adapted to the index's fields, and built by its query parser.
//!
//! Adapted are: `*` and `?` within a word (a pattern over terms), numbers (a range over their column), dates of any precision
//! (`released:1979-05-25` is a day long, as on the servers), `field:*` of text and of objects, and a query of exclusions alone.
//! Unlike the servers, which find nothing, a field that the index does not have is an error.

use tantivy::Index;
use tantivy::query::{AllQuery, Occur, Query, QueryParser};
use tantivy::query_grammar::{self, Delimiter, UserInputAst, UserInputBound, UserInputLeaf, UserInputLiteral};
use tantivy::schema::{Field, FieldType, Schema};
use tributary_event::ErrorClass;

use super::{analyzers, dates};
use crate::documents::indexable::dates::span;
use crate::store::StoreError;

/// The query of a text.
pub(super) fn parse(index: &Index, text: &str) -> Result<Box<dyn Query>, StoreError> {
    let text = text.trim();
    if text.is_empty() || text == "*" {
        return Ok(Box::new(AllQuery));
    }
    let bad =
        |why: String| StoreError::new(ErrorClass::Definite, format!("the query `{text}` cannot be understood: {why}"));
    let ast = query_grammar::parse_query(text).map_err(|_| bad(place(text)))?;
    let schema = index.schema();
    let adapter = Adapter { defaults: default_fields(&schema), schema };
    let ast = adapter.adapt(ast).map_err(bad)?;
    let fields = adapter.defaults.iter().map(|(_, field)| *field).collect();
    let mut parser = QueryParser::for_index(index, fields);
    parser.allow_regexes();
    parser.build_query_from_user_input_ast(ast).map_err(|e| bad(e.to_string()))
}

/// Where and why a text is no query.
fn place(text: &str) -> String {
    let (_, errors) = query_grammar::parse_query_lenient(text);
    match errors.first() {
        Some(error) => format!("{} at character {}", error.message, error.pos + 1),
        None => "a bracket or a quotation mark is missing, or a word like AND stands alone".to_owned(),
    }
}

/// What a query without a field name is asked of: text and exact values.
fn default_fields(schema: &Schema) -> Vec<(String, Field)> {
    let fields = schema.fields().filter(|(_, entry)| {
        let name = entry.name();
        let is_raw = name.strip_suffix(".raw").is_some_and(|text| schema.get_field(text).is_ok());
        matches!(entry.field_type(), FieldType::Str(_)) && !name.starts_with('_') && !is_raw
    });
    fields.map(|(field, entry)| (entry.name().to_owned(), field)).collect()
}

struct Adapter {
    schema: Schema,
    defaults: Vec<(String, Field)>,
}

impl Adapter {
    fn adapt(&self, ast: UserInputAst) -> Result<UserInputAst, String> {
        Ok(match ast {
            UserInputAst::Clause(clauses) => {
                let adapt = |(occur, ast)| Ok::<_, String>((occur, self.adapt(ast)?));
                let mut clauses = clauses.into_iter().map(adapt).collect::<Result<Vec<_>, _>>()?;
                let exclusions = clauses.iter().filter(|(occur, _)| *occur == Some(Occur::MustNot)).count();
                if exclusions > 0 && exclusions == clauses.len() {
                    clauses.push((Some(Occur::Must), UserInputLeaf::All.into()));
                }
                UserInputAst::Clause(clauses)
            }
            UserInputAst::Boost(ast, by) => UserInputAst::Boost(Box::new(self.adapt(*ast)?), by),
            UserInputAst::Leaf(leaf) => self.leaf(*leaf)?,
        })
    }

    fn leaf(&self, leaf: UserInputLeaf) -> Result<UserInputAst, String> {
        Ok(match leaf {
            UserInputLeaf::Literal(literal) => return self.literal(literal),
            UserInputLeaf::Range { field: Some(name), lower, upper } if self.is_date(&name)? => {
                let lower = date_bound(lower, false)?;
                let upper = date_bound(upper, true)?;
                UserInputLeaf::Range { field: Some(name), lower, upper }.into()
            }
            UserInputLeaf::Set { field: Some(name), elements } if self.is_column(&name)? => {
                let one = |text: String| {
                    self.literal(UserInputLiteral {
                        field_name: Some(name.clone()),
                        phrase: text,
                        delimiter: Delimiter::None,
                        slop: 0,
                        prefix: false,
                    })
                };
                any(elements.into_iter().map(one).collect::<Result<_, _>>()?)
            }
            UserInputLeaf::Exists { field } => return self.exists(&field),
            UserInputLeaf::Range { field: Some(ref name), .. }
            | UserInputLeaf::Set { field: Some(ref name), .. }
            | UserInputLeaf::Regex { field: Some(ref name), .. } => {
                self.field_type(name)?;
                leaf.into()
            }
            other => other.into(),
        })
    }

    fn literal(&self, literal: UserInputLiteral) -> Result<UserInputAst, String> {
        let word = literal.delimiter == Delimiter::None;
        let pattern = word && literal.phrase.contains(['*', '?']);
        let Some(name) = &literal.field_name else {
            if !pattern {
                return Ok(UserInputLeaf::from(literal).into());
            }
            let each = self.defaults.iter().map(|(name, _)| self.pattern(name, &literal.phrase));
            return Ok(any(each.collect::<Result<_, _>>()?));
        };
        match self.field_type(name)? {
            FieldType::Date(_) => {
                let (first, last) = span(&literal.phrase).ok_or_else(|| no_date(&literal.phrase))?;
                let bound = |moment| {
                    dates::bound(moment).map(UserInputBound::Inclusive).ok_or_else(|| no_date(&literal.phrase))
                };
                let (lower, upper) = (bound(first)?, bound(last)?);
                Ok(UserInputLeaf::Range { field: Some(name.clone()), lower, upper }.into())
            }
            FieldType::Str(_) if pattern => self.pattern(name, &literal.phrase),
            FieldType::I64(_) | FieldType::U64(_) | FieldType::F64(_) => {
                let bound = UserInputBound::Inclusive(literal.phrase);
                Ok(UserInputLeaf::Range { field: Some(name.clone()), lower: bound.clone(), upper: bound }.into())
            }
            FieldType::Bytes(_) => Err(format!("field `{name}` is not searchable")),
            _ => Ok(UserInputLeaf::from(literal).into()),
        }
    }

    /// `ali*` as a regular expression over the terms of a field; those of analyzed text are in lower case.
    fn pattern(&self, name: &str, text: &str) -> Result<UserInputAst, String> {
        let exact = match self.field_type(name)? {
            FieldType::Str(options) => {
                options.get_indexing_options().is_some_and(|o| o.tokenizer() == analyzers::EXACT)
            }
            _ => true,
        };
        let text = if exact { text.to_owned() } else { text.to_lowercase() };
        let mut pattern = String::new();
        for c in text.chars() {
            match c {
                '*' => pattern.push_str(".*"),
                '?' => pattern.push('.'),
                c if c.is_alphanumeric() || c.is_whitespace() => pattern.push(c),
                c => pattern.extend(['\\', c]),
            }
        }
        Ok(UserInputLeaf::Regex { field: Some(name.to_owned()), pattern }.into())
    }

    /// `field:*`: text is asked of its exact values, an object of its members.
    fn exists(&self, name: &str) -> Result<UserInputAst, String> {
        let one = |field: String| UserInputAst::from(UserInputLeaf::Exists { field });
        let raw = format!("{name}.raw");
        if self.schema.get_field(&raw).is_ok() {
            return Ok(one(raw));
        }
        let within = format!("{name}.");
        let members: Vec<UserInputAst> = self
            .schema
            .fields()
            .filter(|(_, entry)| entry.name().starts_with(&within) && entry.is_fast())
            .map(|(_, entry)| one(entry.name().to_owned()))
            .collect();
        if !members.is_empty() {
            return Ok(any(members));
        }
        self.field_type(name)?;
        Ok(one(name.to_owned()))
    }

    fn is_date(&self, name: &str) -> Result<bool, String> {
        Ok(matches!(self.field_type(name)?, FieldType::Date(_)))
    }

    /// Whether values are in a column alone, without a dictionary.
    fn is_column(&self, name: &str) -> Result<bool, String> {
        let kind = self.field_type(name)?;
        Ok(!matches!(kind, FieldType::Str(_) | FieldType::JsonObject(_)))
    }

    fn field_type(&self, name: &str) -> Result<&FieldType, String> {
        let found = self.schema.find_field(name).map(|(field, rest)| (self.schema.get_field_entry(field), rest));
        match found {
            Some((entry, rest)) if rest.is_empty() || matches!(entry.field_type(), FieldType::JsonObject(_)) => {
                Ok(entry.field_type())
            }
            _ => {
                let names = self.schema.fields().map(|(_, entry)| entry.name()).filter(|name| !name.starts_with('_'));
                Err(format!("there is no field `{name}`; there are {}", names.collect::<Vec<_>>().join(", ")))
            }
        }
    }
}

fn any(mut of: Vec<UserInputAst>) -> UserInputAst {
    match (of.len(), of.pop()) {
        (1, Some(one)) => one,
        (_, last) => UserInputAst::Clause(of.into_iter().chain(last).map(|ast| (Some(Occur::Should), ast)).collect()),
    }
}

fn no_date(text: &str) -> String {
    format!("`{text}` is no date: write 1979, 1979-05, 1979-05-25 or 1979-05-25T18:00:00Z")
}

/// Bounds take in, or leave out, the whole of what their text names.
fn date_bound(bound: UserInputBound, upper: bool) -> Result<UserInputBound, String> {
    let moment = |text: &str, last: bool| {
        let (first, end) = span(text).ok_or_else(|| no_date(text))?;
        dates::bound(if last { end } else { first }).ok_or_else(|| no_date(text))
    };
    Ok(match bound {
        UserInputBound::Inclusive(text) if text != "*" => UserInputBound::Inclusive(moment(&text, upper)?),
        UserInputBound::Exclusive(text) if text != "*" => UserInputBound::Exclusive(moment(&text, !upper)?),
        other => other,
    })
}
