#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::payload;

fuzz_target!(|data: &[u8]| payload(data));
