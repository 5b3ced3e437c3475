//! Who answers instead of a service, where none is to be asked: in cases of streams, which need no server. Everything else is as it is with
//! a service: how keys are gathered and what is kept, tries and pauses, rate and breaker.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use tributary_processor::Answer;

/// What a service would be asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The method of HTTP.
    pub method: &'a str,
    /// The path of the URL with its query. It may hold secrets.
    pub path: &'a str,
    /// What would be sent.
    pub body: Option<&'a [u8]>,
    /// The keys that this is about, each of which is JSON.
    pub keys: &'a [Bytes],
}

/// What is answered instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// What is known of each key, in their order.
    Keys(Vec<Answer>),
    /// A status of HTTP that says nothing of any key.
    Status {
        /// Its number.
        status: u16,
        /// The header `Retry-After`.
        retry_after: Option<String>,
    },
    /// There is no connection, and why.
    Away(String),
}

/// Answers instead of a service.
#[async_trait]
pub trait StandIn: Send + Sync + Debug {
    /// What is answered to a request. One that takes longer than the service's timeout is given up, and this call dropped.
    async fn answer(&self, asked: &Asked<'_>) -> Instead;
}
