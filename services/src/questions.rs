//! Asks for keys until each has its own outcome: a batch that fails as a whole, while the service answers for other keys, is asked for in
//! halves until the culprit stands alone; what an answer lacks is asked for again before it counts as missing.
//!
//! Why a lack is asked for again: a service may show a page of a list. Those that are lacking are asked for in a request of their own, which
//! an answer without any element ends: a page of nothing is no page. Where errors, or nulls that filled a page, may have hidden them, only
//! a request for each alone does.

mod ceiling;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all};
use tokio::time::Instant;
use tracing::debug;
use tributary_processor::{Answer, Backoff, OutsideError};

use self::ceiling::Ceiling;
use self::witness::{Verdict, Witness};
use crate::answers::{Reading, Said};
use crate::asking::call::Call;
use crate::http::trouble::Trouble;
use crate::service::Service;

/// So often a request is sent again that failed for a cause that may pass.
const RETRIES: u32 = 2;
/// The shortest and the longest pause before that.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What became of a key.
pub(crate) type Outcome = Result<Answer, OutsideError>;

/// Questions of one kind to a service.
pub(crate) struct Questions {
    service: Arc<Service>,
    call: Call,
    witness: Witness,
    ceiling: Ceiling,
}

/// What became of a request.
enum Asked {
    /// It was answered.
    Read(Reading),
    /// It failed, and not because the service is away.
    Blamed(Blame),
}

/// Why a request failed, whose fault it is itself.
struct Blame {
    message: String,
    /// Whether the service says so.
    is_unfit: bool,
    /// Whether it may be because of how much was asked for.
    is_size: bool,
}

/// What became of a key, and whether the service said that the request is at fault.
struct Fate {
    outcome: Outcome,
    is_unfit: bool,
}

impl Fate {
    fn of(outcome: Outcome) -> Self {
        Self { outcome, is_unfit: false }
    }
}

impl Questions {
    pub(crate) fn new(service: Arc<Service>, call: Call) -> Self {
        Self { service, call, witness: Witness::default(), ceiling: Ceiling::default() }
    }

    /// Whom they are put to.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    /// Whether keys are asked for together.
    pub(crate) fn is_list(&self) -> bool {
        self.call.is_list
    }

    /// Keys of one request at most, as far as the service allows it.
    pub(crate) fn most(&self) -> usize {
        self.ceiling.limit()
    }

    /// The outcome of each key, in their order. Keys do not repeat.
    pub(crate) async fn outcomes(&self, keys: &[Bytes]) -> Vec<Outcome> {
        metrics::histogram!("tributary_service_batch_keys", "service" => self.service.label())
            .record(keys.len() as f64);
        let begun = Instant::now();
        let asked = self.asked(keys).await;
        match &asked {
            Ok(Asked::Read(_)) => self.ceiling.answered(keys.len()),
            Ok(Asked::Blamed(blame)) if blame.is_size => self.ceiling.refused(keys.len()),
            _ => {}
        }
        let mut fates = self.followed(keys, asked).await;
        // What a service fails for, whatever it is asked, is an outage, and says nothing about keys.
        let is_error = |fate: &Fate| matches!(fate.outcome, Ok(Answer::Failed(_))) && !fate.is_unfit;
        if keys.len() > 1 && fates.iter().all(is_error) {
            let works = self.witness.verdict(keys, begun, |key| self.answers(key)).await == Verdict::Works;
            for fate in fates.iter_mut().filter(|_| !works) {
                if let Ok(Answer::Failed(message)) = &fate.outcome {
                    fate.outcome = Err(OutsideError::transient(format!("it fails for every key: {message}")));
                }
            }
        }
        let failed = fates.iter().filter(|fate| matches!(fate.outcome, Ok(Answer::Failed(_)))).count();
        if failed > 0 {
            metrics::counter!("tributary_service_failed_keys_total", "service" => self.service.label())
                .increment(failed as u64);
        }
        fates.into_iter().map(|fate| fate.outcome).collect()
    }

