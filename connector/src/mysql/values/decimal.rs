//! Exact decimals: groups of nine digits in four bytes each, the ends in fewer.
//!
//! Reference: MySQL Source Code Documentation, `strings/decimal.cc` (`decimal2bin`).

use super::super::cursor::{Cursor, Malformed};

/// Bytes of so many digits below nine.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
/// The most digits that there can be.
const MOST: usize = 65;

/// Bytes of a decimal of so many digits, of which so many stand behind the point.
pub(in super::super) fn size(precision: usize, scale: usize) -> Option<usize> {
    let whole = precision.checked_sub(scale)?;
    let bytes = |digits: usize| digits / 9 * 4 + BYTES[digits % 9];
    (precision <= MOST && precision > 0).then(|| bytes(whole) + bytes(scale))
}

/// The digits, as the server prints them.
pub(in super::super) fn text(raw: &[u8], precision: usize, scale: usize) -> Result<String, Malformed> {
    const WRONG: Malformed = Malformed("its bytes are no decimal");
    if size(precision, scale) != Some(raw.len()) {
        return Err(WRONG);
    }
    let negative = raw.first().is_some_and(|first| first & 0x80 == 0);
    let mut bytes = [0; 40];
    let bytes = bytes.get_mut(..raw.len()).ok_or(WRONG)?;
    for (to, from) in bytes.iter_mut().zip(raw) {
        *to = if negative { !from } else { *from };
    }
    bytes[0] ^= 0x80;
    let mut cursor = Cursor(bytes);
    let whole = precision - scale;
    let mut out = String::with_capacity(precision + 3);
    let mut groups = |out: &mut String, lengths: &mut dyn Iterator<Item = usize>| -> Result<(), Malformed> {
        for digits in lengths.filter(|digits| *digits > 0) {
            let number = cursor.uint_be(BYTES[digits])?;
            if number >= 10u64.pow(digits as u32) {
                return Err(WRONG);
            }
            out.push_str(&format!("{number:0digits$}"));
        }
        Ok(())
    };
    groups(&mut out, &mut std::iter::once(whole % 9).chain(std::iter::repeat_n(9, whole / 9)))?;
    let zeros = out.len() - out.trim_start_matches('0').len();
    out.drain(..zeros);
    if out.is_empty() {
        out.push('0');
    }
    if scale > 0 {
        out.push('.');
        groups(&mut out, &mut std::iter::repeat_n(9, scale / 9).chain(std::iter::once(scale % 9)))?;
    }
    let is_zero = out.bytes().all(|byte| byte == b'0' || byte == b'.');
    if negative && !is_zero {
        out.insert(0, '-');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The reverse, for tests.
    fn bytes(text: &str, precision: usize, scale: usize) -> Vec<u8> {
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let digits = format!("{whole:0>width$}{fraction:0<scale$}", width = precision - scale);
        let mut lengths = vec![(precision - scale) % 9];
        lengths.extend(std::iter::repeat_n(9, (precision - scale) / 9));
        lengths.extend(std::iter::repeat_n(9, scale / 9));
        lengths.push(scale % 9);
        let (mut out, mut at) = (Vec::new(), 0);
        for length in lengths {
            let number: u64 = digits[at..at + length].parse().unwrap_or(0);
            out.extend_from_slice(&number.to_be_bytes()[8 - BYTES[length]..]);
            at += length;
        }
        out[0] ^= 0x80;
        if negative { out.iter().map(|byte| !byte).collect() } else { out }
    }

    proptest! {
        #[test]
        fn digits_are_those_that_were_written(scale in 0usize..30, more in 1usize..35, negative: bool, seed in "[0-9]{65}") {
            let precision = scale + more;
            let whole = seed[..more].trim_start_matches('0');
            let mut text = if whole.is_empty() { "0".to_owned() } else { whole.to_owned() };
            if scale > 0 {
                text = format!("{text}.{}", &seed[more..precision]);
            }
            if negative && text.bytes().any(|b| b.is_ascii_digit() && b != b'0') {
                text.insert(0, '-');
            }
            prop_assert_eq!(super::text(&bytes(&text, precision, scale), precision, scale), Ok(text));
        }

        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..40), precision in 0usize..80, scale in 0usize..80) {
            let _ = super::text(&raw, precision, scale);
        }
    }
}
