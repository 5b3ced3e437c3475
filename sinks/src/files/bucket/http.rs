//! Requests to an object store, sent by the HTTP client that all sinks share.

use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait for an answer, beside what is sent.
const PATIENCE: Duration = Duration::from_secs(30);
/// A content that is sent slower than this, in bytes a second, is given up.
const SLOWEST: u64 = 128 << 10;

/// Makes clients that send requests as the sinks do.
#[derive(Debug)]
pub(super) struct Connector;

#[derive(Debug)]
struct Client(reqwest::Client);

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| object_store::Error::NotSupported { source: Box::new(e) })?;
        Ok(HttpClient::new(Client(client)))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let url: reqwest::Url = parts.uri.to_string().parse().map_err(|e| HttpError::new(HttpErrorKind::Unknown, e))?;
        let length = u64::try_from(body.content_length()).unwrap_or(u64::MAX);
        let mut request = reqwest::Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        *request.body_mut() = Some(match body.as_bytes() {
            Some(bytes) => bytes.clone().into(),
            None => reqwest::Body::wrap(body),
        });
        *request.timeout_mut() = Some(PATIENCE + Duration::from_secs(length / SLOWEST));
        let answer = self.0.execute(request).await.map_err(failure)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        // Answers are marks and listings, which are small.
        let content = answer.bytes().await.map_err(failure)?;
        let mut response = HttpResponse::new(HttpResponseBody::from(content));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn failure(error: reqwest::Error) -> HttpError {
    let kind = match &error {
        error if error.is_connect() => HttpErrorKind::Connect,
        error if error.is_timeout() => HttpErrorKind::Timeout,
        error if error.is_decode() => HttpErrorKind::Decode,
        // Whether it was carried out is not known.
        _ => HttpErrorKind::Interrupted,
    };
    // It is named where the error is told.
    HttpError::new(kind, error.without_url())
}
