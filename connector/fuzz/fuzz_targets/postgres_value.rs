//! Fuzz target: a value as text and as its type sends it, of every type.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::postgres::value;

fuzz_target!(|data: &[u8]| value(data));
