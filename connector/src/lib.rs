//! Sources: what captures the changes of a database and publishes them to topics.
//!
//! [`source`] is the contract of a source, [`publish`] the small loop that drives one into a transport's producer,
//! [`run`](run()) the composition of both with retries and health. Only this room knows database protocols: [`postgres`] and [`mysql`].

pub mod checkpoint;
pub mod dependent;
#[cfg(test)]
mod documentation;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod mysql;
mod net;
mod pager;
pub mod postgres;
pub mod publish;
pub mod run;
pub mod settings;
pub mod source;

pub use checkpoint::{InProgress, PostgresCheckpoint};
pub use dependent::carried::{AsId, Carried};
pub use dependent::description::{Description, Reference};
pub use dependent::{Dependent, Doubt, Independent};
pub use error::ConnectorError;
pub use pager::{KeyPager, KeyRow, RowPager, TableRow};
pub use run::run;
pub use settings::{
    BatchLimits, BinaryHandling, ConnectorSettings, DroppedTypes, InvalidText, MySqlSettings, Oversized,
    OversizedPolicy, PostgresSettings, PreparedTransactions, Secret, SourceSettings, TimePrecision, TopicSettings,
    ValueOptions,
};
pub use source::{Mark, Part, Source};
