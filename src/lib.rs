//! The composition root: the only place that names concrete databases, transports, stores and graphs together.
//!
//! A program with functions and streams of its own is this command with a few lines more, and knows everything that the command knows:
//!
//! ```ignore
//! use std::process::ExitCode;
//! use tributary::functions::Functions;
//!
//! /// Worth more in the Netherlands.
//! #[tributary::function]
//! fn score(price: f64, country: Option<&str>) -> Result<f64, String> {
//!     if price < 0.0 { Err(format!("a price of {price}")) } else { Ok(if country == Some("NL") { price * 2.0 } else { price }) }
//! }
//!
//! fn main() -> ExitCode {
//!     tributary::cli(Functions::new().function::<score>())
//! }
//! ```
//!
//! [`definition`] reads a pipeline's text, [`backends`] turns its plan into real parts, [`run`] runs them; [`commands`] are
//! what the command line offers on top.

pub mod backends;
pub mod cases;
pub mod cli;
pub mod commands;
pub mod definition;
mod dependent;
pub mod functions;
pub mod probe;
pub mod run;
mod streams;

pub use cli::cli;
pub use tributary_dsl::written;
pub use tributary_macros::{function, stream, vrl};
