//! What every document store does.

use std::collections::HashSet;

use serde_json::json;
use tributary_dsl::plan::LeafType;
use tributary_event::ErrorClass;
use tributary_indexer::store::{DocumentStore, Head, Older, OlderPage, Prepared, SearchRequest, Verdict};

use super::plans::{delete, leaf, put, small};
use super::subject::{Subject, lookup, pages, sorted, written};

const fn superseded(stored: u64) -> Verdict {
    Verdict::Superseded { stored }
}

fn strings(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

pub async fn older_and_equal_stamps_are_superseded(subject: Subject) {
    let store = subject.prepared().await;
    assert_eq!(store.write(&[small("a", 10)]).await.unwrap(), [Verdict::Written]);
    for refreshed in [false, true] {
        if refreshed {
            store.refresh().await.unwrap();
        }
        let verdicts = store.write(&[small("a", 9), small("a", 10), delete("a", 9), delete("a", 10)]).await.unwrap();
        assert_eq!(verdicts, vec![superseded(10); 4], "refreshed: {refreshed}");
    }
    let verdicts = store.write(&[small("a", 11), small("a", 10), small("a", 12)]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Written, superseded(11), Verdict::Written]);
    store.refresh().await.unwrap();
    assert_eq!(store.count().await.unwrap(), 1);
    assert_eq!(store.get("a").await.unwrap().unwrap().stamp, 12);
    subject.remove().await;
}

pub async fn a_deletes_version_is_remembered(subject: Subject) {
    let store = subject.prepared().await;
    written(&*store, &[small("a", 10), delete("a", 20), delete("never there", 20)]).await;
    for refreshed in [false, true] {
        if refreshed {
            store.refresh().await.unwrap();
        }
        for id in ["a", "never there"] {
            let verdicts = store.write(&[small(id, 15), small(id, 20), delete(id, 20)]).await.unwrap();
            assert_eq!(verdicts, vec![superseded(20); 3], "{id}, refreshed: {refreshed}");
            assert_eq!(store.heads(&strings(&[id])).await.unwrap(), [None]);
            assert_eq!(store.get(id).await.unwrap(), None);
        }
    }
    assert_eq!(store.count().await.unwrap(), 0);
    written(&*store, &[small("a", 21)]).await;
    store.refresh().await.unwrap();
    assert_eq!(store.count().await.unwrap(), 1);
    subject.remove().await;
}

pub async fn heads_and_documents_are_seen_before_a_refresh(subject: Subject) {
    let store = subject.prepared().await;
    let content =
        json!({ "id": "a", "title": "Alien", "rating": 8.5, "runtimeMin": 117, "notes": { "any": [1, null, "x"] } });
    written(&*store, &[put("a", 5, content.clone(), &["Movie:a", "Talent:1"]), small("b", 1 << 62)]).await;
    for refreshed in [false, true] {
        if refreshed {
            store.refresh().await.unwrap();
        }
        let heads = store.heads(&strings(&["b", "nowhere", "a", "", "b"])).await.unwrap();
        let head = |stamp: u64| Some(Head { stamp, hash: format!("hash-{stamp}") });
        assert_eq!(heads, [head(1 << 62), None, head(5), None, head(1 << 62)], "refreshed: {refreshed}");
        let document = store.get("a").await.unwrap().unwrap();
        assert_eq!(document.content, content);
        assert_eq!(document.refs, ["Movie:a", "Talent:1"]);
        assert_eq!((document.stamp, document.hash.as_str(), document.id.as_str()), (5, "hash-5", "a"));
    }
    assert_eq!(store.get("nowhere").await.unwrap(), None);
    assert_eq!(store.heads(&[]).await.unwrap(), []);
    assert_eq!(store.write(&[]).await.unwrap(), []);
    store.probe().await.unwrap();
    subject.remove().await;
}

