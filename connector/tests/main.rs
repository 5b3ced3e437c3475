//! The connector against a real PostgreSQL: every test has a database, a slot and a publication of its own.
//!
//! The server comes from `TRIBUTARY_TEST_POSTGRES`, a superuser's URL without a database.

mod binary;
mod doubt;
mod encodings;
mod failover;
mod heartbeat;
mod in_progress;
mod keys;
mod logs;
mod memory;
mod messages;
mod names;
mod network;
mod outages;
mod oversized;
mod poolers;
mod prepared;
mod refusals;
mod resume;
mod rows;
mod schema;
mod sessions;
mod standby;
mod streaming;
mod support;
mod tables;
mod tls;
mod types;
mod visibility;
