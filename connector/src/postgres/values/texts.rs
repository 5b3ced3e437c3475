//! Bytes that should be text: which text they are, and what becomes of those that are none (`invalid_text`). Pure.
//!
//! A database of the encoding SQL_ASCII takes any bytes; they are read as UTF-8. In others a byte may be no character, or one
//! that the server cannot convert. Every type that travels as text is concerned, alone and in arrays, in the text and the binary
//! form of the stream, and names of tables and columns.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tributary_event::{TableSchema, Value};

use super::array;
use super::binary::{self, Form};
use super::charset::Charset;
use super::value::{Codec, push_hex};
use crate::error::ConnectorError;
use crate::postgres::stream::pgoutput;
use crate::postgres::wire::sqlstate::{literal, quote};
use crate::settings::InvalidText;

/// How many bytes of a value are shown.
const SHOWN: usize = 32;

/// The texts of a stream, or of pages of keys.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Texts {
    policy: InvalidText,
    /// Of the database, where texts are not sent as UTF-8.
    charset: Option<Charset>,
    encoding: String,
}

impl Texts {
    pub(in crate::postgres) fn new(policy: InvalidText, charset: Option<Charset>, encoding: &str) -> Self {
        Self { policy, charset, encoding: encoding.to_owned() }
    }

    /// Whether these bytes must be converted before they are read.
    pub(in crate::postgres) fn is_foreign(&self, raw: &[u8]) -> bool {
        self.charset.is_some() && !raw.is_ascii()
    }

    /// The text of some bytes, with U+FFFD in the place of what is none; and whether all of it was.
    fn read<'a>(&self, raw: &'a [u8]) -> (Cow<'a, str>, bool) {
        match &self.charset {
            Some(charset) if !raw.is_ascii() => {
                let (text, whole) = charset.read(raw);
                (Cow::Owned(text), whole)
            }
            _ => match std::str::from_utf8(raw) {
                Ok(text) => (Cow::Borrowed(text), true),
                Err(_) => (String::from_utf8_lossy(raw), false),
            },
        }
    }

    /// The value of a text; `None` if it is none of its type. What is no text becomes what the policy says; where it is to stop,
    /// `bad` has the bytes then.
    pub(in crate::postgres) fn decode(&self, codec: &Codec, raw: &[u8], bad: &mut Option<Vec<u8>>) -> Option<Value> {
        let (text, whole) = self.read(raw);
        if whole || self.policy == InvalidText::Replace {
            return codec.decode_owned(text.as_bytes());
        }
        match codec {
            Codec::Array { element, delimiter } => {
                array::decode(raw, *delimiter, &mut |item| self.decode(element, item, bad))
            }
            Codec::Text | Codec::Hstore(_) if self.policy == InvalidText::Base64 => {
                Some(Value::text(STANDARD.encode(raw)))
            }
            Codec::Text | Codec::Hstore(_) => {
                bad.get_or_insert_with(|| raw.to_vec());
                Some(Value::Null)
            }
            _ => None,
        }
    }

    /// The same of a value in the form that a send function writes.
    pub(in crate::postgres) fn decode_binary(
        &self,
        form: &Form,
        codec: &Codec,
        raw: &[u8],
        bad: &mut Option<Vec<u8>>,
    ) -> Option<Value> {
        match (form, codec) {
            (Form::Text, _) => self.decode(codec, raw, bad),
            (Form::Versioned, _) => self.decode(codec, raw.strip_prefix(&[1])?, bad),
            (Form::Array(form), Codec::Array { element, .. }) => {
                binary::array(raw, &mut |item| self.decode_binary(form, element, item, bad))
            }
            _ => form.decode_alone(codec, raw),
        }
    }

    /// The message with its names as UTF-8, and the first of them that is no text. What is no text becomes what the policy says,
    /// and is replaced where it is to stop, for the table may not be captured at all.
    pub(in crate::postgres) fn message<'m>(&self, message: &'m [u8]) -> (Cow<'m, [u8]>, Option<&'m [u8]>) {
        let has_names = matches!(message.first(), Some(b'R' | b'Y' | b'O' | b'M' | b'r'));
        if !has_names || self.charset.is_none() && pgoutput::decode(message).is_ok() {
            return (Cow::Borrowed(message), None);
        }
        let mut names = Names { texts: self, rest: message, out: Vec::new(), bad: None };
        match names.rewrite(message[0]) {
            Some(()) => (Cow::Owned(names.out), names.bad),
            // It ends too early, which its reader says.
            None => (Cow::Borrowed(message), None),
        }
    }

    /// A name, by the policy.
    fn name(&self, raw: &[u8]) -> (String, bool) {
        match self.read(raw) {
            (_, false) if self.policy == InvalidText::Base64 => (STANDARD.encode(raw), false),
            (text, whole) => (text.into_owned(), whole),
        }
    }

    pub(in crate::postgres) fn stops(&self) -> bool {
        self.policy == InvalidText::Stop
    }

    /// The error for a value that is no text, in the row with this key. `logged`: it came with the log, where it stays.
    pub(in crate::postgres) fn refuse(
        &self,
        table: &TableSchema,
        column: usize,
        key: &[(usize, Option<Vec<u8>>)],
        bad: &[u8],
        logged: bool,
    ) -> ConnectorError {
        let column_name = |i: usize| table.columns.get(i).map_or("?", |c| &*c.name);
        let row: Vec<String> = key
            .iter()
            .map(|(i, value)| match value {
                Some(raw) => format!("{} = {}", quote(column_name(*i)), self.sql_literal(raw)),
                None => format!("{} is null", quote(column_name(*i))),
            })
            .collect();
        let row = if row.is_empty() { "…".to_owned() } else { row.join(" and ") };
        let mend = format!(
            "UPDATE {}.{} SET {} = … WHERE {row};",
            quote(&table.schema),
            quote(&table.name),
            quote(column_name(column))
        );
        let policy = "set invalid_text of the source to replace (U+FFFD in their place) or base64 (of the value)";
        let remedy = if logged {
            format!("they stay in the log, so {policy}; that no more of them come, mend the row: {mend}")
        } else {
            format!("mend the row: {mend} or {policy}")
        };
        ConnectorError::InvalidText {
            place: format!("table {}, column {}, row {row}", table.qualified_name(), column_name(column)),
            cause: format!("its bytes are no text{}: {}", self.why(), shown(bad)),
            remedy,
        }
    }

    /// The error for a name of a captured table that is no text.
    pub(in crate::postgres) fn refuse_name(&self, table: &str, bad: &[u8]) -> ConnectorError {
        ConnectorError::InvalidText {
            place: format!("table {table}"),
            cause: format!("a name of it or of its columns is no text{}: {}", self.why(), shown(bad)),
            remedy: "rename it, and set invalid_text of the source to replace (U+FFFD in their place) or base64 (of the name), for \
                     it stays in the log"
                .into(),
        }
    }

    fn why(&self) -> String {
        match self.encoding.as_str() {
            "" | "UTF8" => " in UTF-8".into(),
            "SQL_ASCII" => " in UTF-8 (the database's encoding is SQL_ASCII, which takes any bytes)".into(),
            encoding => format!(" in the database's encoding {encoding}, or one without a counterpart in Unicode"),
        }
    }

    /// A value as a statement may have it, whatever its bytes are.
    fn sql_literal(&self, raw: &[u8]) -> String {
        match std::str::from_utf8(raw) {
            Ok(text) if raw.is_ascii() || self.charset.is_none() => literal(text),
            _ => format!("convert_from({}, getdatabaseencoding())", bytea(raw)),
        }
    }
}

