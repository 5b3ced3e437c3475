//! Fuzz target: the bytes of a value, of every type and character set.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::value;

fuzz_target!(|data: &[u8]| value(data));
