//! MySQL and MariaDB: the binary log, read as a replica reads it.

mod binlog;
mod cursor;
mod endpoint;
mod failure;
pub mod position;
mod session;
mod values;
mod wire;
