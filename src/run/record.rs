//! The record of a running pipeline: where its HTTP listener is, for the commands that talk to it.
//!
//! It lies in the data folder and is removed on a clean stop. A record whose listener does not answer as this pipeline is stale.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::cli::exit::Failure;

/// What is recorded.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    process: u32,
    address: String,
}

/// Removes the record when the pipeline stops.
pub struct Recorded(PathBuf);

impl Drop for Recorded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn path(data: &Path, pipeline: &str) -> PathBuf {
    data.join(format!("{pipeline}.running.json"))
}

/// Records that the pipeline runs here and listens there.
pub fn write(data: &Path, pipeline: &str, address: &str) -> Result<Recorded, Failure> {
    let path = path(data, pipeline);
    let record = Record { process: std::process::id(), address: address.to_owned() };
    let written = std::fs::create_dir_all(data)
        .and_then(|()| std::fs::write(&path, serde_json::to_vec(&record).unwrap_or_default()));
    written.map_err(|e| {
        Failure::Stopped(format!("cannot write {}: {e} (data: in the pipeline names the folder)", path.display()))
    })?;
    Ok(Recorded(path))
}

/// A running pipeline on this machine.
pub struct Running {
    base: String,
    http: reqwest::Client,
}

/// The running process of a pipeline, if there is one.
pub async fn find(data: &Path, pipeline: &str) -> Option<Running> {
    let text = std::fs::read(path(data, pipeline)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().ok()?;
    let running = Running { base: format!("http://{}", record.address), http };
    let (_, health) = running.get("/health").await.ok()?;
    (health["pipeline"] == pipeline).then_some(running)
}

impl Running {
    /// GET: the status and the JSON of the answer.
    pub async fn get(&self, path: &str) -> Result<(u16, Json), Failure> {
        self.answer(self.http.get(format!("{}{path}", self.base))).await
    }

    /// GET with query parameters.
    pub async fn get_with(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, Json), Failure> {
        self.answer(self.http.get(format!("{}{path}", self.base)).query(query)).await
    }

    /// GET of what may take long to find out.
    pub async fn get_slowly(&self, path: &str, query: &[(&str, String)]) -> Result<(u16, Json), Failure> {
        let request = self.http.get(format!("{}{path}", self.base)).query(query);
        self.answer(request.timeout(Duration::from_secs(24 * 3600))).await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<(u16, Json), Failure> {
        self.answer(self.http.post(format!("{}{path}", self.base)).json(body)).await
    }

    /// The same, where the answer may come late.
    pub async fn post_slowly(&self, path: &str, body: &impl Serialize) -> Result<(u16, Json), Failure> {
        let request = self.http.post(format!("{}{path}", self.base)).json(body);
        self.answer(request.timeout(Duration::from_secs(24 * 3600))).await
    }

    /// GET of lines that come as long as the pipeline runs.
    pub async fn lines(&self, path: &str, query: &impl Serialize) -> Result<Lines, Failure> {
        let request = self.http.get(format!("{}{path}", self.base)).query(query);
        let request = request.timeout(Duration::from_secs(365 * 24 * 3600));
        let response = request.send().await.map_err(|e| Failure::Unreachable(format!("{}: {e}", self.base)))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            let body: Json = response.json().await.unwrap_or(Json::Null);
            expect_ok((status, body))?;
            return Err(Failure::Stopped(format!("the answer was {status}")));
        }
        Ok(Lines { response, rest: Vec::new() })
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<(u16, Json), Failure> {
        let unreachable = |e: reqwest::Error| Failure::Unreachable(format!("{}: {e}", self.base));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(unreachable)?;
        Ok((status, tributary_indexer::documents::json::read(text.as_bytes()).unwrap_or(Json::Null)))
    }
}

/// Lines of an answer, as they come.
pub struct Lines {
    response: reqwest::Response,
    rest: Vec<u8>,
}

impl Lines {
    /// The next line; none: there are no more.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into_owned()));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk),
                // A pipeline that is killed ends in the middle.
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }
}

/// The answer of a request that went well; else the failure it means.
pub fn expect_ok((status, body): (u16, Json)) -> Result<Json, Failure> {
    let message = || body["error"].as_str().map_or_else(|| format!("the answer was {status}"), str::to_owned);
    match status {
        200..=299 => Ok(body),
        404 => Err(Failure::NotFound(message())),
        503 => Err(Failure::Unreachable(message())),
        _ => Err(Failure::Stopped(message())),
    }
}
