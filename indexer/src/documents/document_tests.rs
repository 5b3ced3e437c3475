use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::graph::tests::{hidden, index, leaf, object};

fn movies() -> IndexPlan {
    let talent = vec![hidden("__typename"), leaf("id"), leaf("name")];
    index(
        true,
        vec![
            hidden("__typename"),
            hidden("id"),
            leaf("title"),
            SelectedField { list: true, ..object("talents", true, talent) },
            object(
                "distributor",
                true,
                vec![hidden("__typename"), hidden("id"), leaf("name"), object("address", false, vec![leaf("city")])],
            ),
            SelectedField { list: true, ..leaf("genres") },
        ],
    )
}

fn alien() -> Json {
    json!({
        "__typename": "Movie", "id": 7, "title": "Alien",
        "talents": [
            {"__typename": "Talent", "id": "2", "name": "Scott"},
            null,
            {"__typename": "Talent", "id": "1", "name": "O'Bannon"},
            {"__typename": "Talent", "id": "2", "name": "Scott"},
        ],
        "distributor": {"__typename": "Company", "id": "f:x", "name": "Fox", "address": {"city": null}},
        "genres": ["Horror", "Science Fiction"],
    })
}

#[test]
fn hidden_fields_go_and_every_vertex_is_a_reference() {
    let document = assemble(&movies(), &alien()).unwrap();
    assert_eq!(
        document.content,
        json!({
            "title": "Alien",
            "talents": [
                {"id": "2", "name": "Scott"}, null, {"id": "1", "name": "O'Bannon"}, {"id": "2", "name": "Scott"},
            ],
            "distributor": {"name": "Fox", "address": {"city": null}},
            "genres": ["Horror", "Science Fiction"],
        })
    );
    assert_eq!(document.refs, ["Company:f:x", "Movie:7", "Talent:1", "Talent:2"]);
    assert_eq!(document.hash.len(), 32);
}

#[test]
fn levels_without_fields_of_their_own_disappear() {
    let flat = |field: SelectedField| SelectedField { flatten: true, ..field };
    let list = |field: SelectedField| SelectedField { list: true, ..field };
    let page =
        SelectedField { hidden: true, key: "_page".into(), ..SelectedField::new("pageInfo", FieldKind::LastPage) };
    let key = |name: &str| SelectedField { identity: true, ..leaf(name) };
    let talent = vec![hidden("__typename"), key("rowId"), leaf("name")];
    let credit = vec![hidden("__typename"), flat(object("talent", true, talent))];
    let genre = vec![hidden("__typename"), flat(leaf("label"))];
    let plan = index(
        true,
        vec![
            hidden("__typename"),
            hidden("id"),
            object("talents", false, vec![page, flat(list(object("nodes", false, credit)))]),
            object("genres", false, vec![flat(list(object("nodes", false, genre)))]),
            object("first", false, vec![flat(object("talent", true, vec![hidden("__typename"), key("rowId")]))]),
        ],
    );
    let scott = json!({"__typename": "Talent", "rowId": 2, "name": "Scott"});
    let answer = |more: bool| {
        json!({
            "__typename": "Movie", "id": "7",
            "talents": {"_page": {"hasNextPage": more}, "nodes": [{"talent": scott}, {"talent": null}, null, {"talent": scott}]},
            "genres": {"nodes": [{"label": "Horror"}, {"label": "Space"}]},
            "first": null,
        })
    };
    let document = assemble(&plan, &answer(false)).unwrap();
    let expected = json!({"rowId": 2, "name": "Scott"});
    assert_eq!(
        document.content,
        json!({"talents": [expected, expected], "genres": ["Horror", "Space"], "first": null})
    );
    assert_eq!(document.refs, ["Movie:7", "Talent:2"]);
    let error = assemble(&plan, &answer(true)).unwrap_err();
    assert!(error.path == "talents" && error.problem.contains("another page"), "{error}");
    let mapped = crate::documents::mapping::fields(&plan.selection).unwrap();
    assert_eq!(mapped.keys().collect::<Vec<_>>(), ["first", "genres", "talents"]);
    assert_eq!(mapped["genres"], crate::documents::mapping::Field::Leaf(LeafType::Keyword));
    let crate::documents::mapping::Field::Object { fields, .. } = &mapped["talents"] else { panic!("{mapped:?}") };
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["name", "rowId"]);
}

#[test]
fn what_was_not_asked_for_is_left_out() {
    let mut answer = alien();
    answer["surplus"] = json!(1);
    assert_eq!(assemble(&movies(), &answer).unwrap(), assemble(&movies(), &alien()).unwrap());
}

