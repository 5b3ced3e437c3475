//! Steps that ask somebody: a service, or a table.

use bytes::Bytes;
use tributary_dsl::plan::{Missing, Step, StepPlan, Wait};
use tributary_expression::{Value, json};

use super::waits::wait_for;
use super::{Steps, Traveller, traced};
use crate::outside::{Answer, Enricher, OutsideError};

impl Steps {
    /// Asks a service, or a table, for the keys of all events together.
    pub(super) async fn enrich(
        &self,
        step: &Step,
        enricher: &dyn Enricher,
        travellers: &mut [Traveller],
    ) -> Result<(), OutsideError> {
        let (who, key, into, missing) = match &step.plan {
            StepPlan::Enrich(plan) => (&plan.service, &plan.key, &plan.into, plan.missing),
            StepPlan::Lookup(plan) => (&plan.table, &plan.key, &plan.into, plan.missing),
            _ => return Ok(()),
        };
        let span = traced::step(travellers);
        let mut keys: Vec<Bytes> = Vec::new();
        let mut asked: Vec<Vec<Option<usize>>> = Vec::with_capacity(travellers.len());
        for traveller in travellers.iter_mut() {
            let mut of_this = Vec::new();
            if let Ok(events) = &mut traveller.events {
                let mut failed = None;
                for event in events {
                    match self.call(step, key, &mut event.flow) {
                        // Nobody knows anything of null.
                        Ok(Value::Null) => of_this.push(None),
                        Ok(key) => {
                            let mut text = Vec::new();
                            json::write(&key, &mut text);
                            of_this.push(Some(keys.len()));
                            keys.push(text.into());
                        }
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                if let Some(error) = failed {
                    keys.truncate(of_this.iter().flatten().next().copied().unwrap_or(keys.len()));
                    traveller.events = Err(error);
                    of_this.clear();
                }
            }
            asked.push(of_this);
        }
        if matches!(&step.plan, StepPlan::Lookup(plan) if plan.wait == Wait::Position) && !keys.is_empty() {
            wait_for(enricher, travellers).await?;
        }
        let answers = if keys.is_empty() { Vec::new() } else { enricher.ask_within(&keys, span).await? };
        for (traveller, asked) in travellers.iter_mut().zip(asked) {
            let Ok(events) = &mut traveller.events else { continue };
            let mut made = Vec::with_capacity(events.len());
            let mut failed = None;
            for (mut event, place) in std::mem::take(events).into_iter().zip(asked) {
                let answer = place.and_then(|place| answers.get(place)).unwrap_or(&Answer::Missing);
                let found = match answer {
                    Answer::Found(answer) => {
                        json::read(answer).map(Some).map_err(|e| self.error(step, format!("the answer of {who}: {e}")))
                    }
                    Answer::Failed(why) => Err(self.error(step, why.clone())),
                    Answer::Missing => match missing {
                        Missing::Keep => Ok(Some(Value::Null)),
                        Missing::Drop => Ok(None),
                        Missing::Error => {
                            let key = place.and_then(|place| keys.get(place)).map(|key| String::from_utf8_lossy(key));
                            let key = key.unwrap_or_else(|| "null".into());
                            Err(self.error(step, format!("{who} does not know the key {key}")))
                        }
                    },
                };
                match found {
                    Ok(None) => {}
                    Ok(Some(value)) => {
                        into.put(&mut event.flow.event, value);
                        event.is_new = true;
                        made.push(event);
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            traveller.events = failed.map_or(Ok(made), Err);
        }
        Ok(())
    }
}
