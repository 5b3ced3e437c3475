//! Fuzz target: header, checksum, and the body as each kind: GTID with a tag or without, MariaDB's, statement, rotation, heartbeat, format.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_connector::fuzzing::mysql::event;

fuzz_target!(|data: &[u8]| event(data));
