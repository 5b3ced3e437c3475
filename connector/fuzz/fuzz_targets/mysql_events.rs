//! Fuzz target: a connection's events, as the stream takes them: groups, table maps, rows, savepoints, XA, definitions, compressed ones.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::events;

fuzz_target!(|data: &[u8]| events(data));
