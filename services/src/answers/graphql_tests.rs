//! What GraphQL answers say of keys.

use super::*;

fn names(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn found(text: &'static str) -> Said {
    Said::Found(Bytes::from_static(text.as_bytes()))
}

fn doubtful<T>(message: &str) -> Result<T, Unread> {
    Err(Unread::Doubtful(message.to_owned()))
}

fn erred<T>(message: &str) -> Result<T, Unread> {
    Err(Unread::Erred(message.to_owned()))
}

fn movies(body: &str, keys: &[&'static str]) -> Result<Reading, Unread> {
    let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
    list(body.as_bytes(), &names("movies"), &names("id"), &keys)
}

#[test]
fn one_key_is_found_missing_or_failed() {
    let each = names("movie");
    let said = |text: &str| single(text.as_bytes(), &each);
    assert_eq!(said(r#"{"data":{"movie":{"id": 7}}}"#), Ok(found(r#"{"id": 7}"#)));
    assert_eq!(said(r#"{"data":{"movie":null}}"#), Ok(Said::Missing));
    assert_eq!(said(r#"{"data":{"movie":null},"errors":[]}"#), Ok(Said::Missing));
    assert_eq!(said(r#"{"data":null}"#), doubtful("it has neither data nor errors"));
    let boom = r#""errors":[{"message":"boom","path":["movie","title"]}]"#;
    assert_eq!(said(&format!(r#"{{"data":{{"movie":{{"title":null}}}},{boom}}}"#)), erred("boom"));
    assert_eq!(said(&format!(r#"{{"data":{{"movie":null}},{boom}}}"#)), erred("boom"));
    assert_eq!(said(&format!(r#"{{"data":null,{boom}}}"#)), erred("boom"));
    assert_eq!(said(r#"{"data":{"movie":null},"errors":[{"message":"boom"}]}"#), doubtful("boom"));
    assert_eq!(said(r#"{"errors":[{"message":"boom"}]}"#), doubtful("boom"));
    assert_eq!(
        said(r#"{"data":{"movie":7,"other":null},"errors":[{"message":"x","path":["other"]}]}"#),
        Ok(found("7"))
    );
    assert!(matches!(said("<html>"), Err(Unread::Doubtful(_))));
    assert_eq!(said(r#"{"data":{}}"#), doubtful("the answer itself has no \"movie\""));
}

#[test]
fn an_error_in_an_element_is_its_keys() {
    let body = r#"{"data":{"movies":[{"id":1},{"id":"2","title":null}]},
        "errors":[{"message":"boom","path":["movies",1,"title"]}]}"#;
    let reading = movies(body, &["2", "1", "3"]).unwrap();
    assert_eq!(reading.said, [Said::Erred("boom".to_owned()), found(r#"{"id":1}"#), Said::Absent]);
    assert!(reading.may_hide, "the third may be what the error is about");
}

#[test]
fn null_elements_hide_keys_only_beside_errors() {
    let reading = movies(r#"{"data":{"movies":[null,{"id":2}]}}"#, &["1", "2"]).unwrap();
    assert_eq!((reading.said, reading.may_hide), (vec![Said::Absent, found(r#"{"id":2}"#)], false));
    let body = r#"{"data":{"movies":[null,{"id":2}]},"errors":[{"message":"boom","path":["movies",0]}]}"#;
    let reading = movies(body, &["1", "2"]).unwrap();
    assert_eq!((reading.said, reading.may_hide), (vec![Said::Absent, found(r#"{"id":2}"#)], true));
    let alone = r#"{"data":{"movies":[null]},"errors":[{"message":"boom","path":["movies",0]}]}"#;
    assert_eq!(movies(alone, &["1"]), erred("boom"));
    let nowhere = r#"{"data":{"movies":[]},"errors":[{"message":"boom"}]}"#;
    assert_eq!(movies(nowhere, &["1"]), doubtful("boom"));
}

#[test]
fn what_says_nothing_of_any_key_is_no_absence() {
    let boom = r#"{"data":null,"errors":[{"message":"boom"}]}"#;
    assert_eq!(movies(boom, &["1", "2"]), doubtful("boom"));
    assert_eq!(movies(boom, &["1"]), doubtful("boom"));
    let risen = r#"{"data":{"movies":null},"errors":[{"message":"boom","path":["movies",4,"id"]}]}"#;
    assert_eq!(movies(risen, &["1", "2"]), doubtful("boom"));
    assert_eq!(movies(risen, &["1"]), erred("boom"));
    let hidden = movies(r#"{"data":{"movies":null}}"#, &["1", "2"]).unwrap();
    assert_eq!((hidden.said, hidden.may_hide), (vec![Said::Absent, Said::Absent], true));
    assert_eq!(movies(r#"{"data":{"movies":{}}}"#, &["1"]), doubtful("movies is an object, not a list"));
    assert_eq!(
        movies(r#"{"data":{"movies":[{"title":"x"}]}}"#, &["1"]),
        doubtful("an element, which is an object, has no key at id")
    );
}
