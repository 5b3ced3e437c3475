//! Expressions of streams: programs in VRL (the Vector Remap Language), compiled against the type of what flows through a stream, and
//! run on it. Pure: no I/O, no async. Only this room knows the compiler.
//!
//! An event flows as it stands in its topic: [`json::read`] turns its bytes into a [`Value`], [`json::write`] turns one into bytes. What
//! a program may find there is its [`Shape`]; a [`Program`] knows the shape of what it leaves behind. Users may bring functions of their
//! own, which programs and steps call: [`function`].

mod clock;
mod fields;
pub mod function;
pub mod json;
mod path;
mod problem;
mod program;
mod shape;

pub use clock::by_clock;
pub use fields::Fields;
pub use function::{Fit, Function, FunctionError, FunctionSet, Made, Signature, Type};
pub use path::Path;
pub use problem::Problem;
pub use program::{Failure, Flow, Lack, Program};
pub use shape::{Content, Shape};
pub use vrl::value::Value;
