//! Functions of users that are WebAssembly components: any language that compiles to one can write them. `wit/function.wit` says what a
//! component exports. It is given nothing of the machine: no files, no network, no clock, no environment; what it takes for random is the
//! same in each call. Each call has an instance of its own, so nothing stays of one for the next.

#![cfg(feature = "engine")]

mod alarm;
mod component;
mod imports;

pub use component::{Component, Limits, LoadError};