/// Bytes as a literal.
pub(in crate::postgres) fn bytea(raw: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * raw.len() + 4);
    digits.push_str("'\\x");
    push_hex(&mut digits, raw);
    digits.push('\'');
    digits
}

/// The first bytes of a value, as hexadecimal digits.
fn shown(raw: &[u8]) -> String {
    let head = &raw[..raw.len().min(SHOWN)];
    let mut digits = "\\x".to_owned();
    push_hex(&mut digits, head);
    if raw.len() > SHOWN { format!("{digits}… ({} bytes)", raw.len()) } else { digits }
}

/// Copies a message, and converts its names.
struct Names<'t, 'm> {
    texts: &'t Texts,
    rest: &'m [u8],
    out: Vec<u8>,
    bad: Option<&'m [u8]>,
}

impl Names<'_, '_> {
    /// `None`: the message ends too early.
    fn rewrite(&mut self, kind: u8) -> Option<()> {
        match kind {
            b'R' => {
                self.copy(5)?;
                self.name()?;
                self.name()?;
                self.copy(1)?;
                let columns = u16::from_be_bytes(*self.rest.first_chunk()?);
                self.copy(2)?;
                for _ in 0..columns {
                    self.copy(1)?;
                    self.name()?;
                    self.copy(8)?;
                }
            }
            b'Y' => {
                self.copy(5)?;
                self.name()?;
                self.name()?;
            }
            b'O' => {
                self.copy(9)?;
                self.name()?;
            }
            b'M' => {
                self.copy(10)?;
                self.name()?;
            }
            // A transaction that was rolled back.
            _ => {
                self.copy(1 + 1 + 4 * 8 + 4)?;
                self.name()?;
            }
        }
        self.copy(self.rest.len())
    }

    fn copy(&mut self, n: usize) -> Option<()> {
        let (head, rest) = self.rest.split_at_checked(n)?;
        self.out.extend_from_slice(head);
        self.rest = rest;
        Some(())
    }

