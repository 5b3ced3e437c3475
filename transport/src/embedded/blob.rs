//! The unit of storage of the embedded log: many records of one partition in one value, compressed, with a checksum.
//!
//! ```text
//! version u8 │ codec u8 │ 0 u16 │ records u32 │ raw length u32 │ last offset - base u32 │ written at (ms) i64 │ xxh3 u64 │ payload
//! payload, raw: per record  offset - base u32 │ timestamp (ms) i64 │ key length i32 │ value length i32 │ key │ value
//!                           and where the highest bit of its first number is set: headers' length u32 │ headers
//! ```
//!
//! Numbers are little-endian; a length of -1 means that there is no key or no value. The checksum covers everything
//! else. A blob without any headers has version 1, whose readers know none, any other has version 2. The base offset is the database key, so a blob can be encoded before its offset is known.

use std::ops::Range;

use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::contract::{Polled, RecordRef, TopicPartition};
use crate::headers::Headers;

/// About how large a blob's raw payload becomes.
const BLOB_BYTES: usize = 256 * 1024;
/// The store gives a value that is larger than its pages of so many bytes one page of a power of two times as many, so a
/// blob that is a little larger than one takes up, and has written, twice its size.
const PAGE_BYTES: usize = 4096;
/// What the store adds to a value on its page, and more.
const PAGE_OVERHEAD: usize = 256;

/// Memory that a builder keeps from blob to blob.
const KEPT: usize = 4 * BLOB_BYTES;

const HEADER: usize = 32;
const CHECKSUM_AT: usize = 24;
/// Without headers, and with.
const VERSIONS: [u8; 2] = [1, 2];
/// Says, in a record's delta, that it has headers. No blob has so many records.
const WITH_HEADERS: u32 = 1 << 31;
const RECORD_HEADER: usize = 20;
const HEADERS_LENGTH: usize = 4;

/// What a blob's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub records: u32,
    pub raw_length: u32,
    pub last_delta: u32,
    pub written_ms: i64,
    compressed: bool,
}

/// A blob ready to be stored.
#[derive(Debug)]
pub(super) struct Blob {
    pub bytes: Vec<u8>,
    pub last_delta: u32,
}

/// Collects records of one partition.
#[derive(Debug)]
pub(super) struct BlobBuilder {
    raw: Vec<u8>,
    /// How large `raw` may become, so that the blob fills its page if it compresses as the last one did.
    most: usize,
    /// Where payloads are compressed, kept from blob to blob.
    scratch: Vec<u8>,
    records: u32,
    last_delta: u32,
    /// A record has headers.
    headers: bool,
}

impl Default for BlobBuilder {
    fn default() -> Self {
        let most = BLOB_BYTES - HEADER - PAGE_OVERHEAD;
        Self { raw: Vec::new(), most, scratch: Vec::new(), records: 0, last_delta: 0, headers: false }
    }
}

impl BlobBuilder {
    /// Adds a record at `delta` from the base offset; deltas must rise.
    pub fn push(&mut self, delta: u32, record: &RecordRef<'_>) {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1_i32, |b| b.len() as i32);
        let bytes = record.size();
        if bytes > BLOB_BYTES {
            // It is alone in its blob: exactly as much memory as it needs.
            self.raw.reserve_exact(RECORD_HEADER + bytes + HEADERS_LENGTH);
        }
        let headers = record.headers.bytes();
        let flag = if headers.is_empty() { 0 } else { WITH_HEADERS };
        self.raw.extend_from_slice(&(delta | flag).to_le_bytes());
        self.raw.extend_from_slice(&record.timestamp_ms.to_le_bytes());
        self.raw.extend_from_slice(&length(record.key).to_le_bytes());
        self.raw.extend_from_slice(&length(record.value).to_le_bytes());
        self.raw.extend_from_slice(record.key.unwrap_or_default());
        self.raw.extend_from_slice(record.value.unwrap_or_default());
        if !headers.is_empty() {
            self.raw.extend_from_slice(&(headers.len() as u32).to_le_bytes());
            self.raw.extend_from_slice(headers);
            self.headers = true;
        }
        self.records += 1;
        self.last_delta = delta;
    }

