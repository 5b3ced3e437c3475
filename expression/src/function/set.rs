//! The functions that programs and steps of a pipeline may call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use vrl::compiler::Function as LanguageFunction;

use super::Function;
use super::language::Callable;
use crate::clock::Now;

/// Words that the language keeps for itself.
const KEPT: [&str; 23] = [
    "abort", "as", "break", "continue", "else", "false", "fn", "for", "if", "impl", "in", "let", "loop", "null",
    "return", "self", "std", "then", "this", "true", "type", "until", "while",
];

static OF_THE_LANGUAGE: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| vrl::stdlib::all().iter().map(|function| function.identifier()).collect());

/// Functions, by their names.
#[derive(Clone, Default)]
pub struct FunctionSet(BTreeMap<&'static str, Function>);

/// Why a function cannot be among others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FunctionError {
    /// Programs could not name it.
    #[error(
        "`{0}` is no name of a function: lower case letters, digits and `_`, and no word that VRL keeps for itself"
    )]
    Name(String),
    /// The language has it.
    #[error("VRL has a function `{0}`: give this one another name")]
    OfTheLanguage(String),
    /// There is another one.
    #[error("there are two functions `{0}`: give one of the two another name")]
    Twice(String),
}

impl fmt::Debug for FunctionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values()).finish()
    }
}

impl FunctionSet {
    /// Adds a function.
    ///
    /// # Errors
    /// Its name will not do.
    pub fn add(&mut self, function: Function) -> Result<(), FunctionError> {
        let name = function.name();
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.chars().all(legal)
            || name.starts_with(|c: char| c.is_ascii_digit())
            || name.is_empty()
            || KEPT.contains(&name)
        {
            return Err(FunctionError::Name(name.to_owned()));
        }
        if OF_THE_LANGUAGE.contains(&name) {
            return Err(FunctionError::OfTheLanguage(name.to_owned()));
        }
        if self.0.contains_key(name) {
            return Err(FunctionError::Twice(name.to_owned()));
        }
        self.0.insert(name, function);
        Ok(())
    }

    /// These, and others, which hold where both have a name.
    pub fn and(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().map(|(name, function)| (*name, function.clone())));
        self
    }

    /// The function of a name.
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.0.get(name)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Function> {
        self.0.values()
    }

    /// The language's own, and these.
    pub(crate) fn with_those_of_the_language(&self) -> Vec<Box<dyn LanguageFunction>> {
        let mut all = vrl::stdlib::all();
        all.retain(|function| function.identifier() != Now.identifier());
        all.push(Box::new(Now));
        all.extend(self.0.values().map(|function| Box::new(Callable(function.clone())) as Box<dyn LanguageFunction>));
        all
    }
}