    fn batch<'a>(&'a self, keys: &'a [Bytes]) -> BoxFuture<'a, Vec<Fate>> {
        async move { self.followed(keys, self.asked(keys).await).await }.boxed()
    }

    /// Follows a request up, until each of its keys has its outcome.
    async fn followed(&self, keys: &[Bytes], asked: Result<Asked, OutsideError>) -> Vec<Fate> {
        match asked {
            Ok(Asked::Read(reading)) => self.completed(keys, reading).await,
            Ok(Asked::Blamed(Blame { message, .. })) if keys.len() > 1 => {
                debug!(service = self.service.name(), keys = keys.len(), message, "asking for half as many");
                self.halves(keys).await
            }
            Ok(Asked::Blamed(Blame { message, is_unfit, .. })) => {
                let fate = |_: &Bytes| Fate { outcome: Ok(Answer::Failed(message.clone())), is_unfit };
                keys.iter().map(fate).collect()
            }
            Err(error) => keys.iter().map(|_| Fate::of(Err(error.clone()))).collect(),
        }
    }

    async fn halves(&self, keys: &[Bytes]) -> Vec<Fate> {
        let (first, second) = keys.split_at(keys.len().div_ceil(2));
        let (mut fates, second) = join(self.batch(first), self.batch(second)).await;
        fates.extend(second);
        fates
    }

    /// Asks again for what an answer leaves open.
    async fn completed(&self, keys: &[Bytes], reading: Reading) -> Vec<Fate> {
        // Once any key was found, keys are compared as they should be.
        if let Some(stray) = reading.stray.as_deref().filter(|_| !self.witness.knows_any()) {
            let stray = self.service.client.secrets.excerpt(stray.as_bytes());
            let message = format!(
                "{} answered none of the keys that it was asked for, and {stray}; correct where an element has its key, or how keys are written",
                self.service.client.place
            );
            return keys.iter().map(|_| Fate::of(Err(OutsideError::transient(message.clone())))).collect();
        }
        let is_alone = keys.len() == 1;
        let pick = |said: fn(&Said) -> bool| -> Vec<usize> {
            reading.said.iter().enumerate().filter(|(_, s)| said(s)).map(|(place, _)| place).collect()
        };
        let (absent, erred) = (pick(|s| *s == Said::Absent), pick(|s| matches!(s, Said::Erred(_))));
        let found = keys.len() - absent.len();
        let at = |places: &[usize]| -> Vec<Bytes> { places.iter().filter_map(|n| keys.get(*n)).cloned().collect() };
        let (absent_keys, erred_keys) = (at(&absent), at(&erred));
        let asked_again = async {
            match (absent_keys.is_empty(), is_alone, reading.may_hide, found) {
                (true, ..) | (_, true, ..) | (_, _, false, 0) => {
                    absent_keys.iter().map(|_| Fate::of(Ok(Answer::Missing))).collect()
                }
                (_, _, true, 0) => self.halves(&absent_keys).await,
                _ => self.batch(&absent_keys).await,
            }
        };
        // An error of an element may pass, or be that of its neighbour.
        let erred_again = async {
            if is_alone {
                return Vec::new();
            }
            join_all(erred_keys.chunks(1).map(|key| self.batch(key))).await.into_iter().flatten().collect()
        };
        let (asked_again, erred_again): (Vec<Fate>, Vec<Fate>) = join(asked_again, erred_again).await;
        let mut again: Vec<(usize, Fate)> = absent.into_iter().zip(asked_again).collect();
        again.extend(erred.into_iter().zip(erred_again));
        let mut fates: Vec<Fate> = reading.said.into_iter().map(|said| Fate::of(Ok(answer(said)))).collect();
        for (place, fate) in again {
            if let Some(slot) = fates.get_mut(place) {
                *slot = fate;
            }
        }
        fates
    }

