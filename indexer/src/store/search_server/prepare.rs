//! Finds or creates an index on a search server.

use elasticsearch::http::Method;
use serde_json::{Value as Json, json};
use tributary_dsl::plan::{SearchServer, Selection};
use tributary_event::ErrorClass;

use super::http::Server;
use super::reading::primary;
use super::{bulk, settings};
use crate::documents::mapping::{self, Dialect};
use crate::store::{Prepared, StoreError};

/// Checks the server, then finds `<name>` as an alias with the plan's mapping, or creates `<name>-000001` behind it in one
/// call. Two processes that do this at once both succeed: the slower one finds what the other created.
pub(super) async fn prepare(
    server: &Server,
    configured: &SearchServer,
    dialect: Dialect,
    name: &str,
    shape: &Selection,
) -> Result<Prepared, StoreError> {
    let planned =
        mapping::mapping(shape, dialect).map_err(|e| StoreError::caused(ErrorClass::Fatal, e.to_string(), e))?;
    recognise(server, dialect).await?;
    if let Some(found) = behind_alias(server, name).await? {
        match check(server, dialect, name, &found, &planned).await? {
            Found::Fitting => return Ok(Prepared::Existing),
            Found::Empty => remove(server, name, &found).await?,
        }
    }
    let concrete = format!("{name}-000001");
    // What is missing answers 404. Another process may have made the alias since it was ruled out: then the answer names what is behind it.
    let found = server.answer(Method::Get, &format!("/{name}"), None).await?;
    if found.status == 200 && found.body.get(name).is_some() {
        let message = format_args!(
            "`{name}` is an index, and must be an alias so that it can be rebuilt without a gap: \
             rename the pipeline's index, or delete the index `{name}` if it is no longer needed"
        );
        return Err(server.error(ErrorClass::Fatal, message));
    }
    let create = async |replicates| {
        let body = creation(configured, name, &planned, replicates);
        server.answer(Method::Put, &format!("/{concrete}"), Some(&body)).await
    };
    let mut answer = create(dialect == Dialect::OpenSearch).await?;
    if answer.status == 400 && bulk::reason(&answer.body["error"]).contains("replication") {
        tracing::info!(
            index = name,
            reason = bulk::reason(&answer.body["error"]),
            "the server chooses the replication"
        );
        answer = create(false).await?;
    }
    if answer.status == 200 {
        tracing::info!(index = name, concrete, "index created");
        return Ok(Prepared::Created);
    }
    if answer.body["error"]["type"].as_str() != Some("resource_already_exists_exception") {
        return Err(server.failure(&format!("PUT /{concrete}"), &answer));
    }
    match behind_alias(server, name).await? {
        Some(found) => match check(server, dialect, name, &found, &planned).await? {
            Found::Fitting => Ok(Prepared::Existing),
            Found::Empty => {
                let message = format_args!("another process made `{found}` with another mapping at the same moment");
                Err(server.error(ErrorClass::Transient, message))
            }
        },
        None => {
            let message = format_args!(
                "the index `{concrete}` exists, and the alias `{name}` that should point at it does not: \
                 add the alias (with is_write_index), or delete the index to have it built again"
            );
            Err(server.error(ErrorClass::Fatal, message))
        }
    }
}

fn creation(configured: &SearchServer, name: &str, mapping: &Json, replicates: bool) -> Json {
    let (mut fields, mut nested) = (0, 0);
    let depth = size(mapping, &mut fields, &mut nested);
    let mut index = settings::of_new_index(replicates);
    index["number_of_shards"] = json!(configured.shards);
    index["number_of_replicas"] = json!(configured.replicas);
    // Twice the plan's, and never below the servers' defaults.
    index["mapping"] = json!({
        "total_fields": { "limit": 1_000.max(fields * 2) },
        "nested_fields": { "limit": 100.max(nested * 2) },
        "depth": { "limit": 20.max(depth * 2) },
    });
    json!({
        "settings": { "index": index },
        "mappings": mapping,
        "aliases": { name: { "is_write_index": true } },
    })
}

/// Counts the fields of a mapping, and gives its depth.
fn size(mapping: &Json, fields: &mut usize, nested: &mut usize) -> usize {
    let mut depth = 0;
    for member in ["properties", "fields"] {
        for child in mapping[member].as_object().into_iter().flat_map(|m| m.values()) {
            *fields += 1;
            *nested += usize::from(child["type"] == "nested");
            depth = depth.max(1 + size(child, fields, nested));
        }
    }
    depth
}

