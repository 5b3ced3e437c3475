//! The movie graph: its root fields and how its schema is put together.

mod query;
mod scalars;
pub(crate) mod types;

use async_graphql::{EmptyMutation, EmptySubscription};

/// The schema that every request is executed against.
pub(crate) type Schema = async_graphql::Schema<query::Query, EmptyMutation, EmptySubscription>;

/// Builds the schema. Loaders, faults and naming come with each request.
pub(crate) fn schema() -> Schema {
    Schema::new(query::Query, EmptyMutation, EmptySubscription)
}
