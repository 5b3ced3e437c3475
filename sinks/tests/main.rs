//! Sinks against real receivers, databases and folders.

mod sql;
mod support;
mod webhook;
