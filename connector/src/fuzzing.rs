//! Doors to what reads bytes that come from a server, for the fuzz targets beside this crate (`connector/fuzz`). Nothing else may use
//! them: they promise nothing.

/// MySQL and MariaDB.
pub mod mysql {
    pub use crate::mysql::fuzzing::{document, event, events, packets, payload, positions, rows, value};
}

/// PostgreSQL.
pub mod postgres {
    pub use crate::postgres::fuzzing::{frames, messages, value};
}
