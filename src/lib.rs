//! The composition root: the only place that names concrete databases, transports, stores and graphs together.
//!
//! [`definition`] reads a pipeline's text, [`backends`] turns its plan into real parts, [`run`] runs them; [`commands`] are
//! what the command line offers on top.

pub mod backends;
pub mod cases;
pub mod cli;
pub mod commands;
pub mod definition;
mod dependent;
mod derived;
mod described;
pub mod exit;
pub mod http;
pub mod logs;
pub mod output;
pub mod planning;
pub mod probe;
pub mod record;
pub mod rules;
pub mod run;
mod source;
mod streams;
pub mod tap;
