//! Fuzz target: the messages around them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::postgres::frames;

fuzz_target!(|data: &[u8]| frames(data));
