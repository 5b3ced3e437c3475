//! Character sets, by the names that servers give them.
//!
//! Reference: MySQL Reference Manual, "Supported Character Sets and Collations"; WHATWG Encoding Standard for the tables.

use bytes::Bytes;
use bytestring::ByteString;
use encoding_rs::{self as enc, Encoding};

use super::codepages::{self, Codepage};
use super::exceptions;

/// How texts of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Charset {
    /// They are no texts.
    Binary,
    Utf8,
    /// Bytes above 0x7f, which old tables have, are no characters, also where they would be some of UTF-8.
    Ascii,
    /// Of the tables of the web.
    Table(&'static Encoding),
    /// The same but for some characters.
    Except(&'static Encoding, Width, &'static [(u32, char)]),
    /// Of the tables of the web, where bytes 0x80 to 0x9f are control characters.
    WithControls(&'static Encoding),
    /// Of our own tables.
    Codepage(&'static Codepage),
    Utf16 {
        little: bool,
    },
    Utf32,
}

/// How many bytes a character has, by the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Width {
    One,
    /// Two from 0x81 on, but for the letters of half a width of Shift JIS.
    Two {
        half: bool,
    },
    /// Those of EUC-JP: two from 0xa1 on and after 0x8e, three after 0x8f. Ten rows of each are the users' own.
    Euc,
}

impl Width {
    fn of(self, first: u8) -> usize {
        match (self, first) {
            (Self::One, _) | (_, ..=0x80) => 1,
            (Self::Two { half: true }, 0xa0..=0xdf) => 1,
            (Self::Euc, 0x8f) => 3,
            (Self::Two { .. }, _) | (Self::Euc, 0x8e | 0xa1..) => 2,
            (Self::Euc, _) => 1,
        }
    }

    /// A character that users define.
    fn private(self, bytes: &[u8]) -> Option<char> {
        let (begin, row, at) = match (self, bytes) {
            (Self::Euc, [row @ 0xf5..=0xfe, at @ 0xa1..=0xfe]) => (0xe000, row, at),
            (Self::Euc, [0x8f, row @ 0xf5..=0xfe, at @ 0xa1..=0xfe]) => (0xe3ac, row, at),
            _ => return None,
        };
        char::from_u32(begin + u32::from(row - 0xf5) * 94 + u32::from(at - 0xa1))
    }
}

impl Charset {
    /// That of a name; none: it is not known here.
    pub(in super::super) fn named(name: &str) -> Option<Self> {
        use Charset::{Ascii, Binary, Codepage, Except, Table, Utf8, Utf16, Utf32, WithControls};
        Some(match name {
            "binary" => Binary,
            "utf8mb4" | "utf8mb3" | "utf8" => Utf8,
            "ascii" => Ascii,
            "latin1" => Table(enc::WINDOWS_1252),
            "latin2" => WithControls(enc::ISO_8859_2),
            "latin5" => WithControls(enc::WINDOWS_1254),
            "latin7" => WithControls(enc::ISO_8859_13),
            "greek" => Except(enc::ISO_8859_7, Width::One, exceptions::GREEK),
            "hebrew" => Except(enc::ISO_8859_8, Width::One, exceptions::HEBREW),
            "cp1250" => Table(enc::WINDOWS_1250),
            "cp1251" => Table(enc::WINDOWS_1251),
            "cp1256" => Table(enc::WINDOWS_1256),
            "cp1257" => Table(enc::WINDOWS_1257),
            "cp866" => Except(enc::IBM866, Width::One, exceptions::CP866),
            "koi8r" => Table(enc::KOI8_R),
            "koi8u" => Except(enc::KOI8_U, Width::One, exceptions::KOI8U),
            "macroman" => Table(enc::MACINTOSH),
            "tis620" => WithControls(enc::WINDOWS_874),
            "sjis" => Except(enc::SHIFT_JIS, Width::Two { half: true }, exceptions::SJIS),
            "cp932" => Table(enc::SHIFT_JIS),
            "ujis" => Except(enc::EUC_JP, Width::Euc, exceptions::UJIS),
            "eucjpms" => Except(enc::EUC_JP, Width::Euc, exceptions::EUCJPMS),
            "euckr" => Table(enc::EUC_KR),
            "gb2312" => Except(enc::GBK, Width::Two { half: false }, exceptions::GB2312),
            "gbk" => Table(enc::GBK),
            "gb18030" => Table(enc::GB18030),
            "big5" => Except(enc::BIG5, Width::Two { half: false }, exceptions::BIG5),
            "armscii8" => Codepage(codepages::ARMSCII8),
            "cp850" => Codepage(codepages::CP850),
            "cp852" => Codepage(codepages::CP852),
            "dec8" => Codepage(codepages::DEC8),
            "geostd8" => Codepage(codepages::GEOSTD8),
            "hp8" => Codepage(codepages::HP8),
            "keybcs2" => Codepage(codepages::KEYBCS2),
            "macce" => Codepage(codepages::MACCE),
            "swe7" => Codepage(codepages::SWE7),
            "ucs2" | "utf16" => Utf16 { little: false },
            "utf16le" => Utf16 { little: true },
            "utf32" => Utf32,
            _ => return None,
        })
    }

    /// The text of bytes that lie within `owner`; none: they are none. `replace`: U+FFFD stands for what is none.
    pub(in super::super) fn decode(self, owner: &Bytes, raw: &[u8], replace: bool) -> Option<ByteString> {
        if self == Self::Utf8 || self == Self::Ascii && raw.is_ascii() {
            return match (ByteString::try_from(owner.slice_ref(raw)), replace) {
                (Ok(text), _) => Some(text),
                (Err(_), true) => Some(String::from_utf8_lossy(raw).into_owned().into()),
                (Err(_), false) => None,
            };
        }
        let text = self.text(raw, replace)?;
        Some(text.into())
    }

    fn text(self, raw: &[u8], replace: bool) -> Option<String> {
        let of_encoding = |encoding: &'static Encoding, raw: &[u8]| {
            let (text, has_errors) = encoding.decode_without_bom_handling(raw);
            (!has_errors || replace).then(|| text.into_owned())
        };
        match self {
            Self::Binary | Self::Utf8 => None,
            Self::Ascii => {
                let text = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER };
                (replace || raw.is_ascii()).then(|| raw.iter().map(text).collect())
            }
            Self::Table(encoding) => of_encoding(encoding, raw),
            Self::Except(encoding, ..) if raw.is_ascii() => of_encoding(encoding, raw),
            Self::Except(encoding, width, exceptions) => {
                let (mut text, mut rest) = (String::with_capacity(raw.len() * 2), raw);
                while let Some(first) = rest.first() {
                    let (bytes, more) = rest.split_at(width.of(*first).min(rest.len()));
                    let number = bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
                    let exception = exceptions.binary_search_by_key(&number, |(bytes, _)| *bytes);
                    match exception.ok().and_then(|at| exceptions.get(at)) {
                        Some((_, c)) => text.push(*c),
                        None => match (width.private(bytes), bytes) {
                            (Some(c), _) => text.push(c),
                            // Of one byte, as in the tables with such.
                            (None, [byte]) if is_control(*byte) && has_controls(encoding) => {
                                text.push(char::from(*byte))
                            }
                            (None, _) => text.push_str(&of_encoding(encoding, bytes)?),
                        },
                    }
                    rest = more;
                }
                Some(text)
            }
            Self::WithControls(encoding) => {
                let mut text = String::with_capacity(raw.len());
                for run in raw.chunk_by(|a, b| is_control(*a) == is_control(*b)) {
                    match run.first() {
                        Some(first) if is_control(*first) => text.extend(run.iter().map(|byte| char::from(*byte))),
                        _ => text.push_str(&of_encoding(encoding, run)?),
                    }
                }
                Some(text)
            }
            Self::Codepage(page) => {
                let none = replace.then_some(char::REPLACEMENT_CHARACTER);
                raw.iter().map(|byte| page.character(*byte).or(none)).collect()
            }
            Self::Utf16 { little } => of_encoding(if little { enc::UTF_16LE } else { enc::UTF_16BE }, raw),
            Self::Utf32 => {
                let (units, rest) = raw.as_chunks::<4>();
                let mut text = String::with_capacity(units.len());
                for unit in units {
                    match char::from_u32(u32::from_be_bytes(*unit)) {
                        Some(c) => text.push(c),
                        None if replace => text.push('\u{fffd}'),
                        None => return None,
                    }
                }
                (rest.is_empty() || replace).then_some(text)
            }
        }
    }
}

/// Whether bytes 0x80 to 0x9f are control characters.
fn has_controls(encoding: &'static Encoding) -> bool {
    encoding == enc::ISO_8859_7 || encoding == enc::ISO_8859_8
}

fn is_control(byte: u8) -> bool {
    (0x80..0xa0).contains(&byte)
}
