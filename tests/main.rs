//! End-to-end scenarios against real servers, and the tests that guard the architecture.
//!
//! Each scenario runs the real binary as its own process, changes the database, hurts something, and ends with the same
//! assertion: the index equals the documents recomputed from the database, in both directions.

mod architecture;
mod client;
mod world;

mod scenarios {
    mod absence;
    mod absent_graph;
    mod bad_input;
    mod cases;
    mod changes;
    mod commands;
    mod crashes;
    mod falling;
    mod foreign;
    mod letters;
    mod memory;
    mod moods;
    mod mysql;
    mod mysql_graph;
    mod names;
    mod order;
    mod outages;
    mod plans;
    mod poison;
    mod proposal;
    mod remade;
    mod replica;
    mod retention;
    mod s3_files;
    mod schema;
    mod several;
    mod sink_checks;
    mod sinks;
    mod sql_sink;
    mod standby;
    mod streams;
    mod tables;
    mod traces;
}
