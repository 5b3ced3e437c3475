//! The change-event contract: what a row change looks like between every room, and on the wire.
//!
//! No I/O and no async runtime live here, only data, its encodings, and the words every room
//! shares about failure and health: [`ErrorClass`], [`Health`] and [`Trouble`].

pub mod calendar;
pub mod causes;
pub mod change;
pub mod class;
pub mod clock;
pub mod debezium;
pub mod health;
pub mod json_type;
pub mod moment;
pub mod plan_hash;
pub mod position;
pub mod row;
pub mod scope;
pub mod table_name;
pub mod traces;
pub mod trouble;

pub use causes::causes;
pub use change::{ChangeEvent, LogicalMessage, Op, Origin, SourceInfo, SourceKind, TransactionInfo};
pub use class::ErrorClass;
pub use clock::HybridClock;
pub use health::{Health, HealthState, PartHealth, Reporter};
pub use json_type::{ColumnType, JsonType};
pub use plan_hash::PlanHash;
pub use position::{LogGroup, Lsn, Position};
pub use row::{Column, Row, TableSchema, Value};
pub use scope::{Bound, KeyRange, Scope};
pub use table_name::{TableName, TableNameError};
pub use trouble::Trouble;
