//! `store:`: where documents are kept.

use crate::keys::store as key;
use crate::plan::{SearchServer, StorePlan};
use crate::yaml::{Map, Reader};

/// Wrong (which is said): the embedded index.
pub(super) fn store(r: &mut Reader, map: &Map) -> StorePlan {
    if let Some(server) = r.optional(map, &key::ELASTICSEARCH) {
        let api_key = r.optional(&server, &key::API_KEY);
        return search_server(r, &server)
            .map_or(StorePlan::Embedded, |plan| StorePlan::Elasticsearch(SearchServer { api_key, ..plan }));
    }
    if let Some(server) = r.optional(map, &key::OPENSEARCH) {
        return search_server(r, &server).map_or(StorePlan::Embedded, StorePlan::OpenSearch);
    }
    r.optional(map, &key::EMBEDDED);
    StorePlan::Embedded
}

fn search_server(r: &mut Reader, map: &Map) -> Option<SearchServer> {
    let url = r.required(map, &key::URL);
    let username = r.optional(map, &key::USERNAME);
    let password = r.optional(map, &key::PASSWORD);
    let ca_file = r.optional(map, &key::CA_FILE);
    let shards = r.value(map, &key::SHARDS);
    let replicas = r.value(map, &key::REPLICAS);
    Some(SearchServer {
        url: url?.value.trim_end_matches('/').to_owned(),
        basic: username.map(|text| text.value).zip(password),
        api_key: None,
        ca_file: ca_file.map(|text| text.value),
        shards,
        replicas,
    })
}
