//! Functions as the language knows its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex, PoisonError};

use vrl::compiler::function::{ArgumentList, Compiled, Example, FunctionCompileContext};
use vrl::compiler::{
    Context, Expression, Function as LanguageFunction, FunctionExpression, Parameter as LanguageParameter, Resolved,
    TypeDef, TypeState,
};
use vrl::value::Value;

use super::{Function, Parameter};

/// The language wants names for ever. Each is kept once, however often a pipeline is read.
static NAMES: LazyLock<Mutex<BTreeSet<&'static str>>> = LazyLock::new(Mutex::default);
static DECLARED: LazyLock<Mutex<HashMap<String, &'static [LanguageParameter]>>> = LazyLock::new(Mutex::default);

/// A name and parameters that stay.
pub(super) fn lasting(name: &str, parameters: &[Parameter]) -> (&'static str, &'static [LanguageParameter]) {
    let mut declared = DECLARED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = declared.entry(format!("{parameters:?}")).or_insert_with(|| {
        let declare = |parameter: &Parameter| {
            let (kind, element_kind) = parameter.takes.bits();
            let (name, description) = (lasting_name(&parameter.name), "");
            let declared = match parameter.takes.takes_null() {
                true => LanguageParameter::optional(name, kind, description),
                false => LanguageParameter::required(name, kind, description),
            };
            declared.with_element_kind(element_kind)
        };
        Box::leak(parameters.iter().map(declare).collect())
    });
    (lasting_name(name), known)
}

fn lasting_name(name: &str) -> &'static str {
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

/// A function in the language's list of them.
#[derive(Debug, Clone)]
pub(super) struct Callable(pub Function);

impl LanguageFunction for Callable {
    fn identifier(&self) -> &'static str {
        self.0.name()
    }

    fn usage(&self) -> &'static str {
        "A function of the user."
    }

    fn category(&self) -> &'static str {
        "User"
    }

    fn return_kind(&self) -> u16 {
        self.0.answers().bits().0
    }

    fn examples(&self) -> &'static [Example] {
        &[]
    }

    fn parameters(&self) -> &'static [LanguageParameter] {
        self.0.0.declared
    }

    fn compile(&self, _: &TypeState, _: &mut FunctionCompileContext, arguments: ArgumentList) -> Compiled {
        let argument = |parameter: &LanguageParameter| arguments.optional(parameter.keyword);
        let arguments = self.0.0.declared.iter().map(argument).collect();
        Ok(Call { function: self.0.clone(), arguments }.as_expr())
    }
}

/// A call of a function in a program.
#[derive(Debug, Clone)]
struct Call {
    function: Function,
    arguments: Vec<Option<Box<dyn Expression>>>,
}

impl FunctionExpression for Call {
    fn resolve(&self, context: &mut Context) -> Resolved {
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for argument in &self.arguments {
            arguments.push(match argument {
                Some(argument) => argument.resolve(context)?,
                None => Value::Null,
            });
        }
        Ok(self.function.call_one(arguments)?)
    }

    fn type_def(&self, _: &TypeState) -> TypeDef {
        TypeDef::from(self.function.answers().0.clone()).maybe_fallible(self.function.can_fail())
    }
}
