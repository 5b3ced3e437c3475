//! Sinks against real receivers, databases and folders.

mod conductor;
mod files;
mod sql;
mod support;
mod webhook;
