//! Two nodes of OpenSearch, of which one holds a copy of every shard.

use serde_json::Value as Json;
use tempfile::TempDir;
use tributary_dsl::plan::{SearchServer, StorePlan};
use tributary_stack::{OpenSearch, OpenSearchOptions};

use super::plans::{put, small};
use super::subject::{Subject, at, left_out, lookup, written};

const ROUNDS: u64 = 1_000;

/// A cluster whose administrator has chosen segment replication, and leaves no index another choice.
struct Cluster {
    first: OpenSearch,
    second: OpenSearch,
    _data: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let transport = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port().to_string()
        };
        let node = |name: &str, theirs: &[(&str, &str)]| {
            let ours = [
                ("node.name", name),
                ("discovery.type", "zen"),
                ("cluster.name", "tributary-two"),
                ("cluster.indices.replication.strategy", "SEGMENT"),
                ("cluster.index.restrict.replication.type", "true"),
            ];
            let settings = ours.iter().chain(theirs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            OpenSearchOptions {
                heap: "512m".to_owned(),
                data_dir: Some(data.path().join(name)),
                settings: settings.collect(),
                ..OpenSearchOptions::default()
            }
        };
        let first = [("transport.port", transport.as_str()), ("cluster.initial_cluster_manager_nodes", "node-0")];
        let first = OpenSearch::start(node("node-0", &first)).await.unwrap();
        let seed = format!("127.0.0.1:{transport}");
        let second = OpenSearch::start(node("node-1", &[("discovery.seed_hosts", &seed)])).await.unwrap();
        Self { first, second, _data: data }
    }

    async fn get(&self, path: &str) -> Json {
        reqwest::get(format!("{}/{path}", self.first.url())).await.unwrap().json().await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_refreshed_is_found_although_copies_get_it_later() {
    if left_out("OPENSEARCH") {
        return;
    }
    let cluster = Cluster::start().await;
    let server = SearchServer { replicas: 1, ..at(&cluster.first.url()) };
    let subject = Subject::of(StorePlan::OpenSearch(server));
    let store = subject.prepared().await;
    let name = &subject.plan.name;
    let health = cluster.get(&format!("_cluster/health/{name}?wait_for_status=green&timeout=60s")).await;
    assert_eq!(
        (&health["status"], &health["number_of_data_nodes"]),
        (&Json::from("green"), &Json::from(2)),
        "{health}"
    );
    let settings = cluster.get(&format!("{name}/_settings")).await;
    let replication = &settings[format!("{name}-000001")]["settings"]["index"]["replication"]["type"];
    assert_eq!(replication, "SEGMENT", "the server decides: {settings}");
    for round in 1..=ROUNDS {
        let talent = format!("Talent:{round}");
        written(
            &*store,
            &[
                put("moving", round, serde_json::json!({}), &["Movie:moving", &talent]),
                small(&format!("new-{round}"), round),
            ],
        )
        .await;
        store.refresh().await.unwrap();
        assert_eq!(lookup(&*store, std::slice::from_ref(&talent)).await, ["moving"], "round {round}");
        let older = store.older(std::slice::from_ref(&talent), 0..round + 1, None, 10).await.unwrap();
        assert_eq!(older.documents.len(), 1, "round {round}");
        // The others are asked the same way; not each time, for the sake of the time it takes.
        if round % 10 == 0 {
            assert_eq!(store.count().await.unwrap(), round + 1, "round {round}");
            assert_eq!(store.scan(Some("new"), 2_000).await.unwrap().len() as u64, round, "round {round}");
            assert_eq!(store.frequencies(&[talent]).await.unwrap(), [1], "round {round}");
            assert_eq!(store.newest_stamp().await.unwrap(), round);
            let head = store.heads(&["moving".to_owned()]).await.unwrap().pop().flatten();
            assert_eq!(head.unwrap().stamp, round);
        }
    }
    let stop = async |node: &OpenSearch| node.kill().await.unwrap();
    stop(&cluster.second).await;
    stop(&cluster.first).await;
}
