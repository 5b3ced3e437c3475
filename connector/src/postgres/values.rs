//! Values of columns: the bytes and the texts of the server → the values that events have. Pure.

pub(super) mod array;
pub(super) mod binary;
pub(super) mod charset;
pub(super) mod extension;
pub(super) mod print;
pub(super) mod texts;
pub(super) mod time;
#[cfg(test)]
mod types;
pub(super) mod value;
