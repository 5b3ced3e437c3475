//! What only search servers do.

use serde_json::{Value as Json, json};
use tributary_dsl::plan::StorePlan;
use tributary_event::ErrorClass;
use tributary_indexer::store::{self, DocumentStore, Prepared, StoreError, Verdict};

use super::plans::{delete, put, small};
use super::subject::{Subject, at, server, written};

fn both() -> impl Iterator<Item = Subject> {
    [Subject::elasticsearch(), Subject::opensearch()].into_iter().flatten()
}

fn url(subject: &Subject) -> String {
    match &subject.plan.store {
        StorePlan::Elasticsearch(server) | StorePlan::OpenSearch(server) => server.url.clone(),
        StorePlan::Embedded => panic!("a server"),
    }
}

async fn raw(method: reqwest::Method, url: String, body: &str) {
    let request = reqwest::Client::new().request(method, url).header("content-type", "application/json");
    let response = request.body(body.to_owned()).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
}

fn fatal(result: Result<impl Sized, StoreError>, part: &str) {
    let error = result.map(|_| ()).unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert!(error.message.contains(part), "{error}");
}

#[tokio::test]
async fn a_missing_alias_stops_every_call_and_creates_nothing() {
    for subject in both() {
        let store = subject.prepared().await;
        written(&*store, &[small("a", 1)]).await;
        let (url, name) = (url(&subject), subject.plan.name.clone());
        raw(reqwest::Method::DELETE, format!("{url}/{name}-000001"), "").await;
        fatal(store.write(&[small("a", 2), delete("b", 2)]).await, "is gone");
        fatal(store.write(&[delete("b", 2)]).await, "is gone");
        fatal(store.heads(&["a".to_owned()]).await, "is gone");
        fatal(store.lookup(&["Movie:a".to_owned()], None, 10).await, "is gone");
        fatal(store.older(&["Movie:a".to_owned()], 0..9, None, 10).await, "is gone");
        fatal(store.frequencies(&["Movie:a".to_owned()]).await, "is gone");
        fatal(store.newest_stamp().await, "is gone");
        fatal(store.count().await, "is gone");
        fatal(store.refresh().await, "is gone");
        assert!(store.probe().await.is_err());
        let response = reqwest::get(format!("{url}/{name}")).await.unwrap();
        assert_eq!(response.status(), 404, "nothing was created");
    }
}

#[tokio::test]
async fn an_index_in_the_aliases_place_is_refused() {
    for subject in both() {
        let place = format!("{}/{}", url(&subject), subject.plan.name);
        raw(reqwest::Method::PUT, place.clone(), "{}").await;
        fatal(subject.open().prepare(&subject.plan.selection).await, "must be an alias");
        raw(reqwest::Method::DELETE, place, "").await;
    }
}

#[tokio::test]
async fn an_index_of_an_earlier_version_gets_the_fields_that_it_lacks() {
    for subject in both() {
        subject.prepared().await;
        let (url, name) = (url(&subject), subject.plan.name.clone());
        let concrete = format!("{url}/{name}-000001");
        let made: Json = reqwest::get(format!("{concrete}/_mapping")).await.unwrap().json().await.unwrap();
        let mut mapping = made[format!("{name}-000001")]["mappings"].clone();
        for field in ["_kept", "_unindexed"] {
            assert!(mapping["properties"].as_object_mut().unwrap().remove(field).is_some(), "{mapping}");
        }
        raw(reqwest::Method::DELETE, concrete.clone(), "").await;
        let earlier = json!({ "mappings": mapping, "aliases": { &name: { "is_write_index": true } } });
        raw(reqwest::Method::PUT, concrete, &earlier.to_string()).await;
        let store = subject.open();
        assert_eq!(store.prepare(&subject.plan.selection).await.unwrap(), Prepared::Existing);
        let content = json!({ "id": "a", "released": "infinity" });
        written(&*store, &[put("a", 1, content.clone(), &[])]).await;
        assert_eq!(store.get("a").await.unwrap().unwrap().content, content);
        subject.remove().await;
    }
}

#[tokio::test]
async fn an_index_without_its_alias_is_refused() {
    for subject in both() {
        let place = format!("{}/{}-000001", url(&subject), subject.plan.name);
        raw(reqwest::Method::PUT, place, "{}").await;
        fatal(subject.open().prepare(&subject.plan.selection).await, "add the alias");
        subject.remove().await;
    }
}

#[tokio::test]
async fn the_log_of_writes_is_made_durable_again() {
    for subject in both() {
        let (url, name) = (url(&subject), subject.plan.name.clone());
        let template = json!({ "index_patterns": [format!("{name}-*")], "priority": 900,
            "template": { "settings": { "index.translog.durability": "async" } } });
        raw(reqwest::Method::PUT, format!("{url}/_index_template/{name}"), &template.to_string()).await;
        let durability = async || {
            let settings: Json = reqwest::get(format!("{url}/{name}/_settings")).await.unwrap().json().await.unwrap();
            settings[format!("{name}-000001")]["settings"]["index"]["translog"]["durability"].clone()
        };
        let store = subject.prepared().await;
        assert_eq!(durability().await, "request", "although a template says otherwise");
        let change = async || {
            let change = r#"{ "index.translog.durability": "async" }"#;
            raw(reqwest::Method::PUT, format!("{url}/{name}/_settings"), change).await;
            assert_eq!(durability().await, "async");
        };
        change().await;
        store.probe().await.unwrap();
        assert_eq!(durability().await, "request", "after it was changed under a pipeline that runs");
        change().await;
        assert_eq!(subject.open().prepare(&subject.plan.selection).await.unwrap(), Prepared::Existing);
        assert_eq!(durability().await, "request", "at a start");
        raw(reqwest::Method::DELETE, format!("{url}/_index_template/{name}"), "").await;
        subject.remove().await;
    }
}

