//! Kafka's primitive types, and how the fields of a request and of an answer are written in its version.
//!
//! Source: the protocol guide, "Protocol Primitive Types".

use super::connection::Broken;
use super::version::Spoken;

/// Writes primitive types at the end of a buffer.
pub(super) trait Put {
    fn i8(&mut self, value: i8);
    fn i16(&mut self, value: i16);
    fn i32(&mut self, value: i32);
    fn i64(&mut self, value: i64);
    /// An unsigned variable-length integer.
    fn unsigned(&mut self, value: u64);
    /// `STRING`: at most 32,767 bytes.
    fn string(&mut self, value: &str);
    /// The length of an `ARRAY`.
    fn count(&mut self, value: usize);

    /// `VARINT` and `VARLONG`, in zigzag.
    fn signed(&mut self, value: i64) {
        self.unsigned(((value << 1) ^ (value >> 63)) as u64);
    }

    fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }
}

impl Put for Vec<u8> {
    fn i8(&mut self, value: i8) {
        self.push(value as u8);
    }

    fn i16(&mut self, value: i16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: i32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn string(&mut self, value: &str) {
        self.i16(i16::try_from(value.len()).unwrap_or(i16::MAX));
        self.extend_from_slice(&value.as_bytes()[..value.len().min(i16::MAX as usize)]);
    }

    fn count(&mut self, value: usize) {
        self.i32(i32::try_from(value).unwrap_or(i32::MAX));
    }
}

/// Writes the fields of a request as its version has them.
pub(super) struct Body<'a> {
    out: &'a mut Vec<u8>,
    pub version: i16,
    flexible: bool,
}

impl<'a> Body<'a> {
    pub fn new(out: &'a mut Vec<u8>, spoken: Spoken) -> Self {
        Self { out, version: spoken.version, flexible: spoken.flexible }
    }

    /// Makes room for so many bytes, and no more.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve_exact(bytes);
    }

    pub fn i8(&mut self, value: i8) {
        self.out.i8(value);
    }

    pub fn i16(&mut self, value: i16) {
        self.out.i16(value);
    }

    pub fn i32(&mut self, value: i32) {
        self.out.i32(value);
    }

    pub fn i64(&mut self, value: i64) {
        self.out.i64(value);
    }

    pub fn bool(&mut self, value: bool) {
        self.out.bool(value);
    }

    /// `STRING` or `COMPACT_STRING`.
    pub fn string(&mut self, value: &str) {
        if self.flexible {
            self.count(value.len());
            self.out.extend_from_slice(value.as_bytes());
        } else {
            self.out.string(value);
        }
    }

    /// `BYTES` or `COMPACT_BYTES`.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.out.extend_from_slice(value);
    }

    /// The length of an `ARRAY` or a `COMPACT_ARRAY`.
    pub fn count(&mut self, value: usize) {
        if self.flexible {
            // None is 0.
            self.out.unsigned(value as u64 + 1);
        } else {
            self.out.count(value);
        }
    }

    /// The end of a structure: no tagged fields, where there could be some.
    pub fn tags(&mut self) {
        if self.flexible {
            self.out.unsigned(0);
        }
    }
}

/// The bytes of an [`Put::unsigned`].
pub(super) fn unsigned_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// The bytes of a [`Put::signed`].
pub(super) fn signed_len(value: i64) -> usize {
    unsigned_len(((value << 1) ^ (value >> 63)) as u64)
}

/// An answer without its header, in the version of its request.
pub(super) struct Reply {
    bytes: Vec<u8>,
    spoken: Spoken,
    /// Where its fields begin.
    start: usize,
}

impl Reply {
    /// What came after the request's number.
    pub fn new(bytes: Vec<u8>, spoken: Spoken) -> Result<Self, Broken> {
        let mut header = Reader { rest: &bytes, version: spoken.version, flexible: spoken.answers_flexibly() };
        header.tags()?;
        let start = bytes.len() - header.rest.len();
        Ok(Self { bytes, spoken, start })
    }

    pub fn reader(&self) -> Reader<'_> {
        let Spoken { version, flexible, .. } = self.spoken;
        Reader { rest: &self.bytes[self.start..], version, flexible }
    }

    /// As if it were in the oldest version.
    pub fn oldest(&self) -> Reader<'_> {
        Reader { rest: &self.bytes[self.start..], version: 0, flexible: false }
    }
}

