//! Scalars as JSON: texts, bytes, numbers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) fn float(out: &mut Vec<u8>, value: f64, finite: impl FnOnce(&mut Vec<u8>)) {
    if value.is_finite() {
        finite(out);
    } else if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else {
        out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    }
}

pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    if let Ok(n) = STANDARD.encode_slice(bytes, &mut out[start..]) {
        out.truncate(start + n);
    }
    out.push(b'"');
}

pub(super) fn integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a JSON string (RFC 8259, section 7). The bytes must be UTF-8.
pub fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(plain_prefix(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        rest = after;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            }
        }
    }
    out.push(b'"');
}

/// Number of bytes before the first that must be escaped. Looks at eight at a time.
fn plain_prefix(text: &[u8]) -> usize {
    let (words, _) = text.as_chunks::<8>();
    let plain = words.iter().take_while(|w| !has_special(u64::from_le_bytes(**w))).count() * 8;
    let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
    text[plain..].iter().position(special).map_or(text.len(), |n| plain + n)
}

/// Whether one of eight bytes is a control character, a quote or a backslash (Warren, "Hacker's Delight", section 6-1:
/// a byte of `x` is zero if and only if the lowest marked one of `(x - 0x01…) & !x & 0x80…` is).
fn has_special(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero = |x: u64| x.wrapping_sub(ONES) & !x;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c))) & HIGH != 0
}