/// A server that words a conflict of versions in another way.
async fn rewording(behind: String) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let forward = async move |request: axum::extract::Request| {
        let (parts, body) = request.into_parts();
        let url = format!("{behind}{}", parts.uri.path_and_query().unwrap());
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let request = client.request(parts.method, url).header("content-type", parts.headers["content-type"].clone());
        let response = request.body(body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        let headers = [("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")];
        (status, headers, text.replace("current version [", "Fassung ["))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(forward)).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_stamp_that_an_answer_does_not_name_is_read() {
    for mut subject in both() {
        let store = subject.prepared().await;
        written(&*store, &[small("a", 10), delete("gone", 10)]).await;
        match &mut subject.plan.store {
            StorePlan::Elasticsearch(server) | StorePlan::OpenSearch(server) => {
                server.url = rewording(server.url.clone()).await;
            }
            StorePlan::Embedded => {}
        }
        let store = subject.prepared().await;
        let verdicts = store.write(&[small("b", 1), small("a", 9), small("gone", 9), delete("a", 10)]).await.unwrap();
        assert_eq!(verdicts[0], Verdict::Written);
        assert_eq!(verdicts[1], Verdict::Superseded { stored: 10 });
        assert!(matches!(&verdicts[2], Verdict::Retry { after, .. } if !after.is_zero()), "{:?}", verdicts[2]);
        assert_eq!(verdicts[3], Verdict::Superseded { stored: 10 });
        subject.remove().await;
    }
}

#[tokio::test]
async fn a_server_of_the_other_kind_is_recognised() {
    if let Some(server) = server("ELASTICSEARCH") {
        let subject = Subject::of(StorePlan::OpenSearch(server));
        fatal(subject.open().prepare(&subject.plan.selection).await, "this is Elasticsearch");
    }
    if let Some(server) = server("OPENSEARCH") {
        let subject = Subject::of(StorePlan::Elasticsearch(server));
        fatal(subject.open().prepare(&subject.plan.selection).await, "this is OpenSearch");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_a_transient_error_that_names_it_without_its_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let subject = Subject::of(StorePlan::Elasticsearch(at(&format!("http://user:hush@127.0.0.1:{port}"))));
    let error = subject.open().prepare(&subject.plan.selection).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains(&format!("http://127.0.0.1:{port}")), "{error}");
    assert!(!error.message.contains("hush") && !format!("{error:?}").contains("hush"), "{error:?}");
}

/// What stands where a search server is looked for: it answers everything with this, but for its page for logging in.
async fn standing_before(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str) -> String {
    let answer = async move |request: axum::extract::Request| {
        let is_page = request.uri().path() == "/login";
        let mut response = axum::response::Response::builder().status(if is_page { 200 } else { status });
        for (name, value) in headers.iter().filter(|_| !is_page) {
            response = response.header(*name, *value);
        }
        response.body(axum::body::Body::from(if is_page { r#"{"version":{}}"# } else { body })).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_answered_by_no_search_server_is_waited_for() {
    const TO_LOGIN: &[(&str, &str)] = &[("location", "/login")];
    for (status, headers, body, part) in [
        (401, &[][..], "<html>who are you?</html>", "a proxy before it"),
        (403, &[], r#"{"message":"no"}"#, "a proxy before it"),
        (404, &[], "default backend - 404", "a proxy before it"),
        (302, TO_LOGIN, "", "was redirected to"),
        (307, TO_LOGIN, "", "was redirected to"),
        (503, &[], "", "busy or not well"),
    ] {
        let url = standing_before(status, headers, body).await;
        for plan in [StorePlan::Elasticsearch(at(&url)), StorePlan::OpenSearch(at(&url))] {
            let subject = Subject::of(plan);
            let store = subject.open();
            let error = store.prepare(&subject.plan.selection).await.map(|_| ()).unwrap_err();
            assert_eq!(error.class, ErrorClass::Transient, "{status}: {error}");
            assert!(error.message.contains(part) && error.message.contains(&url), "{status}: {error}");
        }
    }
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_told_at_once() {
    let mut broken = at("localhost:9200");
    fatal(
        store::open(&StorePlan::Elasticsearch(broken.clone()), "x", ".".as_ref())
            .map(|_: std::sync::Arc<dyn DocumentStore>| ()),
        "http://host:9200",
    );
    broken.url = "http://localhost:9200".to_owned();
    broken.ca_file = Some("/nonexistent/ca.pem".to_owned());
    fatal(store::open(&StorePlan::Elasticsearch(broken), "x", ".".as_ref()).map(|_| ()), "/nonexistent/ca.pem");
}
