//! Who takes requests instead of a receiver, where none is to be reached: in cases of streams, which need no server. What a request has,
//! and what an answer means, is as it is with a receiver.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::Response;

/// A request, as it would be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method of HTTP.
    pub method: String,
    /// The path of the URL, without its query. It may hold secrets.
    pub path: String,
    /// The parameters of the query.
    pub query: BTreeMap<String, String>,
    /// The headers of this request, by their names in lower case; not those of every request, which the plan says.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instead {
    /// An answer.
    Answer {
        /// Its status.
        status: u16,
        /// The header `Retry-After`.
        retry_after: Option<String>,
        /// Its body.
        body: Vec<u8>,
    },
    /// There is no connection, and why.
    Away(String),
}

/// Takes requests instead of a receiver.
#[async_trait]
pub trait StandIn: Send + Sync {
    /// What is answered to a request. One that takes longer than the sink's timeout is given up, and this call dropped.
    async fn take(&self, request: Request) -> Instead;
}

impl Request {
    pub(super) fn of(request: &reqwest::Request) -> Self {
        let header = |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            method: request.method().to_string(),
            path: request.url().path().to_owned(),
            query: request.url().query_pairs().into_owned().collect(),
            headers: request.headers().iter().map(header).collect(),
            body: request.body().and_then(|body| body.as_bytes()).unwrap_or_default().to_vec(),
        }
    }
}

/// An answer as a receiver's is read. None: there is none of this status or with this header.
pub(super) fn response(status: u16, retry_after: Option<&str>, body: Vec<u8>) -> Option<Response> {
    let mut builder = http::Response::builder().status(status);
    if let Some(retry_after) = retry_after {
        builder = builder.header(http::header::RETRY_AFTER, retry_after);
    }
    builder.body(body).ok().map(Response::from)
}
