//! Which topics the names mean now: brokers are asked by our own protocol, for librdkafka does not tell. All of it blocks.
//!
//! Where that protocol cannot be spoken, and of brokers that have no identities of topics, nothing is known, and a topic that was
//! deleted and made again is told by its offsets only.
//!
//! A broker may not have heard yet that a topic was deleted and made again. So what is new counts when two answers, of different brokers
//! if there are several, agree.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tributary_event::ErrorClass;

use super::client::KafkaSettings;
use super::wire::{Cluster, Fault};
use crate::contract::TopicId;
use crate::contract::TransportError;

/// How long brokers may differ.
const AGREE: Duration = Duration::from_secs(5);
/// Between two questions to brokers that differ.
const PAUSE: Duration = Duration::from_millis(100);

/// What names of topics mean: the topics that are there, each with its identity if the brokers tell.
pub(super) type Ids = HashMap<Arc<str>, Option<TopicId>>;

pub(super) struct Identities {
    settings: KafkaSettings,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    asker: Option<Asker>,
    /// The protocol cannot be spoken.
    untold: bool,
    /// The names that were asked for, and what they meant; none: there is no such topic.
    known: HashMap<Arc<str>, Option<Option<TopicId>>>,
    asked: Option<Instant>,
}

/// A connection to the brokers and what drives it, whoever asks.
struct Asker {
    cluster: Cluster,
    runtime: Option<Runtime>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        // Otherwise it would wait for its threads, which must not be in a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Asker {
    fn new(settings: &KafkaSettings) -> Result<Self, Fault> {
        let cluster = Cluster::new(settings)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { cluster, runtime: Some(runtime) })
    }

    fn ask(&mut self, topics: &[Arc<str>]) -> Result<Ids, Fault> {
        match &self.runtime {
            Some(runtime) => runtime.block_on(self.cluster.topic_ids(topics)),
            None => Ok(Ids::new()),
        }
    }
}

impl Identities {
    pub fn new(settings: &KafkaSettings) -> Self {
        Self { settings: settings.clone(), state: Mutex::default() }
    }

    /// Those of topics, as they were known at most so long ago.
    pub fn of(&self, topics: &[Arc<str>], age: Duration) -> Result<Ids, TransportError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = state.asked.is_some_and(|asked| asked.elapsed() <= age);
        if !(state.untold || is_fresh && topics.iter().all(|topic| state.known.contains_key(topic))) {
            self.ask(&mut state, topics)?;
        }
        if state.untold {
            return Ok(topics.iter().map(|topic| (topic.clone(), None)).collect());
        }
        Ok(topics.iter().filter_map(|topic| Some((topic.clone(), (*state.known.get(topic)?)?))).collect())
    }

    /// Asks for these topics and for all that were asked for before.
    fn ask(&self, state: &mut State, topics: &[Arc<str>]) -> Result<(), TransportError> {
        let mut all: Vec<Arc<str>> = state.known.keys().cloned().collect();
        all.extend(topics.iter().filter(|topic| !state.known.contains_key(*topic)).cloned());
        match self.agreed(state, &all) {
            Ok(ids) => {
                state.known = all.into_iter().map(|topic| (topic.clone(), ids.get(&topic).copied())).collect();
                state.asked = Some(Instant::now());
                Ok(())
            }
            Err(fault) if fault.is_unspoken() => {
                tracing::info!(
                    cause = fault.text,
                    "topics that are deleted and made again are told by their offsets only"
                );
                state.untold = true;
                Ok(())
            }
            Err(fault) => {
                state.asker = None;
                Err(self.settings.answered("asking for the identities of topics", fault.class, fault.code, &fault.text))
            }
        }
    }

    fn agreed(&self, state: &mut State, topics: &[Arc<str>]) -> Result<Ids, Fault> {
        let asker = match &mut state.asker {
            Some(asker) => asker,
            None => state.asker.insert(Asker::new(&self.settings)?),
        };
        let start = Instant::now();
        let mut found = asker.ask(topics)?;
        let is_known = topics.iter().all(|topic| state.known.get(topic).copied() == Some(found.get(topic).copied()));
        if is_known {
            return Ok(found);
        }
        loop {
            let again = asker.ask(topics)?;
            if again == found {
                return Ok(found);
            }
            if start.elapsed() > AGREE {
                let text = "brokers differ in which topics there are".to_owned();
                return Err(Fault { code: None, class: ErrorClass::Transient, text, topic: None });
            }
            found = again;
            std::thread::sleep(PAUSE);
        }
    }
}
