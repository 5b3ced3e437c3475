//! Sinks against real receivers, databases and folders.

mod support;
mod webhook;