    /// Adds a record at the next delta.
    pub fn append(&mut self, record: &RecordRef<'_>) {
        let delta = if self.records == 0 { 0 } else { self.last_delta + 1 };
        self.push(delta, record);
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether the record is better kept in the next blob.
    pub fn is_too_full_for(&self, record: &RecordRef<'_>) -> bool {
        self.records > 0 && self.raw.len() + RECORD_HEADER + record.size() + HEADERS_LENGTH > self.most
    }

    /// Finishes the blob and starts a new one in the same memory. `last_delta` may lie beyond the last record, when
    /// the records behind it were compacted away.
    pub fn seal(&mut self, written_ms: i64, last_delta: Option<u32>, compress: bool) -> Blob {
        let last_delta = last_delta.unwrap_or(self.last_delta);
        let mut payload = &self.raw[..];
        if compress {
            let most = lz4_flex::block::get_maximum_output_size(self.raw.len());
            if self.scratch.len() < most {
                self.scratch.resize(most, 0);
            }
            if let Ok(length) = lz4_flex::block::compress_into(&self.raw, &mut self.scratch)
                && length < self.raw.len()
            {
                payload = &self.scratch[..length];
            }
        }
        let compressed = payload.len() < self.raw.len();
        if self.raw.len() >= BLOB_BYTES / 2 {
            self.most = room(self.raw.len(), payload.len());
        }
        let mut bytes = Vec::with_capacity(HEADER + payload.len());
        bytes.resize(HEADER, 0);
        bytes.extend_from_slice(payload);
        bytes[0] = VERSIONS[usize::from(self.headers)];
        bytes[1] = u8::from(compressed);
        bytes[4..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.raw.len() as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&last_delta.to_le_bytes());
        bytes[16..24].copy_from_slice(&written_ms.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[CHECKSUM_AT..HEADER].copy_from_slice(&checksum.to_le_bytes());
        self.raw.clear();
        // A record that was far larger than a blob is keeps no memory behind.
        self.raw.shrink_to(KEPT);
        if self.scratch.len() > KEPT {
            self.scratch = Vec::new();
        }
        self.records = 0;
        self.last_delta = 0;
        self.headers = false;
        Blob { bytes, last_delta }
    }
}

/// How many raw bytes fill a page, if so many took up so few; from 0.7 to 1.4 times [`BLOB_BYTES`].
fn room(raw: usize, stored: usize) -> usize {
    let expected = (BLOB_BYTES * stored / raw.max(1)).max(PAGE_BYTES);
    let above = expected.next_power_of_two();
    // The one that is nearer by its factor.
    let page = if above * above > 2 * expected * expected { above / 2 } else { above };
    let payload = page - HEADER - PAGE_OVERHEAD;
    if stored == raw {
        return payload;
    }
    // Some 2 % stay free, for the next records compress otherwise.
    (payload * 50 / 51 * raw / stored.max(1)).min(BLOB_BYTES * 7 / 5)
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&bytes[..CHECKSUM_AT]);
    hash.update(&bytes[HEADER..]);
    hash.digest()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Reads a blob's header, without checking the checksum.
pub(super) fn header(bytes: &[u8]) -> Result<Header, &'static str> {
    if bytes.len() < HEADER {
        return Err("it is too short");
    }
    if !VERSIONS.contains(&bytes[0]) {
        return Err("its format is of a later version");
    }
    let field = |at| u32_at(bytes, at).ok_or("it is too short");
    Ok(Header {
        records: field(4)?,
        raw_length: field(8)?,
        last_delta: field(12)?,
        written_ms: i64_at(bytes, 16).ok_or("it is too short")?,
        compressed: bytes[1] == 1,
    })
}

/// What a blob holds, checked and decompressed.
fn raw(bytes: &[u8]) -> Result<(Header, Bytes), &'static str> {
    let header = header(bytes)?;
    if i64_at(bytes, CHECKSUM_AT).map(|n| n as u64) != Some(checksum(bytes)) {
        return Err("its checksum does not match");
    }
    let payload = &bytes[HEADER..];
    let raw = if header.compressed {
        lz4_flex::block::decompress(payload, header.raw_length as usize).map_err(|_| "it does not decompress")?
    } else {
        payload.to_vec()
    };
    Ok((header, raw.into()))
}

