//! The headers of a record: names and values beside its key and its value.
//!
//! ```text
//! per header   name length varint │ name │ value length varint │ value
//! ```
//!
//! They lie one behind the other in this form wherever they are kept, so that a record's headers are one stretch of bytes, which
//! a reader shares with its record, and nothing at all where there are none.

pub mod cloud_event;

use bytes::{BufMut, Bytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::cloud_event::CloudEvent;
use crate::dead_letter::payload;

/// The headers of a record that was read, in order. Names may repeat. A value that Kafka has as null is an empty one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Bytes);

impl Headers {
    /// No headers.
    pub const NONE: Self = Self(Bytes::new());

    /// Headers of these names and values.
    pub fn of<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>) -> Self {
        let mut bytes = Vec::new();
        headers.into_iter().for_each(|(name, value)| put(&mut bytes, name, value));
        Self(bytes.into())
    }

    /// Bytes that were written by [`put`].
    pub(crate) fn written(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// A view of them.
    pub fn view(&self) -> HeadersRef<'_> {
        HeadersRef(&self.0)
    }
}

/// The headers of a record, borrowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadersRef<'a>(&'a [u8]);

impl<'a> HeadersRef<'a> {
    /// No headers.
    pub const NONE: Self = Self(&[]);

    /// Bytes that were written by [`put`].
    pub(crate) fn written(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that they take up.
    pub fn size(self) -> usize {
        self.0.len()
    }

    /// Their names and values, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = std::str::from_utf8(part(&mut rest)?).ok()?;
            Some((name, part(&mut rest)?))
        })
    }

    /// The value of the last header of this name.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().filter(|(found, _)| *found == name).last().map(|(_, value)| value)
    }

    pub(crate) fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// Appends a header.
pub(crate) fn put(out: &mut impl BufMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        let mut length = part.len();
        while length >= 0x80 {
            out.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        out.put_u8(length as u8);
        out.put_slice(part);
    }
}

/// Bytes that [`put`] appends for a name and a value of these lengths, at most.
pub(crate) fn room(name: usize, value: usize) -> usize {
    name + value + 20
}

/// Takes the next length and so many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (part, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            return Some(part);
        }
    }
    None
}

/// A header in JSON.
#[derive(Serialize, Deserialize)]
struct Told {
    name: String,
    #[serde(with = "payload")]
    value: Option<Vec<u8>>,
}

impl Serialize for Headers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = |(name, value): (&str, &[u8])| Told { name: name.to_owned(), value: Some(value.to_vec()) };
        serializer.collect_seq(self.view().iter().map(told))
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let told = Vec::<Told>::deserialize(deserializer)?;
        Ok(Self::of(told.iter().map(|told| (told.name.as_str(), told.value.as_deref().unwrap_or_default()))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_are_read_as_they_were_written(headers in proptest::collection::vec((".*", any::<Vec<u8>>()), 0..6)) {
            let written = Headers::of(headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            let read: Vec<_> = written.view().iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&read, &headers);
            prop_assert_eq!(written.view().is_empty(), headers.is_empty());
            let json = serde_json::to_string(&written).unwrap();
            prop_assert_eq!(serde_json::from_str::<Headers>(&json).unwrap(), written);
        }

        #[test]
        fn bytes_that_are_no_headers_end_the_list(bytes: Vec<u8>) {
            HeadersRef::written(&bytes).iter().count();
        }
    }

    #[test]
    fn of_a_name_that_repeats_the_last_one_counts() {
        let long = vec![7; 300];
        let headers = Headers::of([("a", &b"1"[..]), ("b", b""), ("a", &long)]);
        assert_eq!(headers.view().get("a"), Some(&long[..]));
        assert_eq!(headers.view().get("b"), Some(&b""[..]));
        assert_eq!(headers.view().get("c"), None);
    }
}
