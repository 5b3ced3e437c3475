//! PostgreSQL: definitions are a part of transactions, rows go there as JSON, and locks of partitions have names.

mod catalog;
mod dialect;
mod endpoint;
mod failure;
mod marks;
mod rows;
mod session;

pub(super) use endpoint::Endpoint;

#[cfg(test)]
pub(super) use dialect::Postgres;