    fn name(&mut self) -> Option<()> {
        let (name, rest) = self.rest.split_at_checked(memchr::memchr(0, self.rest)?)?;
        let (text, whole) = self.texts.name(name);
        if !whole {
            self.bad.get_or_insert(name);
        }
        self.out.extend_from_slice(text.as_bytes());
        self.rest = rest;
        self.copy(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::stream::pgoutput::Message;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn texts(policy: InvalidText) -> Texts {
        Texts::new(policy, None, "SQL_ASCII")
    }

    fn array_of_texts() -> Codec {
        Codec::Array { element: Box::new(Codec::Text), delimiter: b',' }
    }

    #[test]
    fn what_is_no_text_becomes_what_the_policy_says() {
        let mut bad = None;
        let raw = b"{ok,\"a\xff\"}";
        let list = |items: [&str; 2]| Some(Value::Array(items.map(Value::text).to_vec()));
        let replace = texts(InvalidText::Replace);
        assert_eq!(replace.decode(&Codec::Text, b"a\xffb", &mut bad), Some(Value::text("a\u{fffd}b")));
        assert_eq!(replace.decode(&array_of_texts(), raw, &mut bad), list(["ok", "a\u{fffd}"]));
        let base64 = texts(InvalidText::Base64);
        assert_eq!(base64.decode(&Codec::Text, b"a\xff", &mut bad), Some(Value::text("Yf8=")));
        assert_eq!(base64.decode(&Codec::Text, b"ok", &mut bad), Some(Value::text("ok")));
        assert_eq!(base64.decode(&array_of_texts(), raw, &mut bad), list(["ok", "Yf8="]));
        assert_eq!(base64.decode(&Codec::Int, b"\xff", &mut bad), None);
        assert_eq!(bad, None);
        texts(InvalidText::Stop).decode(&array_of_texts(), raw, &mut bad);
        assert_eq!(bad.as_deref(), Some(&b"a\xff"[..]));
    }

    #[test]
    fn the_binary_form_is_read_alike() {
        let mut bad = None;
        let base64 = texts(InvalidText::Base64);
        assert_eq!(
            base64.decode_binary(&Form::Versioned, &Codec::Text, b"\x01\xff", &mut bad),
            Some(Value::text("/w=="))
        );
        let mut raw = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 3, 0, 0, 0, 1].to_vec();
        raw.extend(b"\0\0\0\x02ok\0\0\0\x01\xff\xff\xff\xff\xff");
        let form = Form::Array(Box::new(Form::Text));
        let expected = Value::Array(vec![Value::text("ok"), Value::text("/w=="), Value::Null]);
        assert_eq!(base64.decode_binary(&form, &array_of_texts(), &raw, &mut bad), Some(expected));
        let bytea = Codec::Bytea(crate::settings::BinaryHandling::Base64);
        let bytes = base64.decode_binary(&Form::Bytea, &bytea, b"\x01\xff", &mut bad);
        assert_eq!(bytes, Some(Value::Bytes(Bytes::from_static(b"\x01\xff"))));
    }

    #[test]
    fn names_are_read_in_place() {
        let message = b"R\0\0\0\x09s\0t\xff\0d\0\x01\x01id\xfe\0\0\0\0\x17\xff\xff\xff\xff";
        let texts = texts(InvalidText::Replace);
        let (rewritten, bad) = texts.message(message);
        let Ok(Message::Relation(relation)) = pgoutput::decode(&rewritten) else { panic!("a relation") };
        assert_eq!((relation.name, bad), ("t\u{fffd}", Some(&b"t\xff"[..])));
        assert_eq!(relation.columns().next().map(|c| c.name), Some("id\u{fffd}"));
    }

    proptest! {
        #[test]
        fn messages_whose_names_are_text_stay_as_they_are(kind in prop::sample::select(b"RYOMrIUB".to_vec()), rest: Vec<u8>) {
            let message = [&[kind], &rest[..]].concat();
            let texts = texts(InvalidText::Stop);
            let (rewritten, bad) = texts.message(&message);
            if bad.is_none() {
                prop_assert_eq!(&*rewritten, &message[..]);
            }
        }
    }

    #[test]
    fn a_refusal_names_the_row_and_the_ways_out() {
        use tributary_event::Column;
        let columns = ["id", "title"].map(|name| Column { name: name.into(), type_name: "text".into() }).to_vec();
        let table = TableSchema::new("public", "movie", columns, vec![0]);
        let key = [(0, Some(b"7".to_vec()))];
        let said = texts(InvalidText::Stop).refuse(&table, 1, &key, &[0xff; 40], true).to_string();
        for text in [
            "table public.movie, column title, row \"id\" = '7'",
            "SQL_ASCII",
            "ffff… (40 bytes)",
            "set invalid_text",
            "UPDATE \"public\".\"movie\" SET \"title\" = … WHERE \"id\" = '7';",
        ] {
            assert!(said.contains(text), "{said}");
        }
        let said = texts(InvalidText::Stop).refuse(&table, 0, &[(0, Some(vec![0xff]))], &[0xff], false).to_string();
        assert!(said.contains("WHERE \"id\" = convert_from('\\xff', getdatabaseencoding());"), "{said}");
    }
}
