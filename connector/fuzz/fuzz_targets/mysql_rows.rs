//! Fuzz target: a table map, and rows of it: inserted, updated, deleted, in parts, compressed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::rows;

fuzz_target!(|data: &[u8]| rows(data));
