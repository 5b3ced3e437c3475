//! Encodings of databases other than UTF-8, by the server's own tables: for texts that come as they are stored, because the
//! server cannot convert one of them.
//!
//! The server is asked what each character is, so that a text means the same whoever converts it.
//!
//! Reference: PostgreSQL documentation, "Character Set Support"; source, `src/common/wchar.c` (lengths of characters).

use std::collections::HashMap;

use super::value::{hex, push_hex};
use crate::error::ConnectorError;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::literal;

/// Characters that are asked for at a time.
const AT_A_TIME: usize = 2048;

/// The bytes of East Asian characters.
const HIGH: std::ops::RangeInclusive<u8> = 0xa1..=0xfe;

/// The characters of an encoding that are not ASCII.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Charset {
    known: HashMap<Vec<u8>, Box<str>>,
    family: Family,
}

/// How long a character is, by its first byte.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Family {
    #[default]
    OneByte,
    TwoBytes,
    Japanese,
    Taiwanese,
}

impl Family {
    /// The family of a server's encoding; none of those that are UTF-8, no encoding at all, or not understood.
    fn of(encoding: &str) -> Option<Self> {
        match encoding {
            "UTF8" | "SQL_ASCII" | "MULE_INTERNAL" => None,
            "EUC_CN" | "EUC_KR" => Some(Self::TwoBytes),
            "EUC_JP" | "EUC_JIS_2004" => Some(Self::Japanese),
            "EUC_TW" => Some(Self::Taiwanese),
            _ => Some(Self::OneByte),
        }
    }

    fn length(self, first: u8) -> usize {
        match (self, first) {
            (Self::OneByte, _) => 1,
            (Self::Japanese, 0x8f) => 3,
            (Self::Taiwanese, 0x8e) => 4,
            _ => 2,
        }
    }

    /// Everything that may be a character.
    fn candidates(self) -> Vec<Vec<u8>> {
        if self == Self::OneByte {
            return (0x80..=0xff).map(|byte| vec![byte]).collect();
        }
        let pairs = |head: &[u8]| -> Vec<Vec<u8>> {
            HIGH.flat_map(|a| HIGH.map(move |b| [a, b])).map(|pair| [head, &pair].concat()).collect()
        };
        let mut all = pairs(&[]);
        match self {
            Self::Japanese => {
                all.extend((0xa1..=0xdf).map(|byte| vec![0x8e, byte]));
                all.extend(pairs(&[0x8f]));
            }
            Self::Taiwanese => all.extend((0xa1..=0xa7).flat_map(|plane| pairs(&[0x8e, plane]))),
            Self::OneByte | Self::TwoBytes => {}
        }
        all
    }
}

impl Charset {
    /// The characters of the database's encoding; `None` where texts are UTF-8 or have no encoding.
    pub(in crate::postgres) async fn load(sql: &Sql, encoding: &str) -> Result<Option<Self>, ConnectorError> {
        if encoding == "MULE_INTERNAL" {
            return Err(ConnectorError::settings(
                sql.endpoint().place(),
                "the server cannot convert a text of this database to UTF-8, and its encoding MULE_INTERNAL is not understood \
                 here either",
                "copy the database into one of the encoding UTF8",
            ));
        }
        let Some(family) = Family::of(encoding) else { return Ok(None) };
        let mut known = HashMap::new();
        for some in family.candidates().chunks(AT_A_TIME) {
            known.extend(ask(sql, encoding, some).await?);
        }
        tracing::info!(encoding, characters = known.len(), "texts come in the encoding of the database from now on");
        Ok(Some(Self { known, family }))
    }