#[test]
fn null_edges_and_empty_lists_are_kept() {
    let mut answer = alien();
    answer["talents"] = json!([]);
    answer["distributor"] = Json::Null;
    let document = assemble(&movies(), &answer).unwrap();
    assert_eq!(document.content["talents"], json!([]));
    assert_eq!(document.content["distributor"], Json::Null);
    assert_eq!(document.refs, ["Movie:7"]);
}

#[test]
fn an_unexpected_shape_names_its_path() {
    let cases: [(&str, Json, &str, &str); 8] = [
        ("/talents/2", json!({"__typename": "Talent", "name": "x", "id": null}), "talents[2]", "its id is null"),
        ("/talents/2", json!({"__typename": "Talent", "name": "x"}), "talents[2]", "has no `id`"),
        ("/talents/2", json!({"__typename": "Talent", "id": "1"}), "talents[2].name", "is not in the answer"),
        ("/talents/0", json!({"id": "1", "name": "x"}), "talents[0]", "has no `__typename`"),
        ("/talents/0/name", json!(["x"]), "talents[0].name", "expected a plain value, got a list"),
        ("/talents", json!({}), "talents", "expected a list, got an object"),
        ("/distributor", json!([]), "distributor", "expected an object, got a list"),
        ("/distributor/address", json!("x"), "distributor.address", "expected an object, got a string"),
    ];
    for (at, value, path, problem) in cases {
        let mut answer = alien();
        *answer.pointer_mut(at).unwrap() = value;
        let error = assemble(&movies(), &answer).unwrap_err();
        assert_eq!(error.path, path);
        assert!(error.problem.contains(problem), "{error}");
    }
    assert_eq!(assemble(&movies(), &json!([1])).unwrap_err().path, "the root");
}

#[test]
fn leaves_are_checked_by_their_type() {
    let typed = |name: &str, leaf_type: LeafType| SelectedField { kind: FieldKind::Leaf(leaf_type), ..leaf(name) };
    let plan = index(
        true,
        vec![
            hidden("__typename"),
            leaf("id"),
            typed("year", LeafType::Long),
            typed("good", LeafType::Boolean),
            typed("extra", LeafType::Object),
        ],
    );
    let answer = |year: Json, good: Json| json!({"__typename": "Movie", "id": "1", "year": year, "good": good, "extra": {"a": [1, {}]}});
    let document = assemble(&plan, &answer(json!(9_223_372_036_854_775_807_i64), json!(true))).unwrap();
    assert_eq!(
        document.content,
        json!({"id": "1", "year": 9_223_372_036_854_775_807_i64, "good": true, "extra": {"a": [1, {}]}})
    );
    assert_eq!(assemble(&plan, &answer(json!(true), json!(true))).unwrap_err().path, "year");
    assert_eq!(assemble(&plan, &answer(json!(1), json!("yes"))).unwrap_err().path, "good");
}

fn on(condition: &str, field: SelectedField) -> SelectedField {
    SelectedField { on: Some(condition.into()), ..field }
}

#[test]
fn conditions_follow_the_concrete_type() {
    let work = vec![
        hidden("__typename"),
        hidden("id"),
        on("Film", leaf("length")),
        on("Film", object("maker", true, vec![hidden("__typename"), hidden("id"), leaf("studio")])),
        on("Book", object("maker", true, vec![hidden("__typename"), hidden("id"), leaf("publisher")])),
        on("Priced", leaf("price")),
    ];
    let plan = index(true, vec![hidden("__typename"), hidden("id"), object("work", true, work)]);
    let answer = |work: Json| json!({"__typename": "Movie", "id": "1", "work": work});
    let maker = |key: &str| json!({"__typename": "Company", "id": "9", key: "x"});

    let film = json!({"__typename": "Film", "id": "f", "length": 90, "maker": maker("studio")});
    let document = assemble(&plan, &answer(film)).unwrap();
    assert_eq!(document.content, json!({"work": {"length": 90, "maker": {"studio": "x"}}}));
    assert_eq!(document.refs, ["Company:9", "Film:f", "Movie:1"]);

    let book = json!({"__typename": "Book", "id": "b", "price": 3, "maker": maker("publisher")});
    let document = assemble(&plan, &answer(book)).unwrap();
    assert_eq!(document.content, json!({"work": {"maker": {"publisher": "x"}, "price": 3}}));

    let short = json!({"__typename": "Film", "id": "f", "maker": maker("studio")});
    assert_eq!(assemble(&plan, &answer(short)).unwrap_err().path, "work.length");
    let other = json!({"__typename": "Song", "id": "s"});
    assert_eq!(assemble(&plan, &answer(other)).unwrap().content, json!({"work": {}}));
}

