//! The connector against real servers of MySQL and MariaDB: every test has a database of its own in each.
//!
//! The servers come from `TRIBUTARY_TEST_MYSQL` and `TRIBUTARY_TEST_MARIADB`, administrators' URLs without a database. One that is not
//! set is left out.

mod doubt;
mod failover;
mod grants;
mod kafka;
mod keys;
mod large;
mod login;
mod online;
mod own;
mod query;
mod rendered;
mod resume;
mod schema;
mod server;
#[path = "../support.rs"]
#[allow(dead_code, reason = "tests of PostgreSQL need more of it")]
mod support;
mod types;
mod unusual;
