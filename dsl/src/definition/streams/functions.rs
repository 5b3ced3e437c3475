//! `functions:`: WebAssembly components that steps and programs of streams call.

use std::collections::BTreeMap;

use tributary_expression::{Signature, Type};

use crate::ComponentLimits;
use crate::keys::FUNCTIONS;
use crate::keys::streams::functions::{self as key, ValueType};
use crate::yaml::{Map, Reader};

/// Adds the components of a pipeline to what programs may call; what a call of each may take.
pub(in crate::definition) fn read(r: &mut Reader, pipeline: &Map) -> BTreeMap<String, ComponentLimits> {
    let mut components = BTreeMap::new();
    let Some(entries) = r.optional(pipeline, &FUNCTIONS) else { return components };
    for entry in entries.entries() {
        let example = "{ wasm: score.wasm, takes: { price: number }, answers: number }";
        let Some(map) = r.entry(&entries, entry, &&key::FUNCTION, example) else { continue };
        let file = r.required(&map, &key::WASM);
        let answers = r.optional(&map, &key::ANSWERS);
        let limits = ComponentLimits { deadline: r.value(&map, &key::DEADLINE), memory: r.value(&map, &key::MEMORY) };
        let mut signature = Signature::new(entry.0.name.as_str());
        let mut is_right = answers.is_some() || map.node(&key::ANSWERS).is_none();
        if let Some(parameters) = r.optional(&map, &key::TAKES) {
            for parameter in parameters.entries() {
                match r.entry(&parameters, parameter, &ValueType, "number") {
                    Some(takes) => signature = signature.parameter(parameter.0.name.as_str(), takes),
                    None => is_right = false,
                }
            }
        } else {
            is_right &= map.node(&key::TAKES).is_none();
        }
        let signature = signature.answers(answers.unwrap_or_else(Type::any), true);
        let Some(file) = file.filter(|_| is_right) else { continue };
        let function = r.inputs.component(&file.value, limits, signature.clone()).unwrap_or_else(|unusable| {
            let message = format!("`{}` cannot be called: {}", file.shown, unusable.why);
            r.found.push(file.spot.error(message).maybe_help(unusable.remedy));
            // What calls it is right all the same.
            signature.each(|_| Err("it cannot be called".to_owned()))
        });
        if let Err(problem) = r.functions.add(function) {
            r.error(entry.0.place, problem.to_string(), None);
        }
        components.insert(entry.0.name.clone(), limits);
    }
    components
}
