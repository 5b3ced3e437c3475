//! From a build request to a searchable document: what is due is scheduled, a batch of it fetched and written, and a build is over
//! when its document can be found. What fails is tried again, waits, or is set aside.

pub mod absence;
pub mod batch;
pub mod brake;
pub mod builder;
mod latest;
pub mod schedule;
pub mod visibility;
