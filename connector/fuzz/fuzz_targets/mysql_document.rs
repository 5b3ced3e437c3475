//! Fuzz target: JSON in its binary form, and differences.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::document;

fuzz_target!(|data: &[u8]| document(data));
