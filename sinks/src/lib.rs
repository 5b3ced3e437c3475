//! Where events of streams go outside of the transport: requests to a service, workflows, rows of a database, files of a folder.
//!
//! What a sink promises is told by the traits of [`tributary_processor::sink`]; how each kind keeps its promise is argued at the top of
//! its folder.

pub mod conductor;
pub mod files;
pub mod sql;
pub mod webhook;

pub mod http;

mod text;

pub use conductor::Conductor;
pub use files::Files;
pub use sql::Sql;
pub use webhook::Webhook;