/// Reads the fields of an answer as its version has them.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    pub version: i16,
    flexible: bool,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(Broken::short)?;
        self.rest = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(Broken::short)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn i8(&mut self) -> Result<i8, Broken> {
        self.take().map(i8::from_be_bytes)
    }

    pub fn i16(&mut self) -> Result<i16, Broken> {
        self.take().map(i16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Result<i32, Broken> {
        self.take().map(i32::from_be_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Broken> {
        self.take().map(i64::from_be_bytes)
    }

    pub fn bool(&mut self) -> Result<bool, Broken> {
        self.take().map(|[byte]| byte != 0)
    }

    /// A `UUID`; all zeros where there is none.
    pub fn uuid(&mut self) -> Result<[u8; 16], Broken> {
        self.take()
    }

    fn unsigned(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken::short())
    }

    /// A length; of what is absent it is 0. `fixed` reads that of a version that is not flexible.
    fn length(&mut self, fixed: impl FnOnce(&mut Self) -> Result<i64, Broken>) -> Result<usize, Broken> {
        if self.flexible {
            let length = self.unsigned()?.saturating_sub(1);
            return usize::try_from(length).map_err(|_| Broken::short());
        }
        Ok(usize::try_from(fixed(self)?).unwrap_or(0))
    }

    /// A string that may be absent; none is empty.
    pub fn string(&mut self) -> Result<String, Broken> {
        let length = self.length(|r| r.i16().map(i64::from))?;
        Ok(String::from_utf8_lossy(self.slice(length)?).into_owned())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.length(|r| r.i32().map(i64::from))?;
        self.slice(length)
    }

    /// An array. What one element needs is read before room is made for the next.
    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T, Broken>) -> Result<Vec<T>, Broken> {
        let mut all = Vec::new();
        for _ in 0..self.length(|r| r.i32().map(i64::from))? {
            all.push(element(self)?);
        }
        Ok(all)
    }

    /// The end of a structure: its tagged fields, of which none is wanted.
    pub fn tags(&mut self) -> Result<(), Broken> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned()? {
            self.unsigned()?;
            let length = usize::try_from(self.unsigned()?).map_err(|_| Broken::short())?;
            self.slice(length)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::version::{PRODUCE, Spoken, Versions};
    use super::{Body, Put, Reader, Reply, signed_len, unsigned_len};

    fn reader(rest: &[u8], flexible: bool) -> Reader<'_> {
        Reader { rest, version: 0, flexible }
    }

    proptest! {
        #[test]
        fn integers_of_variable_length_have_the_length_told(value: i64, unsigned: u64) {
            let mut out = Vec::new();
            out.signed(value);
            prop_assert_eq!(out.len(), signed_len(value));
            out.clear();
            out.unsigned(unsigned);
            prop_assert_eq!(out.len(), unsigned_len(unsigned));
            prop_assert_eq!(reader(&out, true).unsigned().unwrap(), unsigned);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, flexible: bool) {
            let _ = reader(&bytes, flexible).tags();
            let _ = reader(&bytes, flexible).array(Reader::string);
            let _ = reader(&bytes, flexible).bytes();
        }

        #[test]
        fn what_is_written_in_a_version_is_read_in_it(text: String, bytes: Vec<u8>, number: i32, version in 7..=11_i16) {
            let spoken = Versions::told([(PRODUCE.key, (version, version))]).choose(PRODUCE).unwrap();
            let mut out = Vec::new();
            if spoken.answers_flexibly() {
                out.unsigned(0); // the header
            }
            let mut body = Body::new(&mut out, spoken);
            body.count(2);
            for _ in 0..2 {
                body.string(&text);
                body.bytes(&bytes);
                body.i32(number);
                body.tags();
            }
            let reply = Reply::new(out, spoken).unwrap();
            let mut reader = reply.reader();
            let read = reader.array(|r| {
                let element = (r.string()?, r.bytes()?.to_vec(), r.i32()?);
                r.tags()?;
                Ok(element)
            });
            let element = (text, bytes, number);
            prop_assert_eq!(read.unwrap(), [element.clone(), element]);
            prop_assert!(reader.rest.is_empty());
            let Spoken { flexible, .. } = spoken;
            prop_assert_eq!(flexible, version >= 9);
        }
    }

    #[test]
    fn signed_integers_are_in_zigzag() {
        for (value, bytes) in
            [(0, [0].as_slice()), (-1, &[1]), (1, &[2]), (63, &[126]), (64, &[0x80, 1]), (-65, &[0x81, 1])]
        {
            let mut out = Vec::new();
            out.signed(value);
            assert_eq!(out, bytes, "{value}");
        }
    }
}
