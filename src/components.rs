//! Functions that are WebAssembly components, as a pipeline's text names them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tributary_dsl::{ComponentLimits, Unusable};
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
        let answers = signature.answer().clone();
        let signature = signature.made_of(format!("{} ({content:016x}, {limits:?})", path.display()));
        Ok(signature.together(move |events| {
            Ok(component.call(events)?.into_iter().map(|made| held_to(&answers, made)).collect())
        }))
    }
}

/// An answer, if it is what the function was said to answer: programs are checked by that.
fn held_to(answers: &Type, made: Made) -> Made {
    let value: Value = made?;
    match answers.holds(&value) {
        true => Ok(value),
        false => Err(format!("it answered {}, and `answers` says {answers}", Type::of(&value))),
    }
}