/// Where a record of a blob and its parts lie.
struct Laid {
    delta: u32,
    timestamp_ms: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

/// The record that begins at `at`, which is moved behind it.
fn laid(raw: &[u8], at: &mut usize) -> Result<Laid, &'static str> {
    const SHORT: &str = "a record is cut short";
    let delta = u32_at(raw, *at).ok_or(SHORT)?;
    let timestamp_ms = i64_at(raw, *at + 4).ok_or(SHORT)?;
    let key_length = u32_at(raw, *at + 12).ok_or(SHORT)? as i32;
    let value_length = u32_at(raw, *at + 16).ok_or(SHORT)? as i32;
    *at += RECORD_HEADER;
    let mut part = |length: usize| {
        if raw.len() - *at < length {
            return Err(SHORT);
        }
        *at += length;
        Ok(*at - length..*at)
    };
    let key = usize::try_from(key_length).ok().map(&mut part).transpose()?;
    let value = usize::try_from(value_length).ok().map(&mut part).transpose()?;
    let mut headers = 0..0;
    if delta & WITH_HEADERS != 0 {
        let length = part(HEADERS_LENGTH)?;
        headers = part(u32_at(raw, length.start).ok_or(SHORT)? as usize)?;
    }
    Ok(Laid { delta: delta & !WITH_HEADERS, timestamp_ms, key, value, headers })
}

/// Checks a blob and appends its records from offset `from` on. The records share the blob's memory.
pub(super) fn decode(
    bytes: &[u8],
    place: &TopicPartition,
    base: u64,
    from: u64,
    out: &mut Vec<Polled>,
) -> Result<Header, &'static str> {
    let (header, raw) = raw(bytes)?;
    let mut at = 0;
    for _ in 0..header.records {
        let Laid { delta, timestamp_ms, key, value, headers } = laid(&raw, &mut at)?;
        let offset = base + u64::from(delta);
        if offset >= from {
            let (key, value) = (key.map(|key| raw.slice(key)), value.map(|value| raw.slice(value)));
            let headers = if headers.is_empty() { Headers::NONE } else { Headers::written(raw.slice(headers)) };
            out.push(Polled { place: place.clone(), offset, key, value, headers, timestamp_ms });
        }
    }
    Ok(header)
}

