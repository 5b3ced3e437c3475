//! Fuzz target: messages of `pgoutput`, as the stream takes them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::postgres::messages;

fuzz_target!(|data: &[u8]| messages(data));
