//! PostgreSQL: logical replication through the `pgoutput` plugin.
//!
//! [`prepare`](prepare()) makes sure that publication and slot exist and fit; [`PostgresSource`] streams; [`KeyPager`] pages
//! through the keys of a table, [`RowPager`] through its rows. Beneath: [`endpoint`] (URL), `wire` (protocol 3.0, login, TLS), `stream` (the replication
//! sub-protocol), [`pgoutput`] (messages), [`relation`], [`value`] and `binary` (rows), [`catalog`] (what the server knows).

mod absent;
mod array;
mod assembler;
mod binary;
mod binding;
pub mod catalog;
mod charset;
mod columns;
mod describe;
pub mod endpoint;
mod extension;
mod frame;
mod heartbeat;
mod hosts;
mod inspect;
mod keys;
mod known;
mod learn;
mod monitor;
pub mod pgoutput;
mod prepare;
mod print;
mod publication;
pub mod relation;
mod rows;
mod session;
mod sink;
mod slot;
mod source;
mod sql;
pub(crate) mod sqlstate;
mod stream;
mod streamed;
mod streaming;
mod texts;
mod time;
mod timeline;
mod two_phase;
#[cfg(test)]
mod types;
pub mod value;
mod visibility;
mod wire;

pub use catalog::{TableInfo, table_columns};
pub use columns::column_types;
pub use describe::{Description, describe};
pub use inspect::{has_slot, inspect};
pub use keys::{KeyPager, KeyRow};
pub(crate) use known::Known;
pub(crate) use monitor::{Watch, monitor};
pub(crate) use prepare::checkpoint;
pub use prepare::{Prepared, prepare};
pub use rows::{RowPager, TableRow};
pub use slot::end_of_log;
pub(crate) use slot::{continues, position, wait_turn};
pub use source::PostgresSource;
