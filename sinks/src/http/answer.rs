//! What an answer means: for the event that was sent, or for the receiver as a whole.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tributary_processor::sink::Verdict;
use url::Url;

use super::origin;

/// So much of an answer is read.
const MOST_BYTES: usize = 64 << 10;
/// So many characters of an answer are shown.
const SHOWN: usize = 200;
/// A receiver that wants to be left alone for longer is asked again after this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// What an answer is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was sent.
    Event(Verdict),
    /// The receiver: it takes nothing, whatever it is, until somebody has done something.
    Receiver(String),
}

/// An answer, as far as it was read.
pub(crate) struct Answer {
    pub status: StatusCode,
    headers: HeaderMap,
    url: Url,
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub is_whole: bool,
}

impl Answer {
    /// Reads an answer.
    pub async fn read(response: Response) -> Self {
        Self::read_up_to(response, MOST_BYTES).await
    }

    /// Reads an answer, so many bytes of it at most. What has been taken is taken, whatever becomes of the rest of the answer; it is read
    /// so that the connection can be used again.
    pub async fn read_up_to(mut response: Response, most: usize) -> Self {
        let (status, headers, url) = (response.status(), response.headers().clone(), response.url().clone());
        let (mut body, mut is_whole) = (Vec::new(), false);
        while body.len() < most {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]),
                ended => {
                    is_whole = ended.is_ok();
                    break;
                }
            }
        }
        Self { status, headers, url, body, is_whole }
    }

    /// What it means.
    pub fn outcome(&self) -> Outcome {
        judge(self.status, &self.headers, &self.url, &self.body, SystemTime::now())
    }

    /// What it says, in a part of a sentence.
    pub fn said(&self) -> String {
        said(self.status, &self.body)
    }
}

fn said(status: StatusCode, body: &[u8]) -> String {
    format!("it answered {status}{}", excerpt(body))
}

fn judge(status: StatusCode, headers: &HeaderMap, url: &Url, body: &[u8], now: SystemTime) -> Outcome {
    let said = said(status, body);
    match status.as_u16() {
        200..=299 => Outcome::Event(Verdict::Delivered),
        401 | 403 => Outcome::Receiver(format!(
            "{said}; the secret, a header or the rights of the sender are wrong: correct them, nothing was skipped"
        )),
        410 => {
            Outcome::Receiver(format!("{said}: the receiver is gone for good; give the sink another url, or remove it"))
        }
        300..=399 => Outcome::Receiver(format!(
            "it answered {status} and leads to {}; redirects are not followed: give the sink the final url",
            target(headers, url)
        )),
        408 | 425 | 429 | 500..=599 => Outcome::Event(Verdict::Retry { after: retry_after(headers, now), why: said }),
        _ => Outcome::Event(Verdict::Rejected(said)),
    }
}

/// Where a redirect leads, without what may hold a token.
fn target(headers: &HeaderMap, url: &Url) -> String {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match location.map(|text| url.join(text)) {
        Some(Ok(target)) if target.origin() == url.origin() => format!("another path of {}", origin(&target)),
        Some(Ok(target)) => origin(&target),
        Some(Err(_)) => "something that is no URL".to_owned(),
        None => "no URL at all".to_owned(),
    }
}

/// The least pause that the receiver asks for, in seconds or up to a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// The beginning of a body in a sentence.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line: String = line.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        _ if line.is_empty() => String::new(),
        Some((end, _)) => format!(": {}…", &line[..end]),
        None => format!(": {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;
    use std::time::UNIX_EPOCH;

    fn judged(status: u16, header: Option<(reqwest::header::HeaderName, &'static str)>) -> Outcome {
        let headers = header.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value))).collect();
        let url = Url::parse("https://hooks.example/T0/hunter2").expect("a URL");
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        judge(StatusCode::from_u16(status).expect("a status"), &headers, &url, b"no\r\nthanks\0", now)
    }

    #[test]
    fn answers_are_about_the_event_or_about_the_receiver() {
        for status in [200, 201, 202, 204] {
            assert_eq!(judged(status, None), Outcome::Event(Verdict::Delivered));
        }
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(judged(status, None), Outcome::Event(Verdict::Retry { after: None, .. })), "{status}");
        }
        for status in [400, 404, 405, 409, 413, 422] {
            let Outcome::Event(Verdict::Rejected(why)) = judged(status, None) else { panic!("{status}") };
            assert!(why.contains(&status.to_string()) && why.ends_with("no thanks"), "{why}");
        }
        for status in [301, 302, 303, 304, 307, 308, 401, 403, 410] {
            assert!(matches!(judged(status, None), Outcome::Receiver(_)), "{status}");
        }
    }

    #[test]
    fn pauses_are_seconds_or_dates() {
        let after = |text| match judged(429, Some((RETRY_AFTER, text))) {
            Outcome::Event(Verdict::Retry { after, .. }) => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("99999999999"), Some(LONGEST_PAUSE));
        assert_eq!((after("soon"), after("-1")), (None, None));
    }

    #[test]
    fn redirects_are_told_without_their_paths() {
        let told = |location| match judged(302, Some((LOCATION, location))) {
            Outcome::Receiver(why) => why,
            Outcome::Event(verdict) => panic!("{verdict:?}"),
        };
        assert!(told("https://new.example/T0/hunter2").contains("https://new.example:443;"));
        assert!(told("/T0/hunter2/").contains("another path of https://hooks.example:443"));
        assert!(!told("/T0/hunter2/").contains("hunter2"));
    }
}
