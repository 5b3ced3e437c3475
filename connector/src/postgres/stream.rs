//! The stream: messages of the log → events in the order of their commits, held until everybody sees them.

pub(super) mod assembler;
pub(super) mod learn;
pub(super) mod pgoutput;
pub(super) mod sink;
pub(super) mod source;
pub(super) mod streamed;
pub(super) mod streaming;
pub(super) mod visibility;
