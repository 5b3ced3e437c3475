//! The character sets of a server's collations, by their numbers.

use std::collections::BTreeMap;

use crate::error::ConnectorError;
use crate::mysql::wire::session::Session;

/// The character sets of collations.
#[derive(Debug, Clone, Default)]
pub(in crate::mysql) struct Collations(BTreeMap<u32, String>);

impl Collations {
    /// Those of MySQL.
    pub(in crate::mysql) async fn read(session: &mut Session) -> Result<Self, ConnectorError> {
        const SQL: &str = "select id, character_set_name from information_schema.collations where id is not null";
        let rows: Vec<(u32, String)> = session.rows("reading information_schema.collations", SQL).await?;
        Ok(Self(rows.into_iter().collect()))
    }

    /// Those that are known without a server.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::mysql) fn of(known: &[(u32, &str)]) -> Self {
        Self(known.iter().map(|(id, name)| (*id, (*name).to_owned())).collect())
    }

    /// The character set of a collation.
    pub(in crate::mysql) fn charset(&self, collation: u32) -> Option<&str> {
        self.0.get(&collation).map(String::as_str)
    }
}
