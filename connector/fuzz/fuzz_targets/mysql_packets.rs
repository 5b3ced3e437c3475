//! Fuzz target: packets, greeting, keys, salts, errors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::packets;

fuzz_target!(|data: &[u8]| packets(data));
