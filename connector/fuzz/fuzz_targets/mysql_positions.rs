//! Fuzz target: sets of GTIDs, and MariaDB's positions, as text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::positions;

fuzz_target!(|data: &[u8]| positions(data));
