//! Every document store keeps the same contract; the tests are written once and run against each.
//!
//! Elasticsearch and OpenSearch are found by `TRIBUTARY_TEST_ELASTICSEARCH` and `TRIBUTARY_TEST_OPENSEARCH`, set by
//! `./x test`; `TRIBUTARY_TEST_WITHOUT` names those that a machine cannot have, and their tests pass over.

mod agreement;
mod contract;
mod embedded;
mod oddities;
mod plans;
mod replicas;
mod search_servers;
mod security;
mod subject;

macro_rules! for_every_store {
    ($($case:ident)*) => {
        mod contract_of_embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::contract::$case(super::subject::Subject::embedded()).await;
            })*
        }
        mod contract_of_elasticsearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(subject) = super::subject::Subject::elasticsearch() {
                    super::contract::$case(subject).await;
                }
            })*
        }
        mod contract_of_opensearch {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(subject) = super::subject::Subject::opensearch() {
                    super::contract::$case(subject).await;
                }
            })*
        }
    };
}

for_every_store! {
    older_and_equal_stamps_are_superseded
    a_deletes_version_is_remembered
    heads_and_documents_are_seen_before_a_refresh
    documents_are_as_deep_as_answers
    lookups_see_what_was_refreshed
    a_lookup_finds_more_than_ten_thousand_documents
    pages_of_a_lookup
    older_documents_are_found_with_stamps_and_references
    frequencies_and_the_newest_stamp
    a_lookup_takes_more_terms_than_a_server_does
    a_rejected_document_does_not_hinder_the_others
    what_cannot_be_searched_is_kept
    a_write_larger_than_one_request
    unusual_ids
    pages_of_a_scan
    queries_find
    queries_that_are_none
    another_mapping_is_refused
    concurrent_writers_and_refreshes
}
