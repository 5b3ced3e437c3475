//! Tests of the stack on real servers.

mod compose_files;
mod mysql;
mod servers;