/// Checks a blob and looks for the first of its records that is of this time or later: its distance from the base offset.
pub(super) fn first_at(bytes: &[u8], time_ms: i64) -> Result<Option<u32>, &'static str> {
    let (header, raw) = raw(bytes)?;
    let mut at = 0;
    for _ in 0..header.records {
        let Laid { delta, timestamp_ms, .. } = laid(&raw, &mut at)?;
        if timestamp_ms >= time_ms {
            return Ok(Some(delta));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::headers::HeadersRef;

    /// Key, value, the lengths of names and values of its headers, time.
    type Record = (Option<Vec<u8>>, Option<Vec<u8>>, [Option<(u8, u8)>; 2], i64);

    fn headers(record: &Record) -> Headers {
        let parts = record
            .2
            .iter()
            .flatten()
            .map(|(name, value)| ("n".repeat(usize::from(*name)), vec![7; usize::from(*value)]));
        let parts: Vec<(String, Vec<u8>)> = parts.collect();
        Headers::of(parts.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }

    fn blob(records: &[Record], compress: bool) -> Blob {
        let topic: Arc<str> = "t".into();
        let mut builder = BlobBuilder::default();
        for record in records {
            let (key, value, _, timestamp_ms) = record;
            builder.append(&RecordRef {
                topic: &topic,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: headers(record).view(),
                timestamp_ms: *timestamp_ms,
            });
        }
        builder.seal(7, None, compress)
    }

    fn place() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    proptest! {
        #[test]
        fn a_blob_gives_back_its_records(records: Vec<Record>, compress: bool, from in 0_u64..20) {
            let blob = blob(&records, compress);
            let mut read = Vec::new();
            decode(&blob.bytes, &place(), 5, from, &mut read).unwrap();
            let expected: Vec<_> = records.iter().enumerate()
                .map(|(i, r)| (5 + i as u64, (r.0.clone(), r.1.clone(), headers(r), r.3)))
                .filter(|(offset, _)| *offset >= from).collect();
            let read: Vec<_> = read.into_iter()
                .map(|r| (r.offset, (r.key.map(|k| k.to_vec()), r.value.map(|v| v.to_vec()), r.headers, r.timestamp_ms))).collect();
            prop_assert_eq!(read, expected);
            // What has no headers is read by those who know none.
            let plain = records.iter().all(|record| record.2 == [None; 2]);
            prop_assert_eq!(blob.bytes[0], if plain { 1 } else { 2 });
        }

        #[test]
        fn a_changed_byte_is_found(records in proptest::collection::vec(any::<Record>(), 1..5), at: prop::sample::Index, xor in 1_u8..) {
            let mut blob = blob(&records, true);
            let at = at.index(blob.bytes.len());
            blob.bytes[at] ^= xor;
            prop_assert!(decode(&blob.bytes, &place(), 0, 0, &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_blob_from_before_there_were_headers_is_read() {
        let mut blob = vec![1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0];
        blob.extend_from_slice(&7_i64.to_le_bytes());
        blob.extend_from_slice(&[0; 8]);
        for field in [&3_u32.to_le_bytes()[..], &9_i64.to_le_bytes(), &2_i32.to_le_bytes(), &3_i32.to_le_bytes()] {
            blob.extend_from_slice(field);
        }
        blob.extend_from_slice(b"keyed");
        let checksum = checksum(&blob);
        blob[CHECKSUM_AT..HEADER].copy_from_slice(&checksum.to_le_bytes());
        let mut read = Vec::new();
        decode(&blob, &place(), 5, 0, &mut read).unwrap();
        let (key, value) = (Some(Bytes::from_static(b"ke")), Some(Bytes::from_static(b"yed")));
        let headers = Headers::NONE;
        assert_eq!(read, [Polled { place: place(), offset: 8, key, value, headers, timestamp_ms: 9 }]);
    }

    #[test]
    fn pages_are_filled_whatever_compresses() {
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let topic: Arc<str> = "t".into();
        for alike in 0..8 {
            let (mut builder, mut blobs) = (BlobBuilder::default(), Vec::new());
            for i in 0..800 {
                // So many of eight bytes are alike.
                let value: Vec<u8> =
                    (0..100 + i * 37 % 3_900).map(|i| if i % 8 < alike { b'x' } else { noise() }).collect();
                let headers = HeadersRef::NONE;
                let record = RecordRef { topic: &topic, key: None, value: Some(&value), headers, timestamp_ms: 0 };
                if builder.is_too_full_for(&record) {
                    blobs.push(builder.seal(7, None, true).bytes.len());
                }
                builder.append(&record);
            }
            // The first tells how the others compress.
            let stored: usize = blobs.iter().skip(1).sum();
            let taken: usize = blobs.iter().skip(1).map(|b| (b + PAGE_OVERHEAD / 2).next_power_of_two()).sum();
            assert!(blobs.len() > 2 && taken * 8 <= stored * 9, "{alike}: {stored} bytes on {taken}, {blobs:?}");
        }
    }
}
