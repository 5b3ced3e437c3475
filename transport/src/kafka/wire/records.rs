//! Record batches, and which partition a record belongs to.
//!
//! Sources: the documentation of Apache Kafka, "Message Format" (record batch, magic 2); the default partitioner's murmur2.

use std::io::Write as _;

use super::codec::{Put, signed_len};
use super::request::ProducerId;
use crate::contract::RecordRef;
use crate::kafka::Compression;

/// Bytes before the records of a batch.
const HEADER: usize = 61;
/// From where a batch's length counts.
const AFTER_LENGTH: usize = 12;
/// From where its checksum counts.
const AFTER_CHECKSUM: usize = 21;
const TRANSACTIONAL: i16 = 0x10;
/// A larger record gets exactly as much memory as it needs.
const LARGE: usize = 2 << 20;

/// The partition, of `count`, of records with this key; every client of Kafka computes the same.
pub(in crate::kafka) fn partition_of(key: &[u8], count: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % count
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Records gathered for one partition, as they stand in a batch.
pub(in crate::kafka) struct Partition {
    records: Vec<u8>,
    count: i32,
    first_ms: i64,
    last_ms: i64,
    /// The number of the first gathered record, within the producer's epoch.
    sequence: i32,
}

impl Partition {
    /// The next record has this number.
    pub fn new(sequence: i32) -> Self {
        Self { records: Vec::new(), count: 0, first_ms: 0, last_ms: 0, sequence }
    }

    /// Bytes gathered.
    pub fn size(&self) -> usize {
        self.records.len()
    }

    /// The number of the next record.
    pub fn next_sequence(&self) -> i32 {
        // After the largest number comes 0.
        self.sequence.wrapping_add(self.count) & i32::MAX
    }

    pub fn push(&mut self, record: &RecordRef<'_>) {
        if self.count == 0 {
            (self.first_ms, self.last_ms) = (record.timestamp_ms, record.timestamp_ms);
        }
        self.last_ms = self.last_ms.max(record.timestamp_ms);
        let (age, number) = (record.timestamp_ms.wrapping_sub(self.first_ms), i64::from(self.count));
        let fields = [record.key, record.value];
        let fields = fields.map(|bytes| (bytes.map_or(-1, |bytes| bytes.len() as i64), bytes.unwrap_or_default()));
        let bytes: usize = fields.iter().map(|(length, bytes)| signed_len(*length) + bytes.len()).sum();
        let (mut headers, mut count) = (0, 0);
        for (name, value) in record.headers.iter() {
            headers += [name.len(), value.len()].map(|length| signed_len(length as i64) + length).iter().sum::<usize>();
            count += 1;
        }
        let bytes = bytes + headers;
        let out = &mut self.records;
        if bytes > LARGE {
            out.reserve_exact(bytes + 32);
        }
        out.signed((1 + signed_len(age) + signed_len(number) + bytes + signed_len(count)) as i64);
        out.i8(0); // attributes
        out.signed(age);
        out.signed(number);
        for (length, bytes) in fields {
            out.signed(length);
            out.extend_from_slice(bytes);
        }
        out.signed(count);
        for (name, value) in record.headers.iter() {
            for part in [name.as_bytes(), value] {
                out.signed(part.len() as i64);
                out.extend_from_slice(part);
            }
        }
        self.count += 1;
    }

    /// The gathered records as one batch; none are gathered after it.
    pub fn finish(&mut self, producer: ProducerId, compression: Compression) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(HEADER + self.records.len() / 2);
        out.i64(0); // base offset
        out.i32(0); // length
        out.i32(-1); // the leader's epoch
        out.i8(2); // magic
        out.i32(0); // checksum
        let codec = match compression {
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        };
        out.i16(codec | TRANSACTIONAL);
        out.i32(self.count - 1);
        out.i64(self.first_ms);
        out.i64(self.last_ms);
        out.i64(producer.id);
        out.i16(producer.epoch);
        out.i32(self.sequence);
        out.i32(self.count);
        let mut out = compress(compression, &self.records, out)?;
        let length = i32::try_from(out.len() - AFTER_LENGTH).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        out[8..AFTER_LENGTH].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32c::crc32c(&out[AFTER_CHECKSUM..]);
        out[17..AFTER_CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
        self.sequence = self.next_sequence();
        self.count = 0;
        self.records.clear();
        self.records.shrink_to(LARGE);
        Ok(out)
    }
}

/// Appends the compressed records to `out`.
fn compress(compression: Compression, records: &[u8], out: Vec<u8>) -> std::io::Result<Vec<u8>> {
    match compression {
        Compression::Lz4 => {
            let block = lz4_flex::frame::BlockSize::Max64KB;
            let frame = lz4_flex::frame::FrameInfo::new().block_size(block);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(frame, out);
            encoder.write_all(records)?;
            Ok(encoder.finish()?)
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, 1)?;
            encoder.write_all(records)?;
            encoder.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Partition, murmur2, partition_of};
    use crate::contract::RecordRef;
    use crate::headers::HeadersRef;
    use crate::kafka::Compression;
    use crate::kafka::wire::ProducerId;

    /// Values of Kafka's own tests.
    #[test]
    fn keys_hash_as_in_kafka() {
        let known: [(&[u8], i32); 7] = [
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"abc", 479470107),
            (b"", 275646681),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_of(b"foobar", 10), 1_357_151_166 % 10);
    }

    #[test]
    fn the_numbers_of_records_go_on_over_batches_and_around() {
        let topic = "t".into();
        let headers = HeadersRef::NONE;
        let record = RecordRef { topic: &topic, key: Some(b"k"), value: None, headers, timestamp_ms: 5 };
        let mut partition = Partition::new(i32::MAX - 1);
        for (count, next) in [(1, i32::MAX), (2, 1)] {
            (0..count).for_each(|_| partition.push(&record));
            assert_eq!(partition.next_sequence(), next);
            let batch = partition.finish(ProducerId { id: 1, epoch: 0 }, Compression::Zstd).unwrap();
            assert_eq!(batch.len(), 12 + i32::from_be_bytes(batch[8..12].try_into().unwrap()) as usize);
            assert_eq!(partition.next_sequence(), next);
        }
    }
}
