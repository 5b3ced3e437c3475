//! Calls to a search server, and what an answer that is no success means.

use std::time::Duration;

use elasticsearch::auth::Credentials;
use elasticsearch::cert::{Certificate, CertificateValidation};
use elasticsearch::http::headers::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use elasticsearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use elasticsearch::http::{Method, Url};
use serde_json::Value as Json;
use tributary_dsl::plan::SearchServer;
use tributary_event::ErrorClass;

use super::bulk;
use crate::store::StoreError;

/// The longest a call may take, from connecting to the last byte. A page of 10,000 ids or a large refresh needs seconds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The same for bulk writes, which may wait in the server's queue.
const BULK_TIMEOUT: Duration = Duration::from_secs(90);

/// A search server.
pub(super) struct Server {
    transport: Transport,
    /// Its URL without credentials.
    url: Url,
    /// Its URL without credentials, for messages.
    shown: String,
}

/// An answer, whatever its status.
pub(super) struct Answer {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub body: Json,
}

impl Server {
    pub fn new(settings: &SearchServer) -> Result<Self, StoreError> {
        let fatal = |message: String| StoreError::new(ErrorClass::Fatal, message);
        let mut url = Url::parse(&settings.url).map_err(|e| {
            fatal(format!("the URL of the search server cannot be used: {e}; write it as http://host:9200"))
        })?;
        let in_url = (!url.username().is_empty())
            .then(|| (url.username().to_owned(), url.password().unwrap_or_default().to_owned()));
        if url.cannot_be_a_base() || url.set_username("").is_err() || url.set_password(None).is_err() {
            return Err(fatal("the URL of the search server cannot be used: write it as http://host:9200".to_owned()));
        }
        let shown = url.to_string().trim_end_matches('/').to_owned();
        // As the library has it: paths are joined to it.
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let pool = SingleNodeConnectionPool::new(url.clone());
        let mut builder = TransportBuilder::new(pool).timeout(TIMEOUT).enable_meta_header(false);
        let basic = settings.basic.as_ref().map(|(user, password)| (user.clone(), password.reveal().to_owned()));
        if let Some(key) = &settings.api_key {
            let key = key.reveal().trim();
            // The library panics on a key that no header can hold.
            if HeaderValue::from_str(key).is_err() {
                return Err(fatal(format!("the API key for {shown} holds characters that no HTTP header can")));
            }
            builder = builder.auth(match key.split_once(':') {
                Some((id, secret)) => Credentials::ApiKey(id.to_owned(), secret.to_owned()),
                None => Credentials::EncodedApiKey(key.to_owned()),
            });
        } else if let Some((user, password)) = basic.or(in_url) {
            builder = builder.auth(Credentials::Basic(user, password));
        }
        if let Some(file) = &settings.ca_file {
            let unusable = |why: String| fatal(format!("the certificates of {shown} in {file} cannot be used: {why}"));
            let pem = std::fs::read(file).map_err(|e| unusable(e.to_string()))?;
            let chain = Certificate::from_pem(&pem).map_err(|e| unusable(e.to_string()))?;
            builder = builder.cert_validation(CertificateValidation::Full(chain));
        }
        let transport = builder.build().map_err(|e| fatal(format!("no connection to {shown} can be set up: {e}")))?;
        Ok(Self { transport, url, shown })
    }

    /// An error that names this server.
    pub fn error(&self, class: ErrorClass, message: std::fmt::Arguments<'_>) -> StoreError {
        StoreError::new(class, format!("{}: {message}", self.shown))
    }

