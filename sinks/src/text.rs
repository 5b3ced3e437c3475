//! Texts for places that do not take every character.

use std::fmt::Write as _;

/// A text whose bytes that are not plain are written as a mark and two hexadecimal digits.
pub(crate) fn escape(text: &str, mark: char, plain: impl Fn(u8) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(escaped, "{mark}{byte:02X}");
        }
    }
    escaped
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
