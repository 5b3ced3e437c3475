//! MySQL and MariaDB: the binary log, read as a replica reads it.
//!
//! [`prepare`](prepare()) makes sure that the server fits, that this process is the one that reads, and that a position is durable; [`MySqlSource`]
//! streams. Beneath: `endpoint` (URL), `wire` (protocol, login, TLS), `stream` (the log), `binlog` (events), `tracker` (where a reader stands),
//! `values` (columns), `tables` and `history` (what tables were at each place of the log), `ahead` (the catalog is ahead of the log).

mod ahead;
mod assembler;
mod binlog;
mod charsets;
mod checkpoint;
mod cursor;
mod endpoint;
mod failure;
mod held;
mod history;
mod inspect;
mod mapped;
pub mod position;
mod prepare;
mod run;
mod session;
mod source;
mod stream;
mod tables;
mod tracker;
mod values;
mod wire;

pub use checkpoint::{HalfDone, MySqlCheckpoint};
pub use inspect::{column_types, inspect};
pub use prepare::{Prepared, prepare};
pub(crate) use run::attempt;
pub use source::MySqlSource;