#[test]
fn a_member_of_a_union_need_not_be_a_vertex() {
    let work =
        vec![hidden("__typename"), on("Film", hidden("id")), on("Film", leaf("length")), on("Note", leaf("text"))];
    let plan = index(true, vec![hidden("__typename"), hidden("id"), object("work", true, work)]);
    let note = json!({"__typename": "Movie", "id": "1", "work": {"__typename": "Note", "text": "t"}});
    let document = assemble(&plan, &note).unwrap();
    assert_eq!((document.content, document.refs), (json!({"work": {"text": "t"}}), vec!["Movie:1".to_owned()]));
    let film = json!({"__typename": "Movie", "id": "1", "work": {"__typename": "Film", "length": 1}});
    assert!(assemble(&plan, &film).unwrap_err().problem.contains("has no `id`"));
}

#[test]
fn lists_of_lists_keep_their_order() {
    let row = vec![hidden("__typename"), hidden("id")];
    let plan = index(
        true,
        vec![hidden("__typename"), hidden("id"), SelectedField { list: true, ..object("rows", true, row) }],
    );
    let cell = |id: u32| json!({"__typename": "Cell", "id": id});
    let answer = json!({"__typename": "Movie", "id": "1", "rows": [[cell(3), null], null, [cell(1)]]});
    let document = assemble(&plan, &answer).unwrap();
    assert_eq!(document.content, json!({"rows": [[{}, null], null, [{}]]}));
    assert_eq!(document.refs, ["Cell:1", "Cell:3", "Movie:1"]);
}

#[test]
fn the_hash_is_stable_across_versions() {
    let hash = content_hash(&json!({"b": [1, 2.5, null], "a": "ä\"\\\n"}), &["Movie:1".into()]);
    assert_eq!(
        hash,
        format!("{:032x}", xxh3_128("{\"a\":\"ä\\\"\\\\\\n\",\"b\":[1,2.5,null]}\n\"Movie:1\"".as_bytes()))
    );
}

fn any_json() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-1e12..1e12).prop_map(Json::from),
        "[a-b\"\\\\,\n]{0,3}".prop_map(Json::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec(("[ab\":,]{0,2}", inner), 0..4).prop_map(|m| Json::Object(m.into_iter().collect())),
        ]
    })
}

/// The same value with the members of every object inserted the other way round.
fn reversed(value: &Json) -> Json {
    match value {
        Json::Array(items) => items.iter().map(reversed).collect(),
        Json::Object(members) => {
            let members: Vec<_> = members.iter().map(|(k, v)| (k.clone(), reversed(v))).collect();
            Json::Object(members.into_iter().rev().collect())
        }
        other => other.clone(),
    }
}

fn vertices(value: &Json, out: &mut BTreeSet<String>) {
    match value {
        Json::Array(items) => items.iter().for_each(|i| vertices(i, out)),
        Json::Object(members) => {
            if let (Some(Json::String(t)), Some(Json::String(id))) = (members.get("__typename"), members.get("id")) {
                out.insert(format!("{t}:{id}"));
            }
            members.values().for_each(|v| vertices(v, out));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn the_hash_does_not_depend_on_the_order_of_members(value in any_json()) {
        prop_assert_eq!(content_hash(&value, &[]), content_hash(&reversed(&value), &[]));
    }

    #[test]
    fn different_content_has_a_different_hash(a in any_json(), b in any_json()) {
        prop_assert_eq!(a == b, content_hash(&a, &[]) == content_hash(&b, &[]));
    }

    #[test]
    fn different_references_have_a_different_hash(
        a in prop::collection::btree_set("[ab:\n\"]{1,3}", 0..4),
        b in prop::collection::btree_set("[ab:\n\"]{1,3}", 0..4),
    ) {
        let hash = |refs: &BTreeSet<String>| content_hash(&Json::Null, &refs.iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(a == b, hash(&a) == hash(&b));
    }

    #[test]
    fn references_are_complete(
        root in "[0-9a-z]{1,4}",
        talents in prop::collection::vec(prop::option::of(("[A-C]", "[0-9:]{1,2}")), 0..8),
        distributor in prop::option::of("[0-9]{1,2}"),
    ) {
        let talents: Vec<Json> = talents
            .into_iter()
            .map(|t| t.map_or(Json::Null, |(t, id)| json!({"__typename": t, "id": id, "name": "n"})))
            .collect();
        let distributor = distributor
            .map(|id| json!({"__typename": "Company", "id": id, "name": "n", "address": null}));
        let answer = json!({
            "__typename": "Movie", "id": root, "title": "t", "genres": [], "talents": talents, "distributor": distributor,
        });
        let mut expected = BTreeSet::new();
        vertices(&answer, &mut expected);
        let document = assemble(&movies(), &answer).unwrap();
        prop_assert_eq!(document.refs, expected.into_iter().collect::<Vec<_>>());
    }
}
