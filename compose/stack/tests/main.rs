//! Tests of the stack on real servers, and of the Compose files.

mod compose_files;
mod servers;
