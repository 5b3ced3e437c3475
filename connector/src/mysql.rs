//! MySQL and MariaDB: the binary log, read as a replica reads it.
//!
//! [`prepare`](prepare()) makes sure that the server fits, that this process is the one that reads, and that a position is durable; [`MySqlSource`]
//! streams; [`KeyPager`] pages through the rows of a table. The rooms, as data flows: `wire` (URL, protocol, login, TLS, sessions, the log as it comes, what of it is `kept` in files) → `binlog` (what events say) →
//! `stream` (where a reader stands, events → changes) with `position` (places in a log), `values` (bytes of columns → values) and `tables`
//! (what tables were at each place of the log).

mod binlog;
mod checkpoint;
mod cursor;
mod describe;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grants;
mod inspect;
mod kept;
mod monitor;
mod pager;
pub mod position;
mod prepare;
mod run;
mod stream;
mod tables;
mod values;
mod wire;

pub use checkpoint::{HalfDone, MySqlCheckpoint};
pub use describe::describe;
pub use inspect::{column_types, inspect};
pub use pager::KeyPager;
pub use prepare::{Prepared, prepare};
pub(crate) use run::attempt;
pub use stream::source::MySqlSource;
