//! The contract of a transport, checked against every implementation.
//!
//! Each case is a function over `&dyn Transport` with topics of its own; [`contract`] makes a test of it for Kafka and for
//! the embedded log. What only one of them has is in its own module.

#![allow(clippy::unwrap_used)]

mod cases;
mod embedded;
mod identity;
mod kafka;
mod outage;
mod security;
mod tools;
mod versions;

/// Each case as a test, for the embedded log and for Kafka, appended to in either way.
macro_rules! contract {
    ($($case:ident),* $(,)?) => {
        mod on_embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let directory = tempfile::tempdir().unwrap();
                    let log = crate::tools::embedded(directory.path());
                    crate::cases::$case(crate::tools::Bench::on_embedded(log, stringify!($case))).await;
                }
            )*
        }
        mod on_kafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let kafka = crate::tools::kafka();
                    crate::cases::$case(crate::tools::Bench::new(std::sync::Arc::new(kafka), stringify!($case))).await;
                }
            )*
        }
        mod on_kafka_through_librdkafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let appending = tributary_transport::Appending::Library;
                    let settings = tributary_transport::KafkaSettings { appending, ..crate::tools::kafka_settings() };
                    let kafka = std::sync::Arc::new(tributary_transport::Kafka::connect(settings).unwrap());
                    crate::cases::$case(crate::tools::Bench::new(kafka, stringify!($case))).await;
                }
            )*
        }
    };
}

/// Each case, which takes the way of appending, as a test for either.
macro_rules! either_way {
    ($($case:ident),* $(,)?) => {
        mod by_our_protocol {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(tributary_transport::Appending::Fitting).await;
                }
            )*
        }
        mod through_librdkafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(tributary_transport::Appending::Library).await;
                }
            )*
        }
    };
}
use either_way;

contract! {
    records_of_a_key_keep_their_order,
    keys_go_where_murmur2_says,
    a_batch_and_its_checkpoint_become_visible_together,
    a_batch_without_records_keeps_its_checkpoint,
    keys_and_values_may_be_absent_or_empty,
    headers_come_back_as_they_were,
    a_source_numbers_its_records_without_a_gap,
    sources_have_runs_of_their_own,
    a_group_resumes_at_its_committed_offsets,
    a_group_without_a_commit_starts_where_it_was_told,
    two_members_share_the_partitions_and_the_last_one_gets_all,
    a_commit_for_a_revoked_partition_is_ignored,
    an_assignment_says_where_the_group_is,
    records_that_are_gone_are_told_before_those_that_follow,
    a_group_that_never_committed_hears_of_what_is_gone,
    records_that_go_while_a_consumer_is_away_are_told,
    a_loss_of_all_records_is_told,
    a_paused_partition_waits_and_the_others_go_on,
    a_paused_partition_that_comes_back_is_not_paused,
    a_group_that_is_behind_the_end_begins_anew_and_says_so,
    an_appender_needs_no_name_and_keeps_the_order,
    a_consumer_that_follows_another_has_the_same_partitions,
    a_newer_producer_fences_the_older,
    of_several_that_open_at_once_one_goes_on,
    a_batch_of_a_hundred_thousand_records_is_one,
    watermarks_and_reads_without_a_group,
    the_first_record_of_a_time_is_found,
    a_topic_has_an_identity,
    a_waiting_consumer_hears_of_an_append,
    lag_counts_what_is_not_committed,
    a_member_without_partitions_has_no_lag,
    a_topic_with_too_few_partitions_is_refused,
    a_topic_of_another_retention_is_refused,
    an_unknown_topic_is_fatal,
    dead_letters_are_listed_and_replayed,
    the_letter_of_an_event_that_is_too_large_for_it_leads_to_the_event,
}
