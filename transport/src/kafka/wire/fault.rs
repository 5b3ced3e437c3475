//! Why a call of Kafka failed, and what that means.

use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::types::RDKafkaRespErr;
use tributary_event::ErrorClass;

use super::connection::Broken;
use super::request::Answer;
use super::security::Refusal;

/// Why a call failed.
#[derive(Debug)]
pub(in crate::kafka) struct Fault {
    /// The broker's answer, if it was one.
    pub code: Option<Code>,
    pub class: ErrorClass,
    pub text: String,
    /// The topic whose records were refused.
    pub topic: Option<String>,
}

impl Fault {
    pub(super) fn answered(code: Answer, place: &str) -> Self {
        let known = match code {
            TRANSACTION_ABORTABLE => Code::InvalidTransactionalState,
            code => RDKafkaRespErr::try_from(i32::from(code)).map_or(Code::Unknown, Code::from),
        };
        let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
        Self {
            code: Some(known),
            class: crate::kafka::client::class(known),
            text: format!("{known}{place}"),
            topic: None,
        }
    }

    /// Whether the same request may be answered differently in a moment.
    pub fn is_not_now(&self) -> bool {
        match self.code {
            None => self.class == ErrorClass::Transient,
            Some(code) => matches!(
                code,
                Code::ConcurrentTransactions
                    | Code::CoordinatorLoadInProgress
                    | Code::CoordinatorNotAvailable
                    | Code::NotCoordinator
                    | Code::RequestTimedOut
                    | Code::NotEnoughReplicas
                    | Code::NotEnoughReplicasAfterAppend
                    // The broker itself does not know the topic yet, which others do.
                    | Code::UnknownTopicOrPartition
                    // What a coordinator says when its own log fails.
                    | Code::Unknown
            ),
        }
    }

    /// What was wanted is nothing that our protocol does; librdkafka may do it.
    pub fn is_unspoken(&self) -> bool {
        matches!(self.code, Some(Code::UnsupportedVersion | Code::UnsupportedFeature))
    }

    /// Another process has the producer's identity.
    pub fn is_fenced(&self) -> bool {
        matches!(
            self.code,
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping)
        )
    }
}

/// What brokers answer from 4.0 on when a transaction can only be aborted; librdkafka has no name for it.
const TRANSACTION_ABORTABLE: Answer = 120;

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let (code, text) = match refusal {
            Refusal::Unspoken(text) => (Some(Code::UnsupportedFeature), text),
            Refusal::Wrong(text) => (None, text),
        };
        Self { code, class: ErrorClass::Fatal, text, topic: None }
    }
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self { code: broken.code, class: broken.class, text: broken.text, topic: None }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self { code: None, class: ErrorClass::Fatal, text: format!("compressing records: {error}"), topic: None }
    }
}
