//! Character sets, by the names that servers give them.
//!
//! Reference: MySQL Reference Manual, "Supported Character Sets and Collations"; WHATWG Encoding Standard for the tables.

use bytes::Bytes;
use bytestring::ByteString;
use encoding_rs::{self as enc, Encoding};

/// How texts of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Charset {
    /// They are no texts.
    Binary,
    Utf8,
    /// Of the tables of the web.
    Table(&'static Encoding),
    /// The same, where bytes 0x80 to 0x9f are control characters.
    WithControls(&'static Encoding),
    Utf16 {
        little: bool,
    },
    Utf32,
}

impl Charset {
    /// That of a name; none: it is not known here.
    pub(in super::super) fn named(name: &str) -> Option<Self> {
        use Charset::{Binary, Table, Utf8, Utf16, Utf32, WithControls};
        Some(match name {
            "binary" => Binary,
            "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Utf8,
            "latin1" => Table(enc::WINDOWS_1252),
            "latin2" => WithControls(enc::ISO_8859_2),
            "latin5" => WithControls(enc::WINDOWS_1254),
            "latin7" => WithControls(enc::ISO_8859_13),
            "greek" => WithControls(enc::ISO_8859_7),
            "hebrew" => WithControls(enc::ISO_8859_8),
            "cp1250" => Table(enc::WINDOWS_1250),
            "cp1251" => Table(enc::WINDOWS_1251),
            "cp1256" => Table(enc::WINDOWS_1256),
            "cp1257" => Table(enc::WINDOWS_1257),
            "cp866" => Table(enc::IBM866),
            "koi8r" => Table(enc::KOI8_R),
            "koi8u" => Table(enc::KOI8_U),
            "macroman" => Table(enc::MACINTOSH),
            "tis620" => Table(enc::WINDOWS_874),
            "sjis" | "cp932" => Table(enc::SHIFT_JIS),
            "ujis" | "eucjpms" => Table(enc::EUC_JP),
            "euckr" => Table(enc::EUC_KR),
            "gb2312" | "gbk" => Table(enc::GBK),
            "gb18030" => Table(enc::GB18030),
            "big5" => Table(enc::BIG5),
            "ucs2" | "utf16" => Utf16 { little: false },
            "utf16le" => Utf16 { little: true },
            "utf32" => Utf32,
            _ => return None,
        })
    }

    /// The text of bytes that lie within `owner`; none: they are none. `replace`: U+FFFD stands for what is none.
    pub(in super::super) fn decode(self, owner: &Bytes, raw: &[u8], replace: bool) -> Option<ByteString> {
        if matches!(self, Self::Utf8) {
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
            Self::Table(encoding) => of_encoding(encoding, raw),
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

fn is_control(byte: u8) -> bool {
    (0x80..0xa0).contains(&byte)
}
