//! Runs the stages of a plan: takes records in by partition, keeps what is in flight bounded, retries, and commits
//! only what is wholly done.
//!
//! A stage is an [`intake`] loop in front of a [`Handler`]. The loop knows traits only. What a record
//! caused has its final verdict when its [`Ticket`] is done; [`prefix`] turns done tickets into
//! offsets that may be committed. [`stream`] is such a stage: events through the steps of a stream into topics.

pub mod answered;
pub mod delivery;
pub mod intake;
pub mod lookup;
pub mod outbox;
pub mod outside;
pub mod parked;
pub mod prefix;
pub mod retry;
pub mod sink;
pub mod stream;
pub mod supervise;
pub mod tickets;

pub use answered::{FailedCall, until_answered};
pub use delivery::{Delivery, Sink};
pub use intake::{Handler, IntakeSettings, Lag, StageError};
pub use lookup::{Listing, Page, Table};
pub use outbox::{OutRecord, Outbox, OutboxTask, Receipt, outbox};
pub use outside::{Answer, Changes, Enricher, OutsideError};
pub use parked::Parked;
pub use retry::Backoff;
pub use stream::Stream;
pub use stream::tap::Taps;
pub use supervise::{Tasks, supervise};
pub use tickets::{Held, Ticket};
