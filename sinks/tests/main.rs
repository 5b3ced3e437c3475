//! Sinks against real receivers, databases and folders.

mod files;
mod sql;
mod support;
mod webhook;
