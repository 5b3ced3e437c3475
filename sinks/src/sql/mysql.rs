//! MySQL and MariaDB: definitions end a transaction, so they are changed outside of one; rows go there as text; the lock of a partition is
//! that of its mark's row.
//!
//! Both take the same statements. Where they have nothing in common but what one of them is giving up (`values()`), that is used.

mod catalog;
mod dialect;
mod endpoint;
mod failure;
mod literal;
mod marks;
mod moment;
mod rows;
mod session;

pub(super) use endpoint::Endpoint;
