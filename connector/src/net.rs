//! Connections to servers of databases, whatever they speak.

mod socket;
mod stream;
pub mod tls;

pub(crate) use socket::{QUIET_READ, Socket};
pub(crate) use stream::{Stream, notice_a_cut};
