//! MariaDB's global transaction identifiers: of each domain the last one.
//!
//! Reference: MariaDB Knowledge Base, "Global Transaction ID".

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ParsePositionError;

/// One transaction: domain, server, number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainGtid {
    /// The replication domain.
    pub domain: u32,
    /// The server that made it first.
    pub server: u32,
    /// It rises within the domain.
    pub number: u64,
}

/// The last transaction of each domain. Which server made it does not count: a failover changes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains(BTreeMap<u32, (u32, u64)>);

impl Domains {
    /// Whether the transaction is that of its domain, or one before.
    pub fn contains(&self, gtid: &DomainGtid) -> bool {
        self.0.get(&gtid.domain).is_some_and(|(_, number)| gtid.number <= *number)
    }

    /// Whether it is as far as another one in every domain.
    pub fn reaches(&self, other: &Self) -> bool {
        other.0.iter().all(|(domain, (_, number))| self.0.get(domain).is_some_and(|(_, ours)| ours >= number))
    }

    /// The transaction was read.
    pub fn insert(&mut self, gtid: &DomainGtid) {
        self.0.insert(gtid.domain, (gtid.server, gtid.number));
    }
}

impl fmt::Display for DomainGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.number)
    }
}

impl FromStr for DomainGtid {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePositionError(text.to_owned(), "GTID of MariaDB");
        let mut parts = text.trim().split('-');
        let gtid = Self {
            domain: parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?,
            server: parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?,
            number: parts.next().and_then(|p| p.parse().ok()).ok_or_else(wrong)?,
        };
        if parts.next().is_some() { Err(wrong()) } else { Ok(gtid) }
    }
}

impl fmt::Display for Domains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (domain, (server, number))) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{domain}-{server}-{number}")?;
        }
        Ok(())
    }
}

impl FromStr for Domains {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut domains = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            domains.insert(&part.parse()?);
        }
        Ok(domains)
    }
}

impl Serialize for Domains {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Domains {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for DomainGtid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DomainGtid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_survive_print_and_parse(all in proptest::collection::vec((any::<u32>(), any::<u32>(), any::<u64>()), 0..5)) {
            let mut domains = Domains::default();
            for (domain, server, number) in all {
                let gtid = DomainGtid { domain, server, number };
                prop_assert_eq!(gtid.to_string().parse(), Ok(gtid));
                domains.insert(&gtid);
                prop_assert!(domains.contains(&gtid));
            }
            prop_assert_eq!(domains.to_string().parse(), Ok(domains.clone()));
            prop_assert!(domains.reaches(&domains));
        }
    }

    #[test]
    fn another_server_of_the_same_domain_goes_on_where_the_first_was() {
        let (first, second): (Domains, Domains) = ("0-1-7,1-1-3".parse().expect("one"), "0-2-8".parse().expect("one"));
        assert!(!second.reaches(&first) && !first.reaches(&second));
        assert!(second.contains(&"0-1-7".parse().expect("one")));
    }
}
