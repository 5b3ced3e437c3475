//! How a service is asked for keys: keys → request, reply → what it says of each.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde_json::value::RawValue;
use tributary_dsl::plan::CallPlan;
use tributary_expression::{Flow, Program, Value, json};
use tributary_processor::OutsideError;
use url::Url;

use crate::answers::{Reading, Said, Unread, graphql, rest};
use crate::http::trouble::Trouble;
use crate::http::{Reply, Request};
use crate::service::Service;

/// What stands for the key in a path.
const PLACE_OF_KEY: &str = "{key}";
/// The longest that making a body may take.
const BODY_LIMIT: Duration = Duration::from_millis(50);
/// Characters of keys that stay as they are in a URL (RFC 3986, section 2.3: unreserved ones).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How a service is asked.
pub(crate) struct Call {
    kind: Kind,
    /// Whether keys are asked for together.
    pub is_list: bool,
    each: Vec<String>,
    matched: Vec<String>,
}

/// What is sent. Its URL may hold secrets: it is never printed.
enum Kind {
    /// The body up to the variable's value, and behind it.
    Graphql { before: String, behind: &'static str, url: Url },
    /// The URL with [`PLACE_OF_KEY`] in it.
    Rest { method: Method, url: String, body: Option<Box<Program>> },
}

impl Call {
    /// `instead`: a query that is sent instead of the plan's.
    pub(crate) fn new(service: &Service, plan: &CallPlan, instead: Option<&str>) -> Result<Self, OutsideError> {
        let wrong = |what: String| OutsideError::fatal(format!("services.{}: {what}", service.name()));
        let (kind, is_list, each, matched) = match plan {
            CallPlan::Graphql { query, operation, variable, is_list, each, matched } => {
                let text = |text: &str| serde_json::Value::from(text).to_string();
                let mut before = format!(r#"{{"query":{}"#, text(instead.unwrap_or(query)));
                if let Some(operation) = operation {
                    before.push_str(&format!(r#","operationName":{}"#, text(operation)));
                }
                before.push_str(&format!(r#","variables":{{{}:"#, text(variable)));
                let kind = Kind::Graphql { before, behind: "}}", url: service.client.url.clone() };
                (kind, is_list, each, matched)
            }
            CallPlan::Rest { method, path, body, is_list, each, matched, .. } => {
                if *is_list && path.contains(PLACE_OF_KEY) {
                    return Err(wrong(format!(
                        "the path {path} takes one key, and keys are asked for together; send them in a body of .keys"
                    )));
                }
                let method = Method::from_bytes(method.as_bytes())
                    .map_err(|_| wrong(format!("{method:?} is no method of HTTP; write GET, POST or PUT")))?;
                let url = joined(&service.client.url, path);
                Url::parse(&url.replace(PLACE_OF_KEY, "1"))
                    .map_err(|e| wrong(format!("with the path {path} its URL is none: {e}")))?;
                (Kind::Rest { method, url, body: body.clone() }, is_list, each, matched)
            }
        };
        if matches!(kind, Kind::Graphql { .. }) && *is_list && matched.is_empty() {
            return Err(wrong("an element of a GraphQL answer needs a field that is its key".to_owned()));
        }
        Ok(Self { kind, is_list: *is_list, each: each.clone(), matched: matched.clone() })
    }

    /// The request for keys: of one key unless they are asked for together.
    pub(crate) fn request(&self, keys: &[Bytes]) -> Result<Request, String> {
        let texts: Vec<&RawValue> = keys.iter().map(|key| raw(key)).collect::<Result<_, _>>()?;
        let all = || texts.iter().map(|text| text.get()).collect::<Vec<_>>().join(",");
        match &self.kind {
            Kind::Graphql { before, behind, url } => {
                let value = if self.is_list { format!("[{}]", all()) } else { all() };
                let body = format!("{before}{value}{behind}").into_bytes();
                Ok(Request { method: Method::POST, url: url.clone(), body: Some(body), keys: keys.to_vec() })
            }
            Kind::Rest { method, url, body } => {
                let url = match texts.first().filter(|_| !self.is_list) {
                    Some(key) => filled(url, key)?,
                    None => url.clone(),
                };
                let url = Url::parse(&url).map_err(|e| format!("with this key the URL is none: {e}"))?;
                let body = body.as_ref().map(|program| self.body(program, keys)).transpose()?;
                Ok(Request { method: method.clone(), url, body, keys: keys.to_vec() })
            }
        }
    }

    /// What a program makes of keys.
    fn body(&self, program: &Program, keys: &[Bytes]) -> Result<Vec<u8>, String> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(json::read(key).map_err(|e| format!("a key cannot be read: {e}"))?);
        }
        let (name, value) = match self.is_list {
            true => ("keys", Value::Array(values)),
            false => ("key", values.pop().unwrap_or(Value::Null)),
        };
        let event = Value::Object([(name.into(), value)].into_iter().collect());
        let answered = program.run(&mut Flow::new(event), BODY_LIMIT);
        let value = answered.map_err(|failure| format!("the program of the body failed: {failure}"))?;
        let mut body = Vec::new();
        json::write(&value, &mut body);
        Ok(body)
    }

    /// What a reply says of the keys that were asked for.
    pub(crate) fn read(&self, service: &Service, keys: &[Bytes], reply: &Reply) -> Result<Reading, Trouble> {
        let client = &service.client;
        if let Some(said) = &reply.said {
            return Ok(Reading { said: said.clone(), may_hide: false, stray: None });
        }
        if !reply.status.is_success() {
            if matches!(self.kind, Kind::Rest { .. }) && !self.is_list {
                return Ok(Reading::of_one(Said::Missing));
            }
            let said = client.secrets.excerpt(&reply.body);
            let (place, status) = (&client.place, reply.status);
            // A service may say so of keys, so that it is one of them at first.
            return Err(Trouble::Doubtful(format!("{place} answered {status}: check its URL; it said: {said}")));
        }
        let body = &reply.body;
        let (each, matched) = (&self.each, &self.matched);
        let read = match (&self.kind, self.is_list) {
            (Kind::Graphql { .. }, true) => graphql::list(body, each, matched, keys),
            (Kind::Graphql { .. }, false) => graphql::single(body, each).map(Reading::of_one),
            (Kind::Rest { .. }, true) => rest::list(body, each, matched, keys),
            // What has no content is not there.
            (Kind::Rest { .. }, false) if reply.status == StatusCode::NO_CONTENT => Ok(Reading::of_one(Said::Missing)),
            (Kind::Rest { .. }, false) => rest::single(body, each).map(Reading::of_one),
        };
        read.map_err(|unread| {
            let told = |message: &str| {
                let message = client.secrets.excerpt(message.as_bytes());
                format!("{} answered: {message}; it said: {}", client.place, client.secrets.excerpt(body))
            };
            match unread {
                Unread::Doubtful(message) => Trouble::Doubtful(told(&message)),
                Unread::Erred(message) => Trouble::Erred(told(&message)),
            }
        })
    }
}

fn raw(key: &Bytes) -> Result<&RawValue, String> {
    serde_json::from_slice(key).map_err(|e| format!("the key is no JSON: {e}"))
}

/// A path behind a URL, before the URL's own query.
fn joined(base: &Url, path: &str) -> String {
    let mut base = base.clone();
    let query = base.query().map(str::to_owned);
    base.set_query(None);
    base.set_fragment(None);
    let start = base.as_str().trim_end_matches('/');
    let slash = if path.is_empty() || path.starts_with(['/', '?']) { "" } else { "/" };
    let mut url = format!("{start}{slash}{path}");
    if let Some(query) = query {
        url.push(if path.contains('?') { '&' } else { '?' });
        url.push_str(&query);
    }
    url
}

/// A URL with a key in it.
fn filled(url: &str, key: &RawValue) -> Result<String, String> {
    let text = match serde_json::from_str::<String>(key.get()) {
        Ok(text) => text,
        Err(_) => key.get().to_owned(),
    };
    let escaped = utf8_percent_encode(&text, ESCAPED).to_string();
    let path = url.split('?').next().unwrap_or_default();
    for segment in path.split('/').filter(|segment| segment.contains(PLACE_OF_KEY)) {
        // Such a segment would make another path of it.
        if matches!(segment.replace(PLACE_OF_KEY, &escaped).as_str(), "" | "." | "..") {
            return Err(format!("the key {} cannot stand in a path", key.get()));
        }
    }
    Ok(url.replace(PLACE_OF_KEY, &escaped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_behind_the_url_and_before_its_query() {
        let url = |base: &str, path: &str| joined(&Url::parse(base).unwrap(), path);
        assert_eq!(url("http://a", "/b"), "http://a/b");
        assert_eq!(url("http://a/v1/", "b/{key}"), "http://a/v1/b/{key}");
        assert_eq!(url("http://a/v1?k=1", "/b"), "http://a/v1/b?k=1");
        assert_eq!(url("http://a/v1?k=1", "/b?id={key}"), "http://a/v1/b?id={key}&k=1");
        assert_eq!(url("http://a/v1", ""), "http://a/v1");
    }

    #[test]
    fn keys_are_escaped_and_leave_the_path_as_it_is() {
        let filled = |key: &str| {
            let key = RawValue::from_string(key.to_owned()).unwrap();
            filled("http://a/b/{key}/c?of={key}", &key)
        };
        assert_eq!(filled("7").unwrap(), "http://a/b/7/c?of=7");
        assert_eq!(
            filled(r#""a/b ?é{key}""#).unwrap(),
            "http://a/b/a%2Fb%20%3F%C3%A9%7Bkey%7D/c?of=a%2Fb%20%3F%C3%A9%7Bkey%7D"
        );
        assert_eq!(filled(r#"{"a":1}"#).unwrap(), "http://a/b/%7B%22a%22%3A1%7D/c?of=%7B%22a%22%3A1%7D");
        for key in [r#""..""#, r#"".""#, r#""""#] {
            assert!(filled(key).is_err(), "{key}");
        }
        let url = Url::parse(&filled(r#""../..""#).unwrap()).unwrap();
        assert_eq!(url.path(), "/b/..%2F../c");
    }
}
