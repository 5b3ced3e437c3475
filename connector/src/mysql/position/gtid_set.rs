//! Sets of MySQL's global transaction identifiers.
//!
//! Reference: MySQL Reference Manual, "GTID Format and Storage"; the encoding is that of `COM_BINLOG_DUMP_GTID` (`Gtid_set::encode`).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::cursor::from_digits;
use super::ParsePositionError;

/// Who gave a number: a server, and the tag if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Issuer {
    server: [u8; 16],
    tag: String,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    issuer: Issuer,
    number: u64,
}

/// A set of transactions. Its intervals are half open, disjoint, apart, and in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GtidSet(BTreeMap<Issuer, Vec<(u64, u64)>>);

/// Numbers lie below this.
const END: u64 = i64::MAX as u64;

impl Gtid {
    /// That of a server, with a tag (empty: none) and a number.
    pub fn new(server: [u8; 16], tag: &str, number: u64) -> Self {
        Self { issuer: Issuer { server, tag: tag.to_owned() }, number }
    }

    /// The same, if tag and number are some.
    pub(in crate::mysql) fn checked(server: [u8; 16], tag: &str, number: u64) -> Option<Self> {
        let fits = (1..END).contains(&number) && (tag.is_empty() || is_tag(tag));
        fits.then(|| Self::new(server, &tag.to_ascii_lowercase(), number))
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl GtidSet {
    /// Whether a transaction is in it.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        let intervals = self.0.get(&gtid.issuer).map_or(&[][..], Vec::as_slice);
        let after = intervals.partition_point(|(begin, _)| *begin <= gtid.number);
        after > 0 && gtid.number < intervals[after - 1].1
    }

    /// Puts a transaction in.
    pub fn insert(&mut self, gtid: &Gtid) {
        self.add(gtid.issuer.clone(), (gtid.number, gtid.number + 1));
    }

    fn add(&mut self, issuer: Issuer, (mut begin, mut end): (u64, u64)) {
        if begin >= end {
            return;
        }
        let intervals = self.0.entry(issuer).or_default();
        // The usual case: the next number of the last interval.
        if let Some(last) = intervals.last_mut()
            && last.1 == begin
        {
            last.1 = end;
            return;
        }
        let from = intervals.partition_point(|(_, e)| *e < begin);
        let to = intervals.partition_point(|(b, _)| *b <= end);
        if let Some(merged) = intervals.get(from..to).filter(|merged| !merged.is_empty()) {
            begin = begin.min(merged[0].0);
            end = end.max(merged[merged.len() - 1].1);
        }
        intervals.splice(from..to, [(begin, end)]);
    }

    /// Puts all of another set in.
    pub fn extend(&mut self, other: &Self) {
        for (issuer, intervals) in &other.0 {
            for interval in intervals {
                self.add(issuer.clone(), *interval);
            }
        }
    }

    /// Whether another set has all of this one.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|(issuer, intervals)| {
            let others = other.0.get(issuer).map_or(&[][..], Vec::as_slice);
            intervals.iter().all(|(begin, end)| {
                let after = others.partition_point(|(b, _)| b <= begin);
                after > 0 && *end <= others[after - 1].1
            })
        })
    }

    /// What this one has and another one has not.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (issuer, intervals) in &self.0 {
            let others = other.0.get(issuer).map_or(&[][..], Vec::as_slice);
            for (begin, end) in intervals {
                let mut begin = *begin;
                for (b, e) in others.iter().filter(|(b, _)| b < end) {
                    if *e <= begin {
                        continue;
                    }
                    left.add(issuer.clone(), (begin, (*b).max(begin)));
                    begin = begin.max(*e);
                }
                left.add(issuer.clone(), (begin, *end));
            }
        }
        left
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the server reads it with the request for a log.
    pub fn encode(&self) -> Vec<u8> {
        let count = self.0.len() as u64;
        let tagged = self.0.keys().any(|issuer| !issuer.tag.is_empty());
        let mut out = if tagged { count << 8 | 1 << 56 | 1 } else { count }.to_le_bytes().to_vec();
        for (issuer, intervals) in &self.0 {
            out.extend_from_slice(&issuer.server);
            if tagged {
                // A tag has 32 characters at most, so its length has one byte.
                out.push((issuer.tag.len() as u8) << 1);
                out.extend_from_slice(issuer.tag.as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for (begin, end) in intervals {
                out.extend_from_slice(&begin.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out
    }
}

fn write_server(f: &mut fmt::Formatter<'_>, server: &[u8; 16]) -> fmt::Result {
    for (at, byte) in server.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// Reads a UUID, with its dashes or without.
fn server(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    from_digits(&digits)?.try_into().ok()
}

/// Whether a text is a tag, in letters of either case.
fn is_tag(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_server(f, &self.issuer.server)?;
        if !self.issuer.tag.is_empty() {
            write!(f, ":{}", self.issuer.tag)?;
        }
        write!(f, ":{}", self.number)
    }
}

impl FromStr for Gtid {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let set: GtidSet = text.parse()?;
        let mut all = set.0.iter();
        match (all.next(), all.next()) {
            (Some((issuer, intervals)), None) if matches!(intervals[..], [(b, e)] if e == b + 1) => {
                Ok(Self { issuer: issuer.clone(), number: intervals[0].0 })
            }
            _ => Err(ParsePositionError(text.to_owned(), "GTID")),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&Issuer> = None;
        for (issuer, intervals) in &self.0 {
            // Tags of one server follow each other.
            if before.is_none_or(|before| before.server != issuer.server) {
                if before.is_some() {
                    f.write_str(",")?;
                }
                write_server(f, &issuer.server)?;
            }
            if !issuer.tag.is_empty() {
                write!(f, ":{}", issuer.tag)?;
            }
            for (begin, end) in intervals {
                match end - begin {
                    1 => write!(f, ":{begin}")?,
                    _ => write!(f, ":{begin}-{}", end - 1)?,
                }
            }
            before = Some(issuer);
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePositionError(text.to_owned(), "set of GTIDs");
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut words = part.split(':').map(str::trim);
            let server = words.next().and_then(server).ok_or_else(wrong)?;
            let mut issuer = Issuer { server, tag: String::new() };
            for word in words {
                if is_tag(word) {
                    issuer.tag = word.to_ascii_lowercase();
                    continue;
                }
                let (begin, end) = word.split_once('-').unwrap_or((word, word));
                let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| (1..END).contains(n));
                let (begin, end) = (number(begin).ok_or_else(wrong)?, number(end).ok_or_else(wrong)?);
                set.add(issuer.clone(), (begin, end + 1));
            }
        }
        Ok(set)
    }
}

impl Serialize for GtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Gtid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Gtid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn issuer() -> impl Strategy<Value = ([u8; 16], &'static str)> {
        (prop_oneof![Just([1u8; 16]), Just([0xab; 16])], prop_oneof![Just(""), Just("mysqlsh"), Just("a_1")])
    }

    fn gtids() -> impl Strategy<Value = Vec<Gtid>> {
        let gtid = (issuer(), 1u64..24).prop_map(|((server, tag), number)| Gtid::new(server, tag, number));
        proptest::collection::vec(gtid, 0..40)
    }

    fn set(gtids: &[Gtid]) -> GtidSet {
        let mut set = GtidSet::default();
        gtids.iter().for_each(|gtid| set.insert(gtid));
        set
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in gtids(), b in gtids()) {
            let (x, y) = (set(&a), set(&b));
            let (p, q): (BTreeSet<_>, BTreeSet<_>) = (a.iter().cloned().collect(), b.iter().cloned().collect());
            for gtid in a.iter().chain(&b) {
                prop_assert_eq!(x.contains(gtid), p.contains(gtid));
            }
            prop_assert_eq!(x.is_subset(&y), p.is_subset(&q));
            let difference: Vec<Gtid> = p.difference(&q).cloned().collect();
            prop_assert_eq!(x.without(&y), set(&difference));
            let mut union = x.clone();
            union.extend(&y);
            let all: Vec<Gtid> = p.union(&q).cloned().collect();
            prop_assert_eq!(&union, &set(&all));
            prop_assert_eq!(union.to_string().parse(), Ok(union.clone()));
            prop_assert!(x.is_subset(&union) && y.is_subset(&union));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:, -]{0,60}") {
            if let Ok(set) = text.parse::<GtidSet>() {
                prop_assert_eq!(set.to_string().parse(), Ok(set));
            }
        }
    }

    #[test]
    fn sets_are_read_as_servers_print_them() {
        let text = format!("{ONE}:1-5:7:mysqlsh:1-7,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:9");
        let set: GtidSet = text.parse().expect("a set");
        assert_eq!(set.to_string(), text.replace('\n', ""));
        assert!(set.contains(&format!("{ONE}:mysqlsh:7").parse().expect("a GTID")));
        assert!(!set.contains(&format!("{ONE}:6").parse().expect("a GTID")));
        assert_eq!("".parse::<GtidSet>(), Ok(GtidSet::default()));
        for text in ["x:1", &format!("{ONE}:0"), &format!("{ONE}:5-a"), ONE.trim_end_matches('2')] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_encoding_has_tags_only_where_there_are_some() {
        let plain: GtidSet = format!("{ONE}:1-5").parse().expect("a set");
        let bytes = plain.encode();
        assert_eq!((&bytes[..8], bytes.len()), (&[1, 0, 0, 0, 0, 0, 0, 0][..], 8 + 16 + 8 + 16));
        assert_eq!(bytes[24 + 8..], [1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]);
        let tagged: GtidSet = format!("{ONE}:1:x:2").parse().expect("a set");
        let bytes = tagged.encode();
        assert_eq!(bytes[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!((bytes[24], &bytes[24 + 1 + 24..][16..18]), (0, &[2, b'x'][..]));
    }
}