/// The concrete index that an alias points at, if there is such an alias.
async fn behind_alias(server: &Server, name: &str) -> Result<Option<String>, StoreError> {
    let path = format!("/_alias/{name}");
    let answer = server.answer(Method::Get, &path, None).await?;
    let indexes: Vec<&String> = match answer.status {
        404 => return Ok(None),
        200 => answer.body.as_object().into_iter().flat_map(|o| o.keys()).collect(),
        _ => return Err(server.failure(&path, &answer)),
    };
    match indexes.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((*one).clone())),
        many => {
            let message = format_args!(
                "the alias `{name}` points at {} indexes ({many:?}) and must point at one: documents are read by it",
                many.len()
            );
            Err(server.error(ErrorClass::Fatal, message))
        }
    }
}

/// What an index is that was there.
enum Found {
    /// One with the planned mapping.
    Fitting,
    /// One of ours with another mapping, and without a document: nothing is lost with it.
    Empty,
}

/// Removes an index that has no document, so that it is made with the mapping of today's query.
async fn remove(server: &Server, name: &str, concrete: &str) -> Result<(), StoreError> {
    tracing::info!(index = name, concrete, "the index is empty and the query has changed; it is made anew");
    server.expect(Method::Delete, &format!("/{concrete}"), None).await.map(|_| ())
}

async fn check(
    server: &Server,
    dialect: Dialect,
    name: &str,
    concrete: &str,
    planned: &Json,
) -> Result<Found, StoreError> {
    let found = server.expect(Method::Get, &format!("/{concrete}/_mapping"), None).await?;
    let mut differences = mapping::differences(planned, &found[concrete]["mappings"]);
    let strict = &found[concrete]["mappings"]["dynamic"];
    if strict != "strict" {
        differences.push(format!("`dynamic` is {strict} and should be strict"));
    }
    if differences.is_empty() {
        settings::secure(server, concrete).await?;
        let additions = mapping::additions(planned, &found[concrete]["mappings"]);
        if !additions.is_empty() {
            let path = format!("/{concrete}/_mapping");
            server.expect(Method::Put, &path, Some(&json!({ "properties": additions }))).await?;
            tracing::info!(index = name, concrete, "fields of a newer version were added to the index");
        }
        return Ok(Found::Fitting);
    }
    let is_ours = [mapping::REFS, mapping::STAMP]
        .iter()
        .all(|field| !found[concrete]["mappings"]["properties"][*field].is_null());
    if is_ours {
        server.whole(Method::Post, &format!("/{concrete}/_refresh"), None).await?;
        let counted = server.whole(Method::Get, &format!("/{concrete}/_count?{}", primary(dialect)), None).await?;
        if counted["count"] == 0 {
            return Ok(Found::Empty);
        }
    }
    let message = format_args!(
        "the index `{concrete}` has another mapping than the query of `{name}` asks for:\n  {}\nundo the change of the query, \
         give the pipeline's index a new name, or delete `{concrete}` to have it built again",
        differences.join("\n  ")
    );
    Err(server.error(ErrorClass::Fatal, message))
}

/// Checks that the server is of the configured kind and of a version that is known to work.
async fn recognise(server: &Server, dialect: Dialect) -> Result<(), StoreError> {
    let answer = server.answer(Method::Get, "/", None).await?;
    if answer.status != 200 {
        return Err(server.failure("/", &answer));
    }
    let version = &answer.body["version"];
    let number = version["number"].as_str().unwrap_or_default();
    let found = match version["distribution"].as_str() {
        Some("opensearch") => Dialect::OpenSearch,
        _ if number.is_empty() => {
            let message =
                format_args!("what answers is neither Elasticsearch nor OpenSearch: {}", bulk::reason(&answer.body));
            return Err(server.error(ErrorClass::Fatal, message));
        }
        _ => Dialect::Elasticsearch,
    };
    if found != dialect {
        let message = format_args!(
            "this is {found:?} {number}, and the pipeline says {dialect:?}: write `store: {{ {}: … }}`",
            format!("{found:?}").to_lowercase()
        );
        return Err(server.error(ErrorClass::Fatal, message));
    }
    let least = if dialect == Dialect::Elasticsearch { 8 } else { 2 };
    let major = number.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
    if major < least {
        let message = format_args!("{dialect:?} {number} is too old: {least} or newer is needed");
        return Err(server.error(ErrorClass::Fatal, message));
    }
    tracing::debug!(server = ?found, version = number, "search server recognised");
    Ok(())
}
