//! From a plan's settings to a document store.

use std::path::Path;
use std::sync::Arc;

use tributary_dsl::plan::{IndexPlan, StorePlan};

use super::embedded::{self, EmbeddedStore};
use super::search_server::SearchServerStore;
use super::{DocumentStore, StoreError};
use crate::documents::mapping::{self, Dialect};

/// The store of one index; call [`DocumentStore::prepare`] before anything else. Nothing is connected to or created here;
/// an unusable URL, key or certificate file is a `Fatal` error.
pub fn open(store: &StorePlan, index_name: &str, data: &Path) -> Result<Arc<dyn DocumentStore>, StoreError> {
    Ok(match store {
        StorePlan::Embedded => Arc::new(EmbeddedStore::new(data, index_name)),
        StorePlan::Elasticsearch(server) => {
            Arc::new(SearchServerStore::new(server, Dialect::Elasticsearch, index_name)?)
        }
        StorePlan::OpenSearch(server) => Arc::new(SearchServerStore::new(server, Dialect::OpenSearch, index_name)?),
    })
}

/// The store of one index, to look into while another process may be writing it: `get`, `heads`, `lookup`, `scan`, `search`,
/// `count` and `probe` work without [`DocumentStore::prepare`], and see what was refreshed. Writing to an embedded index
/// opened like this is a `Fatal` error.
pub fn open_read_only(store: &StorePlan, index_name: &str, data: &Path) -> Result<Arc<dyn DocumentStore>, StoreError> {
    match store {
        StorePlan::Embedded => Ok(Arc::new(EmbeddedStore::read_only(data, index_name))),
        _ => open(store, index_name, data),
    }
}

/// What can be known without a store about whether it can hold an index's documents. The error names the field and its remedy.
pub fn check(index: &IndexPlan) -> Result<(), String> {
    let fields = mapping::fields(&index.selection).map_err(|error| error.to_string())?;
    match index.store {
        StorePlan::Embedded => embedded::check(&fields),
        StorePlan::Elasticsearch(_) | StorePlan::OpenSearch(_) => Ok(()),
    }
}
