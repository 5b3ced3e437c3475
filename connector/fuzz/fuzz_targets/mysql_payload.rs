//! Fuzz target: transactions that are compressed as a whole, and compressed events of MariaDB.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::payload;

fuzz_target!(|data: &[u8]| payload(data));
