//! Answers of GraphQL services (GraphQL specification of September 2025, section 7): `data`, and errors, of which those with a path say
//! where in `data` something is not as it should be.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::matching::Matching;
use super::raw::{Walked, elements, kind, walk};
use super::rest::lost;
use super::{Reading, Said, Unread, dotted};

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default, borrow)]
    errors: Option<Vec<ServerError<'a>>>,
}

#[derive(Deserialize)]
struct ServerError<'a> {
    #[serde(default)]
    message: Option<String>,
    #[serde(default, borrow)]
    path: Option<Vec<&'a RawValue>>,
}

impl ServerError<'_> {
    fn message(&self) -> String {
        self.message.clone().unwrap_or_else(|| "an error without a message".to_owned())
    }

    /// How its path lies to names of fields.
    fn lies(&self, names: &[String]) -> Lies {
        let Some(path) = self.path.as_deref().filter(|path| !path.is_empty()) else { return Lies::Nowhere };
        let same = |(name, part): (&String, &&RawValue)| {
            serde_json::from_str::<String>(part.get()).is_ok_and(|part| part == *name)
        };
        if !names.iter().zip(path).all(same) {
            return Lies::Beside;
        }
        match path.get(names.len()) {
            _ if path.len() < names.len() => Lies::Above,
            None => Lies::At,
            Some(next) => Lies::Within(next.get().parse().ok()),
        }
    }
}

/// How the path of an error lies to a place in `data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lies {
    /// It has none.
    Nowhere,
    /// It leads elsewhere.
    Beside,
    /// It ends on the way there.
    Above,
    /// It ends there.
    At,
    /// It leads inside of it, into the element of that number if it is a list.
    Within(Option<usize>),
}

/// What an answer about one key says.
pub(crate) fn single(body: &[u8], each: &[String]) -> Result<Said, Unread> {
    let (data, errors) = read(body)?;
    let walked = data.map_or(Walked::Null, |data| walk(data, each));
    let has_value = matches!(walked, Walked::At(_));
    let mut nowhere = None;
    for error in &errors {
        match error.lies(each) {
            Lies::Above | Lies::At | Lies::Within(_) => return Err(Unread::Erred(error.message())),
            // It may be a warning where there is data.
            Lies::Nowhere | Lies::Beside if has_value => {}
            Lies::Nowhere | Lies::Beside => nowhere = nowhere.or_else(|| Some(error.message())),
        }
    }
    match (walked, nowhere) {
        (Walked::At(found), _) => Ok(Said::Found(Bytes::copy_from_slice(found.get().as_bytes()))),
        (_, Some(message)) => Err(Unread::Doubtful(message)),
        (Walked::Null, None) => Ok(Said::Missing),
        (Walked::Lost(passed), None) => Err(lost(each, passed)),
    }
}

/// What an answer about several keys says: a list at `each` of elements that have their key at `matched`.
pub(crate) fn list(body: &[u8], each: &[String], matched: &[String], keys: &[Bytes]) -> Result<Reading, Unread> {
    let (data, errors) = read(body)?;
    let first = errors.first().map(ServerError::message);
    let found = match data.map_or(Walked::Null, |data| walk(data, each)) {
        Walked::At(found) => found,
        Walked::Null | Walked::Lost(_) if !errors.is_empty() => {
            let within = errors.iter().find(|error| matches!(error.lies(each), Lies::Within(_)));
            return Err(match within {
                Some(error) if keys.len() == 1 => Unread::Erred(error.message()),
                _ => Unread::Doubtful(first.unwrap_or_default()),
            });
        }
        Walked::Null => return Ok(Reading::of_none(keys.len())),
        Walked::Lost(passed) => return Err(lost(each, passed)),
    };
    let Some(elements) = elements(found) else {
        return Err(Unread::Doubtful(format!("{} is {}, not a list", dotted(each), kind(found))));
    };
    let mut matching = Matching::new();
    for (number, element) in elements.into_iter().enumerate() {
        let error = errors.iter().find(|error| error.lies(each) == Lies::Within(Some(number)));
        matching.add(element, matched, error.map(ServerError::message));
    }
    let strange = |what| Unread::Doubtful(first.clone().unwrap_or(what));
    let reading = matching.read(keys, !errors.is_empty()).map_err(strange)?;
    match (reading.said.as_slice(), errors.first()) {
        // Alone it is clear whose the errors are.
        ([Said::Absent], Some(error)) => Err(match errors.iter().find(|e| matches!(e.lies(each), Lies::Within(_))) {
            Some(error) => Unread::Erred(error.message()),
            None => Unread::Doubtful(error.message()),
        }),
        _ => Ok(reading),
    }
}

type Parts<'a> = (Option<&'a RawValue>, Vec<ServerError<'a>>);

fn read(body: &[u8]) -> Result<Parts<'_>, Unread> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|e| Unread::Doubtful(format!("it is no GraphQL answer: {e}")))?;
    let errors = envelope.errors.unwrap_or_default();
    if envelope.data.is_none() && errors.is_empty() {
        return Err(Unread::Doubtful("it has neither data nor errors".to_owned()));
    }
    Ok((envelope.data, errors))
}

#[cfg(test)]
#[path = "graphql_tests.rs"]
mod tests;
