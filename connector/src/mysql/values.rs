//! Values of columns: bytes of the log → the values that events have. Pure.

pub(super) mod charset;
pub(super) mod codec;
mod codepages;
pub(super) mod decimal;
mod exceptions;
pub(super) mod json;
pub(super) mod temporal;
#[cfg(test)]
mod types;

pub(super) use codec::{Codec, Described, Kind, Unreadable};
