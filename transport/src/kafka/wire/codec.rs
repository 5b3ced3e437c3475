//! Kafka's primitive types.
//!
//! Source: the protocol guide, "Protocol Primitive Types".

use super::connection::Broken;

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
    /// `BYTES`.
    fn bytes(&mut self, value: &[u8]);
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

    fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.extend_from_slice(value);
    }

    fn count(&mut self, value: usize) {
        self.i32(i32::try_from(value).unwrap_or(i32::MAX));
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

/// Reads primitive types from an answer.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// What was not read yet.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

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

    /// `STRING` or `NULLABLE_STRING`; none is empty.
    pub fn string(&mut self) -> Result<String, Broken> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.slice(length)?).into_owned())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.slice(length)
    }

    /// An `ARRAY`. What one element needs is read before room is made for the next.
    pub fn array<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T, Broken>) -> Result<Vec<T>, Broken> {
        let mut all = Vec::new();
        for _ in 0..self.i32()? {
            all.push(element(self)?);
        }
        Ok(all)
    }

    /// The tagged fields of a flexible version, of which none is wanted.
    pub fn tags(&mut self) -> Result<(), Broken> {
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

    use super::{Put, Reader, signed_len, unsigned_len};

    proptest! {
        #[test]
        fn integers_of_variable_length_have_the_length_told(value: i64, unsigned: u64) {
            let mut out = Vec::new();
            out.signed(value);
            prop_assert_eq!(out.len(), signed_len(value));
            out.clear();
            out.unsigned(unsigned);
            prop_assert_eq!(out.len(), unsigned_len(unsigned));
            prop_assert_eq!(Reader::new(&out).unsigned().unwrap(), unsigned);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Reader::new(&bytes).tags();
            let _ = Reader::new(&bytes).array(Reader::string);
            let _ = Reader::new(&bytes).bytes();
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