    /// Calls, and takes any answer.
    pub async fn answer(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Answer, StoreError> {
        let body = body.map(|b| b.to_string().into_bytes());
        self.send(method, path, "application/json", body, TIMEOUT).await
    }

    /// Calls, and takes success alone.
    pub async fn expect(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json, StoreError> {
        let answer = self.answer(method, path, body).await?;
        if (200..300).contains(&answer.status) { Ok(answer.body) } else { Err(self.failure(path, &answer)) }
    }

    /// Calls, and takes the answer of every shard alone: one that did not answer would look like documents that are not there.
    pub async fn whole(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Json, StoreError> {
        let answer = self.expect(method, path, body).await?;
        self.check_whole(path, &answer)?;
        Ok(answer)
    }

    /// Whether every shard has part in an answer.
    pub fn check_whole(&self, path: &str, answer: &Json) -> Result<(), StoreError> {
        let failed = answer["_shards"]["failed"].as_u64().unwrap_or(0);
        if failed > 0 {
            let reason = bulk::reason(&answer["_shards"]["failures"][0]["reason"]);
            let message =
                format_args!("{failed} shards did not answer {path}: {reason} (the server is busy or not well)");
            return Err(self.error(ErrorClass::Transient, message));
        }
        if answer["timed_out"].as_bool() == Some(true) {
            return Err(self.error(ErrorClass::Transient, format_args!("some shards did not answer {path} in time")));
        }
        Ok(())
    }

    /// Asks several questions at a time, as newline-delimited JSON.
    pub async fn ask_many(&self, path: &str, body: Vec<u8>) -> Result<Json, StoreError> {
        let answer = self.send(Method::Post, path, "application/x-ndjson", Some(body), TIMEOUT).await?;
        if (200..300).contains(&answer.status) { Ok(answer.body) } else { Err(self.failure(path, &answer)) }
    }

    /// Sends a bulk body.
    pub async fn bulk(&self, path: &str, body: Vec<u8>) -> Result<Answer, StoreError> {
        self.send(Method::Post, path, "application/x-ndjson", Some(body), BULK_TIMEOUT).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media_type: &'static str,
        body: Option<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, StoreError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let sent = self.transport.send(method, path, headers, None::<&()>, body, Some(timeout));
        let response = Box::pin(sent).await.map_err(|e| self.unreachable(path, e))?;
        self.check_place(path, response.url())?;
        let status = response.status_code().as_u16();
        let after = response.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let text = response.text().await.map_err(|e| self.unreachable(path, e))?;
        let body = crate::documents::json::read(text.as_bytes())
            .unwrap_or_else(|_| Json::String(text.chars().take(300).collect::<String>().trim().to_owned()));
        Ok(Answer { status, retry_after: after.map(Duration::from_secs), body })
    }

    /// Whether an answer comes from where it was asked for. The library follows redirects, and a request that was redirected may have lost
    /// its body on the way: its answer says nothing.
    fn check_place(&self, path: &str, from: &Url) -> Result<(), StoreError> {
        let asked = self.url.join(path.trim_start_matches('/'));
        if asked.is_ok_and(|asked| asked == *from) {
            return Ok(());
        }
        let mut to = from.clone();
        to.set_query(None);
        let message = format_args!(
            "{path} was redirected to {to}, which is not followed (a proxy or a page for logging in stands before the server; write the \
             server's own URL as the store's url)"
        );
        Err(self.error(ErrorClass::Transient, message))
    }

    /// No answer.
    fn unreachable(&self, path: &str, error: elasticsearch::Error) -> StoreError {
        let causes = match tributary_event::causes(&error) {
            Some(causes) => format!("{error}: {causes}"),
            None => error.to_string(),
        };
        let (class, remedy) = match () {
            () if causes.contains("certificate") => {
                (ErrorClass::Fatal, "name the authority that signed the server's certificate in `ca_file`")
            }
            () if error.is_timeout() => (ErrorClass::Transient, "the server did not answer in time"),
            () => (ErrorClass::Transient, "check that the server runs there"),
        };
        StoreError::caused(class, format!("{}: no answer to {path}: {causes} ({remedy})", self.shown), error)
    }

    /// An answer that is no success, judged.
    pub fn failure(&self, path: &str, answer: &Answer) -> StoreError {
        let error = &answer.body["error"];
        let reason = match &answer.body {
            Json::String(text) => text.clone(),
            _ => bulk::reason(error),
        };
        let kind = error["type"].as_str().unwrap_or_default();
        // OpenSearch says no more than that to who may not log in.
        let is_ours = !kind.is_empty() || answer.status == 401 && reason == "Unauthorized";
        let (class, remedy) = match answer.status {
            301..=399 | 401 | 403 | 404 if !is_ours => (
                ErrorClass::Transient,
                "this is no search server's answer, or that of a proxy before it; check that the store's url is the server's",
            ),
            401 => (ErrorClass::Fatal, "check user name, password or API key"),
            403 if kind == "cluster_block_exception" => {
                (ErrorClass::Transient, "the index is blocked; is the disk full?")
            }
            403 => (ErrorClass::Fatal, "give the user the privileges for this index"),
            404 if kind == "index_not_found_exception" => {
                (ErrorClass::Fatal, "the index is gone; start again to have it created and built")
            }
            408 | 429 | 500.. => (ErrorClass::Transient, "the server is busy or not well"),
            _ => (ErrorClass::Definite, "the server will not take this call"),
        };
        self.error(class, format_args!("{} to {path}: {reason} ({remedy})", answer.status))
    }
}
