//! Functions that are WebAssembly components, as a pipeline's text names them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tributary_dsl::{ComponentLimits, Unusable};
use tributary_expression::function::Parameter;
use tributary_expression::{Function, Made, Signature, Type, Value};
use tributary_wasm::{Component, Limits};

/// Components that were compiled, by what is in their files: a text is read several times until all is known about it.
#[derive(Clone, Default)]
pub struct Components(Arc<Mutex<HashMap<(u64, ComponentLimits), Component>>>);

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Components").finish_non_exhaustive()
    }
}

impl Components {
    /// The function that a file is.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn function(&self, path: &Path, limits: ComponentLimits, signature: Signature) -> Result<Function, Unusable> {
        let bytes =
            std::fs::read(path).map_err(|e| Unusable { why: format!("{}: {e}", path.display()), remedy: None })?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let content = hasher.finish();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let component = match known.get(&(content, limits)) {
            Some(component) => component.clone(),
            None => {
                let ComponentLimits { deadline, memory } = limits;
                let component = Component::load(&bytes, Limits { deadline, memory })
                    .map_err(|e| Unusable { why: e.to_string(), remedy: e.remedy().map(str::to_owned) })?;
                known.insert((content, limits), component.clone());
                component
            }
        };
        let held = Held { parameters: signature.parameters().to_vec(), answers: signature.answer().clone() };
        let signature = signature.made_of(format!("{} ({content:016x}, {limits:?})", path.display()));
        Ok(signature.together(move |events| held.call(events, |events| component.call(events))))
    }
}

/// What a component is held to, which knows nothing of types: programs are checked by them.
struct Held {
    parameters: Vec<Parameter>,
    answers: Type,
}

impl Held {
    /// What it makes of events. Those whose arguments are none of its own are not shown to it.
    fn call(
        &self,
        events: &[Vec<Value>],
        call: impl Fn(&[&Vec<Value>]) -> Result<Vec<Made>, String>,
    ) -> Result<Vec<Made>, String> {
        let taken: Vec<Result<(), String>> = events.iter().map(|arguments| self.takes(arguments)).collect();
        let shown: Vec<&Vec<Value>> =
            events.iter().zip(&taken).filter(|(_, taken)| taken.is_ok()).map(|(event, _)| event).collect();
        let made = if shown.is_empty() { Vec::new() } else { call(&shown)? };
        if made.len() != shown.len() {
            return Err(format!("it was given {} events and made {} answers", shown.len(), made.len()));
        }
        let mut made = made.into_iter();
        let answers = taken.into_iter().map(|taken| {
            taken.and_then(|()| made.next().unwrap_or(Ok(Value::Null))).and_then(|value| self.answered(value))
        });
        Ok(answers.collect())
    }

    fn takes(&self, arguments: &[Value]) -> Result<(), String> {
        let other = self.parameters.iter().enumerate().find_map(|(place, parameter)| {
            let given = arguments.get(place).unwrap_or(&Value::Null);
            (!parameter.takes.holds(given)).then(|| (parameter, Type::of(given)))
        });
        match other {
            Some((parameter, given)) => {
                Err(format!("`{}` takes {}, and was given {given}", parameter.name, parameter.takes))
            }
            None => Ok(()),
        }
    }

    fn answered(&self, value: Value) -> Made {
        match self.answers.holds(&value) {
            true => Ok(value),
            false => Err(format!("it answered {}, and `answers` says {}", Type::of(&value), self.answers)),
        }
    }
}
