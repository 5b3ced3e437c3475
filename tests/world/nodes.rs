//! Two nodes of Elasticsearch, of which one holds a copy of every shard.

use tributary_stack::{Elasticsearch, ElasticsearchOptions};

/// What two nodes and what runs beside them need.
const MEMORY_KB: u64 = 5_000_000;

/// Whether the machine has the memory for two nodes. If not, that is said.
pub(super) fn fit() -> bool {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap_or_default();
    let free: u64 = line.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or(0);
    if free < MEMORY_KB {
        eprintln!("NOT TESTED with copies on a second node: {free} kB are free; on one node without copies instead");
    }
    free >= MEMORY_KB
}

pub(super) async fn two() -> (Elasticsearch, Elasticsearch) {
    // Nobody listens there between this and the start of the node, as the system does not give out a port again at once.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    drop(listener);
    let first = [("transport.port", port.as_str()), ("cluster.initial_master_nodes", "first")];
    let first = start("first", &first).await;
    let seed = format!("127.0.0.1:{port}");
    let second = start("second", &[("discovery.seed_hosts", &seed)]).await;
    (first, second)
}

async fn start(name: &str, theirs: &[(&str, &str)]) -> Elasticsearch {
    let ours = [("node.name", name), ("cluster.name", "tributary-copies"), ("discovery.type", "multi-node")];
    let settings = ours.iter().chain(theirs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let options = ElasticsearchOptions { heap: "512m".to_owned(), settings, ..ElasticsearchOptions::default() };
    Elasticsearch::start(options).await.expect("Elasticsearch starts")
}