    /// Some characters, without a server.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(in crate::postgres) fn of(encoding: &str, known: &[(&[u8], &str)]) -> Option<Self> {
        let known = known.iter().map(|(bytes, text)| (bytes.to_vec(), Box::from(*text))).collect();
        Some(Self { known, family: Family::of(encoding)? })
    }

    /// The text of some bytes, with U+FFFD in the place of those that are no character; and whether there were such.
    pub(in crate::postgres) fn read(&self, mut raw: &[u8]) -> (String, bool) {
        let (mut text, mut whole) = (String::with_capacity(raw.len() + raw.len() / 2), true);
        while let Some(&first) = raw.first() {
            if first.is_ascii() {
                text.push(char::from(first));
                raw = &raw[1..];
                continue;
            }
            let character = raw.get(..self.family.length(first)).filter(|bytes| !bytes.iter().any(u8::is_ascii));
            match character.and_then(|bytes| self.known.get(bytes)) {
                Some(known) => text.push_str(known),
                None => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    whole = false;
                }
            }
            raw = &raw[character.map_or(1, <[u8]>::len)..];
        }
        (text, whole)
    }
}

/// What some characters are; those that are none are left out. An error for each of these would fill the server's log, so a
/// block catches them, and leaves its answer in a setting of the session.
async fn ask(sql: &Sql, encoding: &str, some: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Box<str>)>, ConnectorError> {
    const ASKING: &str = "asking for the characters of the encoding";
    let digits: Vec<String> = some
        .iter()
        .map(|bytes| {
            let mut digits = String::new();
            push_hex(&mut digits, bytes);
            digits
        })
        .collect();
    let block = format!(
        "declare digits text; answer text := ''; begin \
         foreach digits in array string_to_array('{}', ',') loop \
           begin answer := answer || encode(convert(decode(digits, 'hex'), '{encoding}', 'UTF8'), 'hex'); \
           exception when character_not_in_repertoire or untranslatable_character then null; end; \
           answer := answer || ','; \
         end loop; perform set_config('tributary.characters', answer, false); end",
        digits.join(",")
    );
    sql.texts(ASKING, &format!("do language plpgsql {}", literal(&block))).await?;
    let answer = sql.texts(ASKING, "select current_setting('tributary.characters')").await?;
    let answer = answer.first().and_then(|row| row.get(0)).unwrap_or_default();
    let texts = answer.split(',').map(|digits| {
        let text = hex(digits.as_bytes()).filter(|text| !text.is_empty())?;
        Some(Box::from(std::str::from_utf8(&text).ok()?))
    });
    Ok(some.iter().zip(texts).filter_map(|(bytes, text)| Some((bytes.clone(), text?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn charset(family: Family, known: &[(&[u8], &str)]) -> Charset {
        Charset { known: known.iter().map(|(bytes, text)| (bytes.to_vec(), (*text).into())).collect(), family }
    }

    #[test]
    fn what_is_no_character_is_replaced_and_told_of() {
        let latin = charset(Family::OneByte, &[(b"\xe9", "é")]);
        assert_eq!(latin.read(b"caf\xe9"), ("café".into(), true));
        assert_eq!(latin.read(b"\x81\xe9"), ("\u{fffd}é".into(), false));
        let japanese = charset(Family::Japanese, &[(b"\xa4\xa2", "あ"), (b"\x8e\xb1", "ｱ"), (b"\x8f\xb0\xa1", "丂")]);
        assert_eq!(japanese.read(b"a\xa4\xa2\x8e\xb1\x8f\xb0\xa1b"), ("aあｱ丂b".into(), true));
        // A character that is cut off takes nothing with it.
        assert_eq!(japanese.read(b"\xa4,\xa4\xa2\x8f"), ("\u{fffd},あ\u{fffd}".into(), false));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(raw: Vec<u8>) {
            for family in [Family::OneByte, Family::TwoBytes, Family::Japanese, Family::Taiwanese] {
                let (text, whole) = charset(family, &[]).read(&raw);
                prop_assert_eq!(whole, raw.is_ascii());
                prop_assert_eq!(text.chars().filter(char::is_ascii).count(), raw.iter().filter(|b| b.is_ascii()).count());
            }
        }
    }
}