/// As deep as answers of the graph are read; the servers' own parsers go no further.
pub async fn documents_are_as_deep_as_answers(subject: Subject) {
    let store = subject.prepared().await;
    let nested = (0..900).fold(json!(1), |inner, _| json!({ "a": inner }));
    let content = json!({ "id": "a", "notes": nested });
    written(&*store, &[put("a", 5, content.clone(), &["Movie:a"]), small("b", 5)]).await;
    for refreshed in [false, true] {
        if refreshed {
            store.refresh().await.unwrap();
        }
        assert_eq!(store.get("a").await.unwrap().unwrap().content, content, "refreshed: {refreshed}");
    }
    assert_eq!(store.heads(&strings(&["a"])).await.unwrap().len(), 1);
    let found = store.search(&SearchRequest { query: "*".into(), from: 0, size: 10 }).await.unwrap();
    assert!(found.hits.iter().any(|hit| hit.content == content));
    assert_eq!(sorted(lookup(&*store, &strings(&["Movie:a"])).await), ["a"]);
    subject.remove().await;
}

pub async fn lookups_see_what_was_refreshed(subject: Subject) {
    let store = subject.prepared().await;
    let document =
        |id: &str, stamp, talent: &str| put(id, stamp, json!({ "id": id }), &[&format!("Movie:{id}"), talent]);
    written(&*store, &[document("a", 1, "Talent:1"), document("b", 1, "Talent:1"), document("c", 1, "Talent:2")]).await;
    store.refresh().await.unwrap();
    let lookup = async |refs: &[&str]| sorted(super::subject::lookup(&*store, &strings(refs)).await);
    assert_eq!(lookup(&["Talent:1"]).await, ["a", "b"]);
    assert_eq!(lookup(&["Talent:1", "Movie:a", "Talent:2", "Talent:1"]).await, ["a", "b", "c"]);
    assert_eq!(lookup(&["Talent:3"]).await, Vec::<String>::new());
    assert_eq!(lookup(&[]).await, Vec::<String>::new());
    assert_eq!(lookup(&["talent:1"]).await, Vec::<String>::new(), "references are exact");
    written(&*store, &[document("b", 2, "Talent:2"), delete("a", 2)]).await;
    store.refresh().await.unwrap();
    assert_eq!(lookup(&["Talent:1"]).await, Vec::<String>::new());
    assert_eq!(lookup(&["Talent:2"]).await, ["b", "c"]);
    subject.remove().await;
}

pub async fn a_lookup_finds_more_than_ten_thousand_documents(subject: Subject) {
    let store = subject.prepared().await;
    let document =
        |n: u32| put(&format!("m{n}"), 1, json!({ "runtimeMin": n }), &["Genre:drama", &format!("Movie:m{n}")]);
    written(&*store, &(0..25_000).map(document).collect::<Vec<_>>()).await;
    store.refresh().await.unwrap();
    let found = lookup(&*store, &strings(&["Genre:drama", "Genre:none"])).await;
    assert_eq!(found.len(), 25_000);
    assert_eq!(found.into_iter().collect::<HashSet<_>>().len(), 25_000);
    assert_eq!(store.count().await.unwrap(), 25_000);
    subject.remove().await;
}

/// Documents that come, go and change between two pages move no other document to a page that was read.
pub async fn pages_of_a_lookup(subject: Subject) {
    let store = subject.prepared().await;
    let document = |n: u32, stamp, talent: u32| {
        put(&format!("m{n:03}"), stamp, json!({ "id": n }), &[&format!("Movie:m{n:03}"), &format!("Talent:{talent}")])
    };
    for part in 0..3 {
        written(&*store, &(part * 40..part * 40 + 40).map(|n| document(n, 1, n % 2)).collect::<Vec<_>>()).await;
        store.refresh().await.unwrap();
    }
    let all: Vec<String> = (0..120).map(|n| format!("m{n:03}")).collect();
    let both = strings(&["Talent:1", "Talent:0", "Talent:2", "Movie:m007"]);
    for size in [1, 7, 60, 119, 120, 121, 10_000] {
        let pages = pages(&*store, &both, size).await;
        assert!(pages.iter().all(|page| page.ids.len() <= size), "{size}");
        let found: Vec<String> = pages.into_iter().flat_map(|page| page.ids).collect();
        assert_eq!(sorted(found), all, "{size}");
    }
    let odd: Vec<String> = (0..120).filter(|n| n % 2 == 1).map(|n| format!("m{n:03}")).collect();
    let wanted = strings(&["Talent:1"]);
    let mut page = store.lookup(&wanted, None, 10).await.unwrap();
    let mut found = page.ids.clone();
    // What was read goes, what was not read changes, and something new comes in front.
    written(&*store, &[delete("m001", 2), document(5, 2, 0), document(101, 2, 1), document(0, 2, 1)]).await;
    store.refresh().await.unwrap();
    while let Some(next) = page.next {
        page = store.lookup(&wanted, Some(&next), 10).await.unwrap();
        found.extend(page.ids.iter().cloned());
    }
    assert_eq!(sorted(found), odd);
    assert_eq!(store.lookup(&wanted, Some("z"), 10).await.unwrap(), Default::default());
    let parted = strings(&["Movie:m001", "Movie:m050"]);
    let references: Vec<String> = (0..25_000)
        .map(|n| format!("Movie:{n}"))
        .chain(all.iter().map(|id| format!("Movie:{id}")))
        .chain(parted)
        .collect();
    for size in [7, 1_000] {
        let found: Vec<String> =
            super::subject::pages(&*store, &references, size).await.into_iter().flat_map(|page| page.ids).collect();
        let expected: Vec<String> = all.iter().filter(|id| *id != "m001").cloned().collect();
        assert_eq!(sorted(found), expected, "{size}, of many references");
    }
    subject.remove().await;
}

