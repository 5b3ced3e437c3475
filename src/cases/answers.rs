//! What services answer in a case, and what tables have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use tributary_processor::{Answer, Enricher, OutsideError};
use tributary_services::{Asked, Instead, StandIn};

use super::trouble::{Trouble, Troubles};

/// What a service answers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    /// What it knows, by key.
    #[serde(default)]
    pub found: BTreeMap<String, Json>,
    /// What it does not know.
    #[serde(default)]
    pub missing: Vec<Json>,
    /// What it fails for, by key, and why.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
    /// Why it does not answer at all.
    #[serde(default)]
    away: Option<String>,
    /// What is wrong with it before, one after the other.
    #[serde(default)]
    pub trouble: Vec<Trouble>,
}

impl Given {
    /// What it says of a key; none: nothing.
    fn answer(&self, key: &str) -> Option<Answer> {
        let is_missing = |missing: &Json| match missing {
            Json::String(text) => text == key,
            other => {
                let text = other.to_string();
                text == key
            }
        };
        if let Some(found) = self.found.get(key) {
            return Some(Answer::Found(found.to_string().into()));
        }
        if let Some(why) = self.failed.get(key) {
            return Some(Answer::Failed(why.clone()));
        }
        self.missing.iter().any(is_missing).then_some(Answer::Missing)
    }
}

/// A service or a table in a case.
#[derive(Debug)]
pub(super) struct Answers {
    name: String,
    given: Given,
    troubles: Troubles,
    heard: Mutex<Heard>,
}

/// What it was asked.
#[derive(Debug, Default)]
struct Heard {
    /// The keys of each request.
    calls: Vec<Vec<String>>,
    /// What the case does not answer.
    unanswered: BTreeSet<String>,
}

impl Answers {
    pub fn new(name: &str, given: Option<&Given>) -> Self {
        let given = given.cloned().unwrap_or_default();
        Self { name: name.to_owned(), troubles: Troubles::new(&given.trouble), given, heard: Mutex::default() }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys that it was asked for and the case does not answer.
    pub fn unanswered(&self) -> Vec<String> {
        self.heard().unanswered.iter().cloned().collect()
    }

    /// Whether something is wrong with it that will pass.
    pub fn will_pass(&self) -> bool {
        self.troubles.will_pass()
    }

    /// The keys of each request.
    pub fn calls(&self) -> Vec<Vec<String>> {
        self.heard().calls.clone()
    }

    /// The answer of each key; none: the case does not say some.
    fn answers(&self, keys: &[Bytes]) -> Option<Vec<Answer>> {
        let keys: Vec<String> = keys.iter().map(written).collect();
        let answers: Vec<Option<Answer>> = keys.iter().map(|key| self.given.answer(key)).collect();
        let mut heard = self.heard();
        let unanswered = keys.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        heard.unanswered.extend(unanswered.map(|(key, _)| key.clone()));
        heard.calls.push(keys);
        answers.into_iter().collect()
    }
}

/// What a case lacks, as it is to be filled in.
pub(super) fn stub(service: &str, keys: &[String]) -> String {
    let found: Vec<String> = keys.iter().map(|key| format!("{}: {{}}", super::written::key(key))).collect();
    format!(
        "`{service}` was asked for what the case does not answer; add:\ngiven:\n  {service}: {{ found: {{ {} }} }}",
        found.join(", ")
    )
}

/// A key as cases write it: text as it is, anything else as JSON.
pub(super) fn written(key: &Bytes) -> String {
    match serde_json::from_slice::<Json>(key) {
        Ok(Json::String(text)) => text,
        _ => String::from_utf8_lossy(key).into_owned(),
    }
}

#[async_trait]
impl StandIn for Answers {
    async fn answer(&self, asked: &Asked<'_>) -> Instead {
        if let Some(trouble) = self.troubles.meet() {
            if let Some(slow) = trouble.slow {
                tokio::time::sleep(slow).await;
            }
            let retry_after = trouble.retry_after();
            let instead = match (trouble.away, trouble.status) {
                (Some(why), _) => Some(Instead::Away(why)),
                (None, Some(status)) => Some(Instead::Status { status, retry_after }),
                (None, None) => None,
            };
            if let Some(instead) = instead {
                let keys = asked.keys.iter().map(written).collect();
                self.heard().calls.push(keys);
                return instead;
            }
        }
        if let Some(why) = &self.given.away {
            return Instead::Away(why.clone());
        }
        match self.answers(asked.keys) {
            Some(answers) => Instead::Keys(answers),
            // The case has failed already.
            None => Instead::Status { status: 401, retry_after: None },
        }
    }
}

/// A table.
#[async_trait]
impl Enricher for Answers {
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError> {
        if let Some(why) = self.troubles.meet().and_then(|trouble| trouble.away).or_else(|| self.given.away.clone()) {
            return Err(OutsideError::transient(why));
        }
        let unsaid = || OutsideError::fatal(format!("the case does not say what {} has", self.name));
        self.answers(keys).ok_or_else(unsaid)
    }
}
