//! JSON that others wrote: read as deep as a document store can take it, and read where it holds characters that are none.
//!
//! Three things stop an ordinary reader, and are no reason to give an answer up. Nesting beyond 128 levels: read up to
//! [`MAX_LEVELS`], with a stack that grows. Halves of surrogate pairs, which JavaScript's strings may hold and write
//! (`"\ud83d"`), and bytes that are no UTF-8: replaced by U+FFFD, as browsers decode text (WHATWG Encoding). Replacing is tried
//! only where reading failed, so that nothing else pays for it.

use serde::de::DeserializeOwned;

/// Levels of nesting that are read. The parsers of the search servers stop there too, so nothing deeper could be stored.
pub const MAX_LEVELS: usize = 1_000;

/// Why a text could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is nested too deep.
    #[error("it is nested deeper than {MAX_LEVELS} levels, and no document store takes more")]
    TooDeep,
    /// It is no JSON, or not of the expected shape.
    #[error("{0}")]
    Text(#[from] serde_json::Error),
}

/// Reads a text that should be well-formed, up to [`MAX_LEVELS`] deep.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T, ReadError> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    match levels(text) {
        // The plain reader's limit did not come into it.
        0..=100 => Err(error.into()),
        101..=MAX_LEVELS => {
            let mut deserializer = serde_json::Deserializer::from_slice(text);
            deserializer.disable_recursion_limit();
            let value = T::deserialize(serde_stacker::Deserializer::new(&mut deserializer))?;
            deserializer.end()?;
            Ok(value)
        }
        _ => Err(ReadError::TooDeep),
    }
}

/// Reads a text as browsers do: what is no character is replaced. The number says how many were.
pub fn read_lenient<T: DeserializeOwned>(text: &[u8]) -> Result<(T, usize), ReadError> {
    let error = match read(text) {
        Ok(value) => return Ok((value, 0)),
        Err(ReadError::TooDeep) => return Err(ReadError::TooDeep),
        Err(error) => error,
    };
    let (mended, replaced) = mend(text);
    match read(&mended) {
        Ok(value) => Ok((value, replaced)),
        Err(ReadError::TooDeep) => Err(ReadError::TooDeep),
        // The error of the text as it came says more.
        Err(_) => Err(error),
    }
}

/// The levels of nesting of a text.
fn levels(text: &[u8]) -> usize {
    let (mut deepest, mut open) = (0_usize, 0_usize);
    let mut bytes = text.iter();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if in_string => drop(bytes.next()),
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The text as UTF-8 without a byte order mark, every half of a surrogate pair and every sequence that is no UTF-8 replaced,
/// and how many were.
fn mend(text: &[u8]) -> (Vec<u8>, usize) {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut replaced = 0;
    let mut utf8 = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        utf8.extend_from_slice(chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            replaced += 1;
            utf8.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    let mut out = Vec::with_capacity(utf8.len());
    let mut rest = utf8.as_slice();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let taken = match (unit(escape), unit(escape.get(6..).unwrap_or_default())) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                replaced += 1;
                out.extend_from_slice(b"\\ufffd");
                rest = &escape[6..];
                continue;
            }
            // Any other escape begins with two bytes, the second of which may be another backslash.
            _ => 2.min(escape.len()),
        };
        out.extend_from_slice(&escape[..taken]);
        rest = &escape[taken..];
    }
    out.extend_from_slice(rest);
    (out, replaced)
}

/// The UTF-16 unit that an escape such as `\ud83d` at the start of a text stands for.
fn unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    /// A list in a list in a list.
    fn nested(levels: usize) -> Vec<u8> {
        [vec![b'['; levels], vec![b']'; levels]].concat()
    }

    fn depth(mut value: &Json) -> usize {
        let mut levels = 0;
        while let Json::Array(items) = value {
            levels += 1;
            let Some(inner) = items.first() else { break };
            value = inner;
        }
        levels
    }

    #[test]
    fn nesting_is_read_to_a_bound_and_beyond_it_refused_with_the_cause() {
        for levels in [1, 127, 128, 129, 900, MAX_LEVELS] {
            assert_eq!(depth(&read(&nested(levels)).unwrap()), levels);
        }
        for levels in [MAX_LEVELS + 1, 100_000, 10_000_000] {
            let error = read_lenient::<Json>(&nested(levels)).unwrap_err();
            assert!(error.to_string().contains("1000 levels"), "{error}");
            assert!(matches!(read::<Json>(&vec![b'['; levels]), Err(ReadError::TooDeep)));
        }
        // Brackets in strings nest nothing, also behind escaped quotes.
        let text = json!({ "title": format!("\\\"{}", "[".repeat(5_000)) });
        assert_eq!(read::<Json>(text.to_string().as_bytes()).unwrap(), text);
        assert!(matches!(read::<Json>(&[nested(500), nested(1)].concat()), Err(ReadError::Text(_))));
    }

    #[test]
    fn what_is_no_character_is_replaced_as_browsers_do() {
        for (text, expected, replaced) in [
            (&br#"["\ud83d"]"#[..], json!(["\u{fffd}"]), 1),
            (br#"["\uDE00 \ud83d\ude00"]"#, json!(["\u{fffd} \u{1f600}"]), 1),
            (br#"["\ud83d\ud83d\ude00"]"#, json!(["\u{fffd}\u{1f600}"]), 1),
            (br#"{"\ud83d": "\\ud83d\n\ud83dx"}"#, json!({ "\u{fffd}": "\\ud83d\n\u{fffd}x" }), 2),
            (b"[\"a\xffb\xe2\x82\"]", json!(["a\u{fffd}b\u{fffd}"]), 2),
            (b"\xef\xbb\xbf[1]", json!([1]), 0),
            (br#"["\ud83d\ude00"]"#, json!(["\u{1f600}"]), 0),
        ] {
            let read = read_lenient::<Json>(text).unwrap();
            assert_eq!(read, (expected, replaced), "{}", String::from_utf8_lossy(text));
        }
        let deep = [vec![b'['; 900], br#""\ud83d""#.to_vec(), vec![b']'; 900]].concat();
        assert_eq!(read_lenient::<Json>(&deep).unwrap().1, 1);
    }

    #[test]
    fn what_is_no_json_stays_none() {
        for text in
            [&b""[..], b"{\"a\": NaN}", b"<html>", b"[\"\\u12\"]", b"[\"\\", b"[\"\\ud83d", b"[\xff]", b"{\"a\":"]
        {
            assert!(read_lenient::<Json>(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        let error = read_lenient::<Json>(b"{\"a\": NaN}").unwrap_err();
        assert!(error.to_string().contains("column 7"), "{error}");
    }

    proptest! {
        #[test]
        fn text_of_any_units_is_read_as_their_lossy_decoding(units in prop::collection::vec(any::<u16>(), 0..40)) {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let (text, _) = read_lenient::<String>(format!("\"{escaped}\"").as_bytes()).unwrap();
            prop_assert_eq!(text, String::from_utf16_lossy(&units));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_lenient::<Json>(&bytes);
        }
    }
}