pub async fn older_documents_are_found_with_stamps_and_references(subject: Subject) {
    let store = subject.prepared().await;
    // Stamps that no floating point number tells apart.
    const BASE: u64 = (1 << 62) + 1;
    let document = |id: &str, stamp: u64, talent: &str| {
        put(id, BASE + stamp, json!({ "id": id }), &[&format!("Movie:{id}"), talent])
    };
    written(
        &*store,
        &[
            document("a", 1, "Talent:1"),
            document("b", 2, "Talent:1"),
            document("c", 3, "Talent:1"),
            document("d", 1, "Talent:2"),
        ],
    )
    .await;
    store.refresh().await.unwrap();
    let older = async |refs: &[&str], before: u64| {
        let OlderPage { mut documents, next } = store.older(&strings(refs), 0..before, None, 100).await.unwrap();
        assert_eq!(next, None);
        documents.sort_by(|one, other| one.id.cmp(&other.id));
        documents
    };
    let expected = |id: &str, stamp: u64, talent: &str| Older {
        id: id.to_owned(),
        stamp: BASE + stamp,
        refs: strings(&[&format!("Movie:{id}"), talent]),
    };
    assert_eq!(older(&["Talent:1"], BASE + 3).await, [expected("a", 1, "Talent:1"), expected("b", 2, "Talent:1")]);
    assert_eq!(older(&["Talent:1"], BASE + 2).await, [expected("a", 1, "Talent:1")]);
    assert_eq!(older(&["Talent:1"], BASE + 1).await, []);
    assert_eq!(older(&["Talent:1"], 0).await, []);
    let since = store.older(&strings(&["Talent:1"]), BASE + 2..BASE + 3, None, 100).await.unwrap();
    assert_eq!(since.documents, [expected("b", 2, "Talent:1")]);
    assert_eq!(older(&["Talent:3"], u64::MAX).await, []);
    assert_eq!(older(&[], u64::MAX).await, []);
    let all = older(&["Talent:1", "Talent:2", "Movie:a"], u64::MAX).await;
    assert_eq!(all.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    // Page by page, while those that were met are built again.
    let (mut met, mut after) = (Vec::new(), None);
    loop {
        let page = store.older(&strings(&["Talent:1", "Talent:2"]), 0..BASE + 9, after.as_deref(), 2).await.unwrap();
        assert!(page.documents.len() <= 2);
        for Older { id, .. } in page.documents {
            written(&*store, &[document(&id, 9, "Talent:1")]).await;
            met.push(id);
        }
        store.refresh().await.unwrap();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(sorted(met), ["a", "b", "c", "d"]);
    assert_eq!(older(&["Talent:1"], BASE + 9).await, []);
    // Only what was refreshed counts.
    written(&*store, &[document("e", 1, "Talent:1")]).await;
    store.refresh().await.unwrap();
    written(&*store, &[document("e", 20, "Talent:1")]).await;
    assert_eq!(older(&["Movie:e"], BASE + 9).await, [expected("e", 1, "Talent:1")]);
    subject.remove().await;
}

pub async fn frequencies_and_the_newest_stamp(subject: Subject) {
    const NEWEST: u64 = (1 << 62) + 1;
    let store = subject.prepared().await;
    assert_eq!(store.newest_stamp().await.unwrap(), 0);
    assert_eq!(store.frequencies(&[]).await.unwrap(), Vec::<u64>::new());
    assert_eq!(store.frequencies(&strings(&["Talent:1"])).await.unwrap(), [0]);
    let document = |n: u64, stamp| put(&format!("m{n}"), stamp, json!({}), &[&format!("Talent:{}", n % 3), "Genre:x"]);
    written(&*store, &(0..10).map(|n| document(n, NEWEST - n)).collect::<Vec<_>>()).await;
    assert_eq!(store.newest_stamp().await.unwrap(), 0, "nothing is refreshed");
    store.refresh().await.unwrap();
    assert_eq!(store.newest_stamp().await.unwrap(), NEWEST);
    let references = strings(&["Talent:2", "Genre:x", "Genre:y", "Talent:0", "Talent:2", "talent:0"]);
    assert_eq!(store.frequencies(&references).await.unwrap(), [3, 10, 0, 4, 3, 0]);
    let many: Vec<String> = (0..1_200).map(|n| format!("Talent:{n}")).collect();
    let frequencies = store.frequencies(&many).await.unwrap();
    assert_eq!((frequencies.len(), frequencies.iter().sum::<u64>()), (1_200, 10));
    written(&*store, &[delete("m0", NEWEST + 1), document(1, NEWEST + 2)]).await;
    store.refresh().await.unwrap();
    assert_eq!(store.newest_stamp().await.unwrap(), NEWEST + 2);
    // Deleted documents may still be counted.
    let found = store.frequencies(&strings(&["Talent:0", "Talent:1"])).await.unwrap();
    assert!((3..=4).contains(&found[0]) && (3..=4).contains(&found[1]), "{found:?}");
    subject.remove().await;
}

pub async fn a_lookup_takes_more_terms_than_a_server_does(subject: Subject) {
    let store = subject.prepared().await;
    written(&*store, &[small("0", 1), small("70000", 1), small("35000", 1), small("x", 1)]).await;
    store.refresh().await.unwrap();
    let references: Vec<String> = (0..=70_000).map(|n| format!("Movie:{n}")).collect();
    assert_eq!(sorted(lookup(&*store, &references).await), ["0", "35000", "70000"]);
    subject.remove().await;
}

pub async fn a_rejected_document_does_not_hinder_the_others(subject: Subject) {
    let store = subject.prepared().await;
    let bad = [
        ("runtimeMin", json!({ "runtimeMin": { "long": 1 } })),
        ("unplanned", json!({ "unplanned": 1 })),
        ("distributor.name", json!({ "distributor": { "name": { "first": "Fox" } } })),
        ("released", json!({ "released": { "on": "1979-05-25" } })),
        ("director", json!({ "director": "Ridley Scott" })),
        ("talents", json!({ "talents": ["Ridley Scott"] })),
    ];
    for (n, (field, content)) in bad.into_iter().enumerate() {
        let stamp = n as u64 + 1;
        let writes = [small("before", stamp), put("bad", stamp, content, &["Movie:bad"]), small("after", stamp)];
        let verdicts = store.write(&writes).await.unwrap();
        assert_eq!((&verdicts[0], &verdicts[2]), (&Verdict::Written, &Verdict::Written), "{field}");
        let Verdict::Rejected { reason } = &verdicts[1] else { panic!("{field}: {:?}", verdicts[1]) };
        assert!(reason.contains(field.rsplit('.').next().unwrap()), "{reason}");
    }
    store.refresh().await.unwrap();
    assert_eq!(store.scan(None, 10).await.unwrap(), ["after", "before"]);
    subject.remove().await;
}

pub async fn what_cannot_be_searched_is_kept(subject: Subject) {
    let store = subject.prepared().await;
    let content = json!({
        "id": "a", "title": "Alien", "runtimeMin": "long", "released": "infinity", "sequel": false,
        "facts": { "oscars": { "won": "one" }, "plot": "x".repeat(40_000), "": 1 },
    });
    written(
        &*store,
        &[put("a", 1, content.clone(), &["Movie:a"]), put("b", 1, json!({ "released": "9999-12-31" }), &[])],
    )
    .await;
    for refreshed in [false, true] {
        if refreshed {
            store.refresh().await.unwrap();
        }
        let document = store.get("a").await.unwrap().unwrap();
        assert_eq!((document.content, document.refs), (content.clone(), vec!["Movie:a".to_owned()]));
    }
    for (query, expected) in [
        ("title:alien AND facts.oscars.won:one AND sequel:false", &["a"][..]),
        ("_unindexed:released", &["a"]),
        ("_unindexed:facts", &["a"]),
        ("_unindexed:runtimeMin", &["a"]),
        ("_unindexed:title", &[]),
        ("released:[2300 TO *]", &["b"]),
        ("released:9999-12-31", &["b"]),
        ("released:[* TO 2300]", &[]),
    ] {
        assert_eq!(search(&*store, query).await, expected, "{query}");
    }
    let request = SearchRequest { query: "title:alien".to_owned(), from: 0, size: 1 };
    assert_eq!(store.search(&request).await.unwrap().hits[0].content, content);
    written(&*store, &[put("a", 2, json!({ "id": "a", "released": "1979-05-25" }), &["Movie:a"])]).await;
    store.refresh().await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().content, json!({ "id": "a", "released": "1979-05-25" }));
    assert_eq!(search(&*store, "_unindexed:*").await, [""; 0]);
    subject.remove().await;
}

pub async fn a_write_larger_than_one_request(subject: Subject) {
    let store = subject.prepared().await;
    let notes = "x".repeat(3 << 20);
    let document = |n: u64| put(&n.to_string(), n, json!({ "notes": notes, "tagline": "large" }), &[]);
    let writes: Vec<_> = (1..=8).map(document).collect();
    assert_eq!(store.write(&writes).await.unwrap(), vec![Verdict::Written; 8]);
    store.refresh().await.unwrap();
    assert_eq!(store.count().await.unwrap(), 8);
    assert_eq!(store.get("8").await.unwrap().unwrap().content["notes"], json!(notes));
    let long = "long words ".repeat(20_000);
    written(&*store, &[put("long", 1, json!({ "id": "y".repeat(40_000), "title": long }), &[])]).await;
    subject.remove().await;
}

pub async fn unusual_ids(subject: Subject) {
    let store = subject.prepared().await;
    let ids = [
        "a/b",
        "a b",
        "a\"b",
        "a'b",
        "ä€𝄞",
        "a\\b",
        "..",
        "_all",
        "a,b",
        "a*b?",
        "%2F",
        "#",
        "a\nb",
        "a:b",
        "{\"_id\":1}",
        " ",
        "AND",
    ];
    let mut ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    ids.push("i".repeat(512));
    ids.push("€".repeat(170));
    let writes: Vec<_> = ids.iter().map(|id| small(id, 3)).collect();
    written(&*store, &writes).await;
    store.refresh().await.unwrap();
    assert_eq!(store.scan(None, 100).await.unwrap(), sorted(ids.clone()));
    assert!(store.heads(&ids).await.unwrap().iter().all(Option::is_some));
    for id in &ids {
        assert_eq!(store.get(id).await.unwrap().unwrap().content["id"], json!(id));
        assert_eq!(lookup(&*store, &[format!("Movie:{id}")]).await, std::slice::from_ref(id));
        assert_eq!(
            store.scan(Some(id), 1).await.unwrap(),
            sorted(ids.clone()).into_iter().find(|i| i > id).into_iter().collect::<Vec<_>>()
        );
    }
    let verdicts =
        store.write(&[small("ok", 1), small("", 1), small(&"i".repeat(513), 1), delete("ok", 2)]).await.unwrap();
    assert!(matches!(&verdicts[1], Verdict::Rejected { reason } if reason.contains("empty")), "{verdicts:?}");
    assert!(matches!(&verdicts[2], Verdict::Rejected { reason } if reason.contains("513")), "{verdicts:?}");
    assert_eq!((&verdicts[0], &verdicts[3]), (&Verdict::Written, &Verdict::Written));
    assert_eq!(store.heads(&strings(&["ok", "", &"i".repeat(513)])).await.unwrap(), [None, None, None]);
    let deletes: Vec<_> = ids.iter().map(|id| delete(id, 4)).collect();
    written(&*store, &deletes).await;
    store.refresh().await.unwrap();
    assert_eq!(store.count().await.unwrap(), 0);
    subject.remove().await;
}

pub async fn pages_of_a_scan(subject: Subject) {
    let store = subject.prepared().await;
    let ids: Vec<String> = (0..12_345).map(|n| format!("m{n}")).collect();
    written(&*store, &ids.iter().map(|id| small(id, 1)).collect::<Vec<_>>()).await;
    store.refresh().await.unwrap();
    written(&*store, &[small("m7", 2), delete("m8", 2)]).await;
    store.refresh().await.unwrap();
    let mut expected = sorted(ids);
    expected.retain(|id| id != "m8");
    for size in [1_000, 11_000, 20_000] {
        let mut found: Vec<String> = Vec::new();
        loop {
            let page = store.scan(found.last().map(String::as_str), size).await.unwrap();
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "pages of {size}");
    }
    assert_eq!(store.scan(Some("z"), 10).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.scan(None, 0).await.unwrap(), Vec::<String>::new());
    subject.remove().await;
}

async fn search(store: &dyn DocumentStore, query: &str) -> Vec<String> {
    let request = SearchRequest { query: query.to_owned(), from: 0, size: 10 };
    let response = store.search(&request).await.unwrap_or_else(|e| panic!("{query}: {e}"));
    assert_eq!(response.total as usize, response.hits.len(), "{query}");
    sorted(response.hits.into_iter().map(|hit| hit.id).collect())
}

pub async fn queries_find(subject: Subject) {
    let store = subject.prepared().await;
    let alien = json!({
        "id": "alien", "title": "Aliens and the running men", "tagline": "In space no one can hear you scream.",
        "runtimeMin": 117, "rating": 8.5, "released": "1979-05-25", "sequel": false, "facts": { "oscars": { "won": "one" } },
        "distributor": { "id": "fox", "name": "Fox" },
        "talents": [{ "id": "1", "name": "Ridley Scott" }, { "id": "2", "name": "Sigourney Weaver" }],
    });
    let heat = json!({
        "id": "heat", "title": "Heat", "runtimeMin": 170, "rating": 8.3, "released": "1995-12-15T20:00:00Z", "sequel": true,
        "tagline": null, "distributor": { "id": "wb", "name": "Warner Bros." }, "talents": [], "facts": { "oscars": {} },
    });
    written(&*store, &[put("alien", 1, alien.clone(), &["Movie:alien"]), put("heat", 1, heat, &["Movie:heat"])]).await;
    store.refresh().await.unwrap();
    let none: [&str; 0] = [];
    for (query, expected) in [
        ("", &["alien", "heat"][..]),
        ("*", &["alien", "heat"]),
        ("title:alien AND distributor.name:Fox", &["alien"]),
        ("title:alien AND distributor.name:\"Warner Bros.\"", &none),
        ("title:alien OR distributor.name:\"Warner Bros.\"", &["alien", "heat"]),
        ("title:runs", &["alien"]),
        ("tagline:scream", &["alien"]),
        ("tagline:screams", &none),
        ("tagline:\"no one can hear\"", &["alien"]),
        ("tagline:\"one no can hear\"", &none),
        ("title.raw:Heat", &["heat"]),
        ("title.raw:heat", &none),
        ("talents.name:\"Ridley Scott\"", &["alien"]),
        ("talents.name:\"ridley scott\"", &none),
        ("talents.name:Ridley*", &["alien"]),
        ("title:he?t", &["heat"]),
        ("runtimeMin:[90 TO 120]", &["alien"]),
        ("runtimeMin:{117 TO 170]", &["heat"]),
        ("runtimeMin:>=117", &["alien", "heat"]),
        ("runtimeMin:117", &["alien"]),
        ("rating:[8.4 TO *]", &["alien"]),
        ("sequel:true", &["heat"]),
        ("released:[1979 TO 1980]", &["alien"]),
        ("released:[1979 TO 1979]", &none),
        ("released:1979-05-25", &["alien"]),
        ("released:[1979-05 TO 1979-05-25]", &["alien"]),
        ("released:[* TO 1979-05-24]", &none),
        ("released:1995-12-15", &["heat"]),
        ("released:[1979-05-25 TO 1995-12-15]", &["alien", "heat"]),
        ("released:{1979-05-25 TO *}", &["heat"]),
        ("facts.oscars.won:one", &["alien"]),
        ("tagline:*", &["alien"]),
        ("NOT title:heat", &["alien"]),
        ("title:(heat OR alien) AND NOT sequel:true", &["alien"]),
        ("scream", &["alien"]),
        ("Fox", &["alien"]),
        ("+title:heat -sequel:false", &["heat"]),
        ("_refs:\"Movie:heat\"", &["heat"]),
        ("nothing", &none),
    ] {
        assert_eq!(search(&*store, query).await, expected, "{query}");
    }
    let first = SearchRequest { query: "title:alien^3 OR title:heat".to_owned(), from: 0, size: 1 };
    let response = store.search(&first).await.unwrap();
    assert_eq!((response.total, response.hits.len()), (2, 1));
    assert_eq!((response.hits[0].id.as_str(), &response.hits[0].content), ("alien", &alien));
    let second = SearchRequest { from: 1, ..first.clone() };
    assert_eq!(store.search(&second).await.unwrap().hits[0].id, "heat");
    let beyond = SearchRequest { from: 2, size: 0, ..first };
    assert_eq!(store.search(&beyond).await.unwrap().total, 2);
    subject.remove().await;
}

pub async fn queries_that_are_none(subject: Subject) {
    let store = subject.prepared().await;
    for query in ["title:(alien", "title:", "title:\"alien", "runtimeMin:abc", "runtimeMin:[1 TO", "released:yesterday"]
    {
        let request = SearchRequest { query: query.to_owned(), from: 0, size: 10 };
        let error = store.search(&request).await.map(|r| r.total).expect_err(query);
        assert_eq!(error.class, ErrorClass::Definite, "{query}: {error}");
    }
    let request = SearchRequest { query: "*".to_owned(), from: 9_995, size: 10 };
    assert_eq!(store.search(&request).await.unwrap_err().class, ErrorClass::Definite);
    subject.remove().await;
}

pub async fn another_mapping_is_refused(mut subject: Subject) {
    let first = subject.open();
    assert_eq!(first.prepare(&subject.plan.selection).await.unwrap(), Prepared::Created);
    assert_eq!(first.prepare(&subject.plan.selection).await.unwrap(), Prepared::Existing);
    drop(first);
    let again = subject.open();
    assert_eq!(again.prepare(&subject.plan.selection).await.unwrap(), Prepared::Existing);
    drop(again);
    let first_plan = subject.plan.clone();
    let fields = &mut subject.plan.selection.fields;
    fields.retain(|field| field.key != "tagline");
    fields.push(leaf("budget", LeafType::Long));
    fields.iter_mut().find(|field| field.key == "runtimeMin").unwrap().kind = leaf("", LeafType::Keyword).kind;
    // Nothing is lost with an index that has no document.
    assert_eq!(subject.open().prepare(&subject.plan.selection).await.unwrap(), Prepared::Created);
    let store = subject.open();
    assert_eq!(store.prepare(&subject.plan.selection).await.unwrap(), Prepared::Existing);
    store.write(&[small("1", 1)]).await.unwrap();
    store.refresh().await.unwrap();
    drop(store);
    subject.plan = first_plan;
    let error = subject.open().prepare(&subject.plan.selection).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    for part in [
        "`runtimeMin` is keyword, ignore_above 8191 and should be long",
        "`budget` is long and is not in the plan",
        "`tagline` is missing and should be text",
        "delete ",
    ] {
        assert!(error.message.contains(part), "{part}: {error}");
    }
    subject.remove().await;
}

pub async fn concurrent_writers_and_refreshes(subject: Subject) {
    let store = subject.prepared().await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 1..=10 {
                let writes: Vec<_> = (0..20).map(|n| small(&format!("{writer}-{n}"), round)).collect();
                written(&*store, &writes).await;
                store.refresh().await.unwrap();
                let mine = lookup(&*store, &[format!("Movie:{writer}-0")]).await;
                assert_eq!(mine, [format!("{writer}-0")]);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(store.count().await.unwrap(), 160);
    subject.remove().await;
}
