//! Pipeline text → checked [`plan::Plan`]. Pure: no I/O, no async runtime; the caller hands in texts and variables.
//!
//! All errors are found in one go, each with its file, line, caret, cause and suggestion.

pub mod plan;
