//! Pages of root ids: reads a Relay connection (GraphQL Cursor Connections specification). Pure.

use serde_json::Value as Json;

use crate::documents::document::id_text;
use crate::graph::IdPage;

/// The page that a connection answered; `after` is the cursor it was asked with.
pub(super) fn id_page(connection: &Json, after: Option<&str>) -> Result<IdPage, String> {
    let list = |key: &str| connection.get(key).and_then(Json::as_array);
    let nodes: Vec<&Json> = match (list("edges"), list("nodes")) {
        (Some(edges), _) => edges.iter().filter_map(|edge| edge.get("node")).collect(),
        (None, Some(nodes)) => nodes.iter().collect(),
        (None, None) => return Err("answers neither `edges` nor `nodes`".into()),
    };
    let ids: Option<Vec<String>> =
        nodes.into_iter().filter(|node| !node.is_null()).map(|node| node.get("id").and_then(id_text)).collect();
    let ids = ids.ok_or("answers a node without an `id`")?;
    let info = connection.get("pageInfo").ok_or("answers no `pageInfo`")?;
    let more = info.get("hasNextPage").and_then(Json::as_bool).ok_or("answers no `pageInfo.hasNextPage`")?;
    // Cursors are opaque, and may be numbers.
    let next = info.get("endCursor").and_then(id_text).filter(|_| more);
    if more && (next.is_none() || next.as_deref() == after) {
        return Err("says that there is a next page, but names no new cursor for it (`pageInfo.endCursor`)".into());
    }
    Ok(IdPage { ids, next })
}
