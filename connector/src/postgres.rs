//! PostgreSQL: logical replication through the `pgoutput` plugin.
//!
//! [`prepare`](prepare()) makes sure that publication and slot exist and fit; [`PostgresSource`] streams, while `monitor` looks at what the
//! server keeps; [`KeyPager`] pages through the keys of a table. The rooms, as data flows:
//! `wire` (URL, protocol 3.0, login, TLS, sessions, the replication sub-protocol) → `slot` (where the log is read, and what holds it) →
//! `stream` (messages of `pgoutput` → events) with `values` (bytes and texts of columns → values) and `tables` (what the server
//! knows of tables).

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod monitor;
mod prepare;
mod slot;
mod stream;
mod tables;
mod values;
mod wire;

pub(crate) use monitor::{Watch, monitor};
pub(crate) use prepare::checkpoint;
pub use prepare::{Prepared, prepare};
pub use slot::end_of_log;
pub(crate) use slot::{continues, position, wait_turn};
pub use stream::source::PostgresSource;
pub use tables::catalog::{TableInfo, table_columns};
pub use tables::columns::column_types;
pub use tables::describe::describe;
pub use tables::inspect::{has_slot, inspect};
pub use tables::keys::KeyPager;
pub(crate) use tables::known::Known;
