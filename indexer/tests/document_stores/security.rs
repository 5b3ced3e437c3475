//! A server that speaks only TLS and only with those it knows: Elasticsearch 8 with its own security.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tributary_dsl::plan::{SearchServer, Secret, StorePlan};
use tributary_event::ErrorClass;
use tributary_stack::{Elasticsearch, ElasticsearchOptions, Security};

use super::contract;
use super::subject::{Subject, at, left_out};

/// An authority's certificate, and a certificate of a server and its key that the authority signed; all as PEM.
fn certificates() -> (String, Security) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    (authority, Security { certificate, key: key.serialize_pem() })
}

/// An API key, in the form that requests carry.
async fn api_key(url: &str, authority: &str) -> String {
    let root = reqwest::Certificate::from_pem(authority.as_bytes()).unwrap();
    let client = reqwest::Client::builder().add_root_certificate(root).no_proxy().build().unwrap();
    let request = client.post(format!("{url}/_security/api_key")).basic_auth(Security::USER, Some(Security::PASSWORD));
    let answer: Json = request.json(&json!({"name": "test"})).send().await.unwrap().json().await.unwrap();
    answer["encoded"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn refused(server: SearchServer, class: ErrorClass, part: &str) {
    let subject = Subject::of(StorePlan::Elasticsearch(server));
    let error = subject.open().prepare(&subject.plan.selection).await.unwrap_err();
    assert_eq!(error.class, class, "{error}");
    assert!(error.message.contains(part), "{error}");
    assert!(!format!("{error} {error:?}").contains(Security::PASSWORD), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_tls_and_users_lets_in_who_says_who_it_is() {
    if left_out("ELASTICSEARCH") {
        return;
    }
    let (authority, security) = certificates();
    let options =
        ElasticsearchOptions { version: "8".to_owned(), security: Some(security), ..ElasticsearchOptions::default() };
    let node = Elasticsearch::start(options).await.unwrap();
    let folder = TempDir::new().unwrap();
    let ca_file = folder.path().join("authority.pem");
    std::fs::write(&ca_file, &authority).unwrap();
    let trusting = SearchServer { ca_file: Some(ca_file.display().to_string()), ..at(&node.url()) };
    let password = |text: &str| Some((Security::USER.to_owned(), Secret::new(text)));

    let by_password = SearchServer { basic: password(Security::PASSWORD), ..trusting.clone() };
    contract::older_and_equal_stamps_are_superseded(Subject::of(StorePlan::Elasticsearch(by_password.clone()))).await;
    let key = api_key(&node.url(), &authority).await;
    let by_key = SearchServer { api_key: Some(Secret::new(key)), ..trusting.clone() };
    contract::heads_and_documents_are_seen_before_a_refresh(Subject::of(StorePlan::Elasticsearch(by_key))).await;

    refused(trusting.clone(), ErrorClass::Fatal, "401").await;
    let wrong = SearchServer { basic: password("tributary-tess"), ..trusting.clone() };
    refused(wrong, ErrorClass::Fatal, "401").await;
    let stranger = SearchServer { ca_file: None, ..by_password };
    refused(stranger, ErrorClass::Fatal, "certificate").await;
    node.stop().await.unwrap();
}
