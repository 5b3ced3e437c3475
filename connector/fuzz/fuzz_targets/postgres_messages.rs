#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::postgres::messages;

fuzz_target!(|data: &[u8]| messages(data));
