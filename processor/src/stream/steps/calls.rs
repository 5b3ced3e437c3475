//! Steps that call a function of the user: once for the events of all records together, apart from the loop that others share.

use std::panic::resume_unwind;

use tributary_dsl::plan::{FunctionPlan, Step};
use tributary_expression::{Made, Value};

use super::{Steps, Traveller};
use crate::outside::OutsideError;

impl Steps {
    /// Calls a function for all events. What it fails for is the step's failure for that event alone.
    ///
    /// # Errors
    /// This process is ending.
    pub(super) async fn call_function(
        &self,
        step: &Step,
        plan: &FunctionPlan,
        travellers: &mut [Traveller],
    ) -> Result<(), OutsideError> {
        let mut calls: Vec<Vec<Value>> = Vec::new();
        for traveller in travellers.iter_mut() {
            let Ok(events) = &mut traveller.events else { continue };
            let begun = calls.len();
            let mut failed = None;
            for event in events {
                let arguments = plan.with.iter().map(|program| self.call(step, program, &mut event.flow));
                match arguments.collect() {
                    Ok(arguments) => calls.push(arguments),
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            if let Some(error) = failed {
                calls.truncate(begun);
                traveller.events = Err(error);
            }
        }
        if calls.is_empty() {
            return Ok(());
        }
        // It may take its time, and others share this thread.
        let function = plan.function.clone();
        let mut made = match tokio::task::spawn_blocking(move || function.call(&calls)).await {
            Ok(made) => made.into_iter(),
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => return Err(OutsideError::transient(format!("{}: the process is ending", step.name))),
        };
        for traveller in travellers {
            let Ok(events) = &mut traveller.events else { continue };
            let mut failed = None;
            for event in events {
                // There is one for each.
                let answer = made.next().unwrap_or_else(|| Err("it answered nothing".to_owned()));
                match answer.and_then(|value| fitting(plan, value)) {
                    Ok(value) => {
                        plan.into.put(&mut event.flow.event, value);
                        event.is_new = true;
                    }
                    // Those of its other events are taken all the same, so that each gets its own.
                    Err(why) => {
                        failed = failed.or_else(|| Some(self.error(step, format!("{}: {why}", plan.function.name()))))
                    }
                }
            }
            if let Some(error) = failed {
                traveller.events = Err(error);
            }
        }
        Ok(())
    }
}

/// What takes an event's place has fields.
fn fitting(plan: &FunctionPlan, value: Value) -> Made {
    if plan.into.is_root() && !matches!(value, Value::Object(_)) {
        return Err(format!("it answered {}, which cannot take the event's place", value.kind()));
    }
    Ok(value)
}