    /// Sends a request for keys, again where its trouble may pass.
    async fn asked(&self, keys: &[Bytes]) -> Result<Asked, OutsideError> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let mut doubts = 0;
        for tries_left in (0..=RETRIES).rev() {
            let pass = match self.service.admit() {
                Ok(pass) => pass,
                Err(trouble) => return Err(error(trouble)),
            };
            let begun = Instant::now();
            let trouble = match self.once(keys).await {
                Ok((reading, took)) => {
                    pass.went_well(took);
                    return Ok(Asked::Read(reading));
                }
                Err(trouble) => trouble,
            };
            match trouble {
                Trouble::Refused(_) | Trouble::LeftAlone(_) => return Err(error(trouble)),
                Trouble::Throttled(_) if tries_left == 0 => return Err(error(trouble)),
                // Whoever sends the next request waits for the end of the pause.
                Trouble::Throttled(_) => continue,
                Trouble::Unfit(ref message) | Trouble::TooMuch(ref message) => {
                    pass.went_well(Duration::ZERO);
                    let is_size = matches!(trouble, Trouble::TooMuch(_));
                    return Ok(Asked::Blamed(Blame { message: message.clone(), is_unfit: true, is_size }));
                }
                Trouble::Away(ref cause) => {
                    pass.failed(cause);
                    if tries_left == 0 {
                        return Err(error(trouble));
                    }
                }
                Trouble::Doubtful(ref message) | Trouble::TooSlow(ref message) | Trouble::Erred(ref message) => {
                    let is_size = matches!(trouble, Trouble::TooSlow(_));
                    let is_erred = matches!(trouble, Trouble::Erred(_));
                    let verdict = self.witness.verdict(keys, begun, |key| self.answers(key)).await;
                    let is_blamed = verdict == Verdict::Works || is_erred && verdict == Verdict::Unknown;
                    if is_blamed {
                        // What it failed for is no fault of the service.
                        pass.went_well(Duration::ZERO);
                        doubts += 1;
                        // Of a service that comes back, the next request for the same key may go well.
                        if keys.len() > 1 || is_erred || doubts > 1 {
                            let message = message.clone();
                            return Ok(Asked::Blamed(Blame { message, is_unfit: false, is_size }));
                        }
                        if tries_left == 0 {
                            return Err(error(trouble));
                        }
                    } else {
                        pass.failed(message);
                        if tries_left == 0 {
                            return Err(error(trouble));
                        }
                    }
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
        // The last try returns.
        Err(OutsideError::transient(format!("{} was not asked", self.service.client.place)))
    }

    /// Sends a request for keys once.
    async fn once(&self, keys: &[Bytes]) -> Result<(Reading, Duration), Trouble> {
        let request = self.call.request(keys).map_err(Trouble::Unfit)?;
        let answered = self.service.send(request).await?;
        let reading = self.call.read(&self.service, keys, &answered.reply)?;
        let found = keys.iter().zip(&reading.said).find(|(_, said)| matches!(said, Said::Found(_)));
        if let Some((key, _)) = found {
            self.witness.saw(key, answered.begun);
        }
        Ok((reading, answered.took))
    }

    /// Whether a request for one key goes well.
    async fn answers(&self, key: Bytes) -> bool {
        let reading = self.once(&[key]).await;
        reading.is_ok_and(|(reading, _)| !reading.said.iter().any(|said| matches!(said, Said::Erred(_))))
    }
}

fn answer(said: Said) -> Answer {
    match said {
        Said::Found(json) => Answer::Found(json),
        Said::Missing | Said::Absent => Answer::Missing,
        Said::Erred(message) => Answer::Failed(message),
    }
}

fn error(trouble: Trouble) -> OutsideError {
    match trouble {
        Trouble::Refused(message) => OutsideError::fatal(message),
        Trouble::Away(message)
        | Trouble::Throttled(message)
        | Trouble::LeftAlone(message)
        | Trouble::Unfit(message)
        | Trouble::TooMuch(message)
        | Trouble::TooSlow(message)
        | Trouble::Doubtful(message)
        | Trouble::Erred(message) => OutsideError::transient(message),
    }
}
