//! Answers of services that speak JSON over HTTP.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::matching::Matching;
use super::raw::{Identity, Walked, elements, is_null, kind, members, walk};
use super::{Reading, Said, Unread, dotted};

/// What an answer about one key says.
pub(crate) fn single(body: &[u8], each: &[String]) -> Result<Said, Unread> {
    match walk(read(body)?, each) {
        Walked::At(found) => Ok(Said::Found(Bytes::copy_from_slice(found.get().as_bytes()))),
        Walked::Null => Ok(Said::Missing),
        Walked::Lost(passed) => Err(lost(each, passed)),
    }
}

/// What an answer about several keys says: a list of elements that have their key at `matched`, or, without that, an object whose members
/// are named by keys.
pub(crate) fn list(body: &[u8], each: &[String], matched: &[String], keys: &[Bytes]) -> Result<Reading, Unread> {
    let found = match walk(read(body)?, each) {
        Walked::At(found) => found,
        Walked::Null => return Ok(Reading::of_none(keys.len())),
        Walked::Lost(passed) => return Err(lost(each, passed)),
    };
    let mut matching = Matching::new();
    match (elements(found), members(found)) {
        (Some(elements), _) if !matched.is_empty() => {
            elements.into_iter().for_each(|element| matching.add(element, matched, None));
        }
        (None, Some(members)) if matched.is_empty() => {
            for (name, member) in members.into_iter().filter(|(_, member)| !is_null(member)) {
                matching.put(Identity::Scalar(name.into_owned()), member, None);
            }
        }
        _ => {
            let wanted = if matched.is_empty() { "an object of keys" } else { "a list" };
            return Err(Unread::Doubtful(format!("{} is {}, not {wanted}", dotted(each), kind(found))));
        }
    }
    matching.read(keys, false).map_err(Unread::Doubtful)
}

fn read(body: &[u8]) -> Result<&RawValue, Unread> {
    serde_json::from_slice(body).map_err(|e| Unread::Doubtful(format!("it is no JSON: {e}")))
}

pub(super) fn lost(each: &[String], passed: usize) -> Unread {
    let (before, behind) = each.split_at(passed.min(each.len()));
    let name = behind.first().map(String::as_str).unwrap_or_default();
    Unread::Doubtful(format!("{} has no {name:?}", dotted(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn found(text: &'static str) -> Said {
        Said::Found(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn an_answer_about_one_key_is_taken_as_it_was_sent() {
        let each = names("price");
        let said = |text: &str| single(text.as_bytes(), &each);
        assert_eq!(
            said(r#"{"price":  {"eur": 12345678901234567890.10 }}"#),
            Ok(found(r#"{"eur": 12345678901234567890.10 }"#))
        );
        assert_eq!(said(r#"{"price":null}"#), Ok(Said::Missing));
        assert_eq!(said("null"), Ok(Said::Missing));
        for wrong in ["", "<html>", "{}", "[]", "7", r#"{"price":1"#, "{\"price\":\"\u{1}\"}"] {
            assert!(matches!(said(wrong), Err(Unread::Doubtful(_))), "{wrong}");
        }
        assert!(matches!(single(b"{\"price\":\"\xff\"}", &each), Err(Unread::Doubtful(_))));
    }

    #[test]
    fn elements_go_to_their_keys_whatever_their_order() {
        let keys: Vec<Bytes> = ["1", "\"2\"", "3", "4"].map(|key| Bytes::from_static(key.as_bytes())).to_vec();
        let body = br#"{"all":[{"id":"3"},null,{"id":2,"n":1},{"id":9},{"id":1},{"id":1}]}"#;
        let reading = list(body, &names("all"), &names("id"), &keys).unwrap();
        assert_eq!(
            reading.said,
            [found(r#"{"id":1}"#), found(r#"{"id":2,"n":1}"#), found(r#"{"id":"3"}"#), Said::Absent]
        );
        assert!(!reading.may_hide);
        let differ = list(br#"[{"id":1,"a":1},{"id":1}]"#, &[], &names("id"), &keys[..1]).unwrap();
        assert!(matches!(differ.said[0], Said::Erred(_)));
        let hidden = list(br#"{"all":null}"#, &names("all"), &names("id"), &keys).unwrap();
        assert_eq!((hidden.said, hidden.may_hide), (vec![Said::Absent; 4], true));
    }

    #[test]
    fn an_element_without_a_key_matters_if_a_key_is_without_an_element() {
        let body = br#"[{"id":1},{"title":"x"},7]"#;
        let keys = [Bytes::from_static(b"1"), Bytes::from_static(b"2")];
        assert!(list(body, &[], &names("id"), &keys[..1]).is_ok());
        assert!(matches!(list(body, &[], &names("id"), &keys), Err(Unread::Doubtful(_))));
    }

    #[test]
    fn an_object_of_keys_is_taken_apart() {
        let keys: Vec<Bytes> = ["7", "\"a b\"", "8", "9"].map(|key| Bytes::from_static(key.as_bytes())).to_vec();
        let reading = list(br#"{"a b":[1],"7":0,"9":null}"#, &[], &[], &keys).unwrap();
        assert_eq!(reading.said, [found("0"), found("[1]"), Said::Absent, Said::Absent]);
        for wrong in ["[]", "7"] {
            assert!(list(wrong.as_bytes(), &[], &[], &keys).is_err(), "{wrong}");
        }
        assert!(list(b"{}", &[], &names("id"), &keys).is_err());
    }
}
