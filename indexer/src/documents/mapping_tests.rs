//! Tests of mappings.

use tributary_dsl::plan::{FieldKind, LeafType, SelectedField, Selection};

use super::*;

fn leaf(key: &str, kind: LeafType) -> SelectedField {
    selected(key, FieldKind::Leaf(kind))
}

fn selected(key: &str, kind: FieldKind) -> SelectedField {
    SelectedField::new(key, kind)
}

fn object(key: &str, nested: bool, fields: Vec<SelectedField>) -> SelectedField {
    selected(key, FieldKind::Object { vertex: true, nested, selection: Selection { fields } })
}

fn merged(fields: Vec<SelectedField>) -> Result<Fields, MappingError> {
    let mut into = Fields::new();
    merge_selection(&mut into, &Selection { fields }, "")?;
    Ok(into)
}

#[test]
fn fragments_merge_and_hidden_fields_are_left_out() {
    let mut hidden = leaf("__typename", LeafType::Keyword);
    hidden.hidden = true;
    let fields = merged(vec![
        hidden,
        object("owner", false, vec![leaf("name", LeafType::Keyword)]),
        object("owner", false, vec![leaf("age", LeafType::Long), leaf("name", LeafType::Keyword)]),
    ])
    .unwrap();
    let Field::Object { fields: owner, .. } = &fields["owner"] else { panic!("an object") };
    assert_eq!(owner.keys().collect::<Vec<_>>(), ["age", "name"]);
    assert_eq!(fields.len(), 1);
}

#[test]
fn a_name_with_two_types_is_refused_with_its_path() {
    let owner = |kind| object("owner", false, vec![leaf("size", kind)]);
    let error = merged(vec![owner(LeafType::Long), owner(LeafType::Keyword)]).unwrap_err();
    assert!(error.to_string().starts_with("field `owner.size` is selected as long and as keyword"), "{error}");
    let error = merged(vec![leaf("a", LeafType::Long), object("a", true, vec![])]).unwrap_err();
    assert!(error.to_string().contains("nested objects"), "{error}");
    let error = merged(vec![object("a", true, vec![]), leaf("a", LeafType::Long)]).unwrap_err();
    assert!(error.to_string().contains("nested objects"), "{error}");
}

#[test]
fn every_type_has_its_property() {
    let fields = merged(vec![
        leaf("text", LeafType::Text { analyzer: "english".to_owned() }),
        leaf("any", LeafType::Object),
        leaf("ignored", LeafType::Ignore),
        object("list", true, vec![leaf("day", LeafType::Date)]),
    ])
    .unwrap();
    assert_eq!(
        Json::Object(properties(&fields, Dialect::Elasticsearch)),
        json!({
            "text": { "type": "text", "analyzer": "english", "fields": { "raw": { "type": "keyword", "ignore_above": 8191 } } },
            "any": { "type": "flattened", "ignore_above": 8191 },
            "ignored": { "type": "object", "enabled": false },
            "list": { "type": "nested", "include_in_root": true, "dynamic": "strict", "properties": {
                "day": { "type": "date", "format": "strict_date_optional_time||epoch_millis" } } },
        })
    );
    assert_eq!(properties(&fields, Dialect::OpenSearch)["any"], json!({ "type": "flat_object" }));
    assert_eq!(default_search_fields(&fields), ["text"]);
}

#[test]
fn differences_name_fields_and_overlook_what_servers_leave_out() {
    let planned = json!({ "dynamic": "strict", "properties": {
        "title": { "type": "text", "analyzer": "standard", "fields": { "raw": { "type": "keyword", "ignore_above": 8191 } } },
        "year": { "type": "long" },
        "day": { "type": "date", "format": DATE_FORMAT },
        "owner": { "dynamic": "strict", "properties": { "name": { "type": "keyword" } } },
    } });
    let same = json!({ "dynamic": "strict", "properties": {
        "title": { "type": "text", "fields": { "raw": { "type": "keyword", "ignore_above": 8191 } } },
        "year": { "type": "long" },
        "day": { "type": "date" },
        "owner": { "type": "object", "properties": { "name": { "type": "keyword" } } },
    } });
    assert_eq!(differences(&planned, &same), Vec::<String>::new());
    let other = json!({ "properties": {
        "title": { "type": "text", "analyzer": "english" },
        "year": { "type": "keyword" },
        "owner": { "properties": { "name": { "type": "keyword" }, "age": { "type": "long" } } },
    } });
    assert_eq!(
        differences(&planned, &other),
        [
            "`day` is missing and should be date",
            "`owner.age` is long and is not in the plan",
            "`title` is text, analyzer english and should be text",
            "`title.raw` is missing and should be keyword, ignore_above 8191",
            "`year` is keyword and should be long",
        ]
    );
}

#[test]
fn fields_that_an_earlier_version_lacks_are_additions_and_no_differences() {
    let planned = json!({ "properties": {
        "year": { "type": "long" }, KEPT: { "type": "object", "enabled": false }, UNINDEXED: { "type": "keyword" },
    } });
    let found = json!({ "properties": { "year": { "type": "long" } } });
    assert_eq!(differences(&planned, &found), Vec::<String>::new());
    assert_eq!(
        Json::Object(additions(&planned, &found)),
        json!({
            KEPT: { "type": "object", "enabled": false }, UNINDEXED: { "type": "keyword" },
        })
    );
    assert!(additions(&planned, &planned).is_empty());
    assert_eq!(differences(&planned, &planned), Vec::<String>::new());
    let other = json!({ "properties": { "year": { "type": "long" }, KEPT: { "type": "keyword" } } });
    assert_eq!(differences(&planned, &other), ["`_kept` is keyword and should be object, enabled false"]);
}
