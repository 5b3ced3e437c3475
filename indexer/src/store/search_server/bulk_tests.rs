//! Tests of bulk bodies and verdicts.

use std::sync::Arc;

use tributary_dsl::plan::LeafType;

use super::*;
use crate::documents::mapping::Field;
use crate::store::Document;

fn put(id: &str, content: Json) -> DocumentWrite {
    let document = Document { content, refs: vec!["Movie:1".to_owned()], hash: "h".to_owned() };
    DocumentWrite { id: id.to_owned(), stamp: 7, action: WriteAction::Put(Arc::new(document)) }
}

fn delete(id: &str) -> DocumentWrite {
    DocumentWrite { id: id.to_owned(), stamp: 7, action: WriteAction::Delete }
}

fn items(writes: &[DocumentWrite]) -> Vec<Result<Item<'_>, String>> {
    let fields = ["title", "t"].map(|name| (name.to_owned(), Field::Leaf(LeafType::Keyword)));
    writes.iter().map(|write| Item::new(&fields.clone().into(), write)).collect()
}

fn judged(status: u16, body: Json, writes: &[DocumentWrite]) -> Judgement {
    let mut verdicts = vec![None; writes.len()];
    let chunk = encode(&items(writes), &mut verdicts).remove(0);
    judge(&Answer { status, retry_after: None, body }, &chunk, writes, "movies")
}

#[test]
fn a_body_is_one_line_per_action_and_document() {
    let writes = [put("a\"/\n", json!({ "title": "Alien" })), delete("b"), put("c", json!({}))];
    let chunks = encode(&items(&writes), &mut vec![None; 3]);
    let text = String::from_utf8(chunks[0].body.clone()).unwrap();
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0], json!({ "index": { "_id": "a\"/\n", "version": 7, "version_type": "external" } }));
    assert_eq!(
        lines[1],
        json!({ "_key": "a\"/\n", "_refs": ["Movie:1"], "_stamp": 7, "_hash": "h", "title": "Alien" })
    );
    assert_eq!(lines[2]["delete"]["_id"], "b");
    assert_eq!(lines[4]["_key"], "c");
    assert_eq!(lines.len(), 5);
}

#[test]
fn bodies_are_split_by_bytes_and_count_and_unfit_ids_are_left_out() {
    let large = "x".repeat(MAX_BYTES / 3);
    let mut writes: Vec<_> = (0..4).map(|i| put(&i.to_string(), json!({ "t": large }))).collect();
    writes.push(delete(""));
    writes.push(delete(&"x".repeat(513)));
    writes.extend((0..MAX_WRITES + 1).map(|i| delete(&i.to_string())));
    let mut verdicts = vec![None; writes.len()];
    let chunks = encode(&items(&writes), &mut verdicts);
    assert!(chunks.iter().all(|c| c.body.len() <= MAX_BYTES && c.positions.len() <= MAX_WRITES));
    assert_eq!(chunks.iter().map(|c| c.positions.len()).sum::<usize>(), writes.len() - 2);
    assert!(matches!(&verdicts[4], Some(Verdict::Rejected { reason }) if reason.contains("empty")));
    assert!(matches!(&verdicts[5], Some(Verdict::Rejected { reason }) if reason.contains("513 bytes")));
}

#[test]
fn what_is_not_indexed_is_kept_beside_and_given_back() {
    let long = "x".repeat(8192);
    let writes = [put("a", json!({ "title": [long], "t": 1 })), put("b", json!({ "other": 1 }))];
    let mut verdicts = vec![None; 2];
    let chunks = encode(&items(&writes), &mut verdicts);
    assert!(matches!(&verdicts[1], Some(Verdict::Rejected { reason }) if reason.contains("`other`")), "{verdicts:?}");
    let text = String::from_utf8(chunks[0].body.clone()).unwrap();
    let source: Json = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(source[UNINDEXED], json!(["title"]));
    let (content, ours) = content(source);
    assert_eq!(content, json!({ "title": [long], "t": 1 }));
    assert_eq!(ours[STAMP], 7);
    let pruned = json!({ "_kept": r#"{"d":"infinity"}"#, "_key": "a", "d": null, "t": 1 });
    assert_eq!(super::content(pruned).0, json!({ "d": "infinity", "t": 1 }));
}

#[test]
fn items_are_judged_one_by_one() {
    let writes = [delete("a"), put("b", json!({})), put("c", json!({})), put("d", json!({})), put("e", json!({}))];
    let body = json!({ "errors": true, "items": [
        { "delete": { "status": 404, "result": "not_found" } },
        { "index": { "status": 409, "error": { "type": "version_conflict_engine_exception",
            "reason": "[current version [1] ]: version conflict, current version [9] is higher or equal to the one provided [7]" } } },
        { "index": { "status": 400, "error": { "type": "document_parsing_exception",
            "reason": "[1:11] failed to parse field [year] of type [long]",
            "caused_by": { "type": "illegal_argument_exception", "reason": "For input string: \"x\"" } } } },
        { "index": { "status": 429, "error": { "type": "es_rejected_execution_exception", "reason": "rejected execution" } } },
        { "index": { "status": 201, "result": "created" } },
    ] });
    let Judgement::Verdicts(verdicts) = judged(200, body, &writes) else { panic!("verdicts") };
    let verdicts: Vec<Verdict> = verdicts.into_iter().map(Option::unwrap).collect();
    assert_eq!(verdicts[0], Verdict::Written);
    assert_eq!(verdicts[1], Verdict::Superseded { stored: 9 });
    assert!(
        matches!(&verdicts[2], Verdict::Rejected { reason } if reason.contains("[year]") && reason.contains("\"x\""))
    );
    assert!(matches!(&verdicts[3], Verdict::Retry { .. }));
    assert_eq!(verdicts[4], Verdict::Written);
}

#[test]
fn a_whole_request_may_be_refused() {
    let writes = [put("a", json!({})), put("b", json!({}))];
    let Judgement::Verdicts(verdicts) = judged(429, json!({ "error": "busy" }), &writes) else { panic!("verdicts") };
    assert_eq!(verdicts, vec![Some(Verdict::Retry { after: PAUSE, reason: "busy".to_owned() }); 2]);
    assert!(matches!(judged(413, Json::Null, &writes), Judgement::TooLarge));
    assert!(matches!(judged(413, Json::Null, &writes[..1]), Judgement::Verdicts(v) if v.len() == 1));
    assert!(matches!(judged(503, Json::Null, &writes), Judgement::Failed));
    let missing = json!({ "items": [{ "index": { "status": 404, "error": { "type": "index_not_found_exception", "reason": "no such index" } } }] });
    assert!(matches!(judged(200, missing, &writes[..1]), Judgement::IndexMissing(_)));
    let made = json!({ "items": [{ "delete": { "_index": "movies", "status": 404, "result": "not_found" } }] });
    assert!(matches!(judged(200, made, &[delete("a")]), Judgement::IndexMissing(_)), "an index in the alias's place");
}
