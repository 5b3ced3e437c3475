//! `store:`: where documents are kept.

use std::sync::Arc;

use super::http_url;
use crate::plan::{SearchServer, StorePlan};
use crate::yaml::{Map, Node, Reader};

/// Left out, or wrong (which is said): the embedded index.
pub(super) fn store(r: &mut Reader, index: &Map) -> StorePlan {
    let path = index.path_of("store");
    let kinds = ["elasticsearch", "opensearch", "embedded"];
    let Some(map) = index.get("store").and_then(|node| r.map(node, &path, &kinds)) else { return StorePlan::Embedded };
    let plan = match (map.get(kinds[0]), map.get(kinds[1]), map.get(kinds[2])) {
        (Some(node), None, None) => server(r, node, &map.path_of(kinds[0]), true).map(StorePlan::Elasticsearch),
        (None, Some(node), None) => server(r, node, &map.path_of(kinds[1]), false).map(StorePlan::OpenSearch),
        (None, None, Some(node)) => {
            if !matches!(node.kind, crate::yaml::Kind::Null) {
                r.map(node, &map.path_of(kinds[2]), &[]);
            }
            Some(StorePlan::Embedded)
        }
        _ => {
            let help = "write one of `elasticsearch:`, `opensearch:`, `embedded:`, or leave `store` out";
            if map.entries().len() != 1 {
                r.error(map.place, format!("`{path}` must name exactly one store"), Some(help.into()));
            }
            None
        }
    };
    plan.unwrap_or(StorePlan::Embedded)
}

fn server(r: &mut Reader, node: &Arc<Node>, path: &str, elasticsearch: bool) -> Option<SearchServer> {
    let mut keys = vec!["url", "username", "password", "ca_file", "shards", "replicas"];
    if elasticsearch {
        keys.push("api_key");
    }
    let map = r.map(node, path, &keys)?;
    let url = http_url(r, &map, "url", "write `username` and `password`");
    let username = map.get("username").and_then(|node| r.text(node, &map.path_of("username")));
    let password = map.get("password").and_then(|node| r.secret(node, &map.path_of("password")));
    let api_key = map.get("api_key").and_then(|node| r.secret(node, &map.path_of("api_key")));
    for (there, other) in [("username", "password"), ("password", "username")] {
        if map.get(there).is_some() && map.get(other).is_none() {
            r.error(map.key_place(there), format!("`{there}` without `{other}`"), None);
        }
    }
    if map.get("username").is_some() && map.get("api_key").is_some() {
        let help = "remove one of them".to_owned();
        r.error(map.key_place("api_key"), "either a user with a password, or an API key", Some(help));
    }
    let ca_file = map.get("ca_file").and_then(|node| r.text(node, &map.path_of("ca_file")));
    let shards = map.get("shards").and_then(|node| r.number(node, &map.path_of("shards"), 1..=1024));
    let replicas = map.get("replicas").and_then(|node| r.number(node, &map.path_of("replicas"), 0..=100));
    Some(SearchServer {
        url: url?.value.trim_end_matches('/').to_owned(),
        basic: username.map(|text| text.value).zip(password),
        api_key,
        ca_file: ca_file.map(|text| text.value),
        shards: shards.unwrap_or(1),
        replicas: replicas.unwrap_or(1),
    })
}
