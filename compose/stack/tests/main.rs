//! Tests of the stack on real servers.

mod servers;
