//! What services answer in a case, and what tables have.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use tributary_processor::{Answer, Enricher, OutsideError};

/// What a service answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// What it knows, by key.
    #[serde(default)]
    found: BTreeMap<String, Json>,
    /// What it does not know.
    #[serde(default)]
    missing: Vec<Json>,
    /// What it fails for, by key, and why.
    #[serde(default)]
    failed: BTreeMap<String, String>,
    /// Why it does not answer at all.
    #[serde(default)]
    away: Option<String>,
}

/// A service in a case.
#[derive(Debug)]
pub(super) struct Answers {
    service: String,
    given: Given,
    unanswered: Mutex<Vec<String>>,
}

impl Answers {
    pub fn new(service: &str, given: Option<&Given>) -> Self {
        Self { service: service.to_owned(), given: given.cloned().unwrap_or_default(), unanswered: Mutex::default() }
    }

    /// What it was asked for and the case does not say, as it is to be filled in.
    pub fn unanswered(&self) -> Option<String> {
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.is_empty() {
            return None;
        }
        let found: Vec<String> = unanswered.iter().map(|key| format!("{key}: {{}}")).collect();
        Some(format!(
            "`{}` was asked for what the case does not answer; add:\ngiven:\n  {}: {{ found: {{ {} }} }}",
            self.service,
            self.service,
            found.join(", ")
        ))
    }
}

/// A key as cases write it: text as it is, anything else as JSON.
fn written(key: &Bytes) -> String {
    match serde_json::from_slice::<Json>(key) {
        Ok(Json::String(text)) => text,
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

#[async_trait]
impl Enricher for Answers {
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError> {
        if let Some(why) = &self.given.away {
            return Err(OutsideError::transient(why.clone()));
        }
        let is_missing = |key: &str| {
            self.given.missing.iter().any(|missing| match missing {
                Json::String(text) => text == key,
                other => {
                    let text = other.to_string();
                    text == key
                }
            })
        };
        let mut answers = Vec::with_capacity(keys.len());
        for key in keys.iter().map(written) {
            if let Some(found) = self.given.found.get(&key) {
                answers.push(Answer::Found(found.to_string().into()));
            } else if let Some(why) = self.given.failed.get(&key) {
                answers.push(Answer::Failed(why.clone()));
            } else if is_missing(&key) {
                answers.push(Answer::Missing);
            } else {
                let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
                if !unanswered.contains(&key) {
                    unanswered.push(key);
                }
            }
        }
        if answers.len() < keys.len() {
            return Err(OutsideError::fatal(format!("the case does not say what {} answers", self.service)));
        }
        Ok(answers)
    }
}
