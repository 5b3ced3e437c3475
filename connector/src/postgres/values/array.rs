//! PostgreSQL's text of arrays: `{1,NULL,"a \"b\""}`, nested for several dimensions, `[0:1]={…}` with lower bounds.
//!
//! Reference: PostgreSQL documentation, "Array Input and Output Syntax".

use tributary_event::Value;

/// PostgreSQL's own limit (`MAXDIM`).
pub(in crate::postgres) const MAX_DIMENSIONS: usize = 6;

/// The value of an array's text, whose elements `element` reads; `None` if it is no array of such elements.
pub(in crate::postgres) fn decode(
    text: &[u8],
    delimiter: u8,
    element: &mut dyn FnMut(&[u8]) -> Option<Value>,
) -> Option<Value> {
    let body = match text.first()? {
        b'[' => &text[memchr::memchr(b'=', text)? + 1..],
        _ => text,
    };
    let mut parser = Parser { text: body, at: 0, element, delimiter, unescaped: Vec::new() };
    let value = parser.array(0)?;
    (parser.at == body.len()).then_some(value)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    element: &'a mut dyn FnMut(&[u8]) -> Option<Value>,
    delimiter: u8,
    unescaped: Vec<u8>,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn array(&mut self, depth: usize) -> Option<Value> {
        if depth >= MAX_DIMENSIONS || self.peek()? != b'{' {
            return None;
        }
        self.at += 1;
        let mut items = Vec::new();
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(Value::Array(items));
        }
        loop {
            items.push(match self.peek()? {
                b'{' => self.array(depth + 1)?,
                b'"' => self.quoted()?,
                _ => self.plain()?,
            });
            let next = self.peek()?;
            self.at += 1;
            if next == b'}' {
                return Some(Value::Array(items));
            }
            if next != self.delimiter {
                return None;
            }
        }
    }

    fn plain(&mut self) -> Option<Value> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|&b| b == self.delimiter || b == b'}')?;
        self.at += end;
        match &rest[..end] {
            b"NULL" => Some(Value::Null),
            item => (self.element)(item),
        }
    }

    fn quoted(&mut self) -> Option<Value> {
        self.at += 1;
        self.unescaped.clear();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return (self.element)(&self.unescaped),
                b'\\' => {
                    self.unescaped.push(self.peek()?);
                    self.at += 1;
                }
                _ => self.unescaped.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Codec;
    use super::*;
    use proptest::prelude::*;

    fn texts(text: &str) -> Option<Value> {
        decode(text.as_bytes(), b',', &mut |item| Codec::Text.decode_owned(item))
    }

    fn ints(text: &str) -> Option<Value> {
        decode(text.as_bytes(), b',', &mut |item| Codec::Int.decode_owned(item))
    }

    #[test]
    fn arrays_of_every_shape() {
        let int = Value::Int;
        assert_eq!(ints("{}"), Some(Value::Array(vec![])));
        assert_eq!(ints("{1,NULL,-3}"), Some(Value::Array(vec![int(1), Value::Null, int(-3)])));
        let row = |a, b| Value::Array(vec![int(a), int(b)]);
        assert_eq!(ints("[0:1][2:3]={{1,2},{3,4}}"), Some(Value::Array(vec![row(1, 2), row(3, 4)])));
        let texts = texts(r#"{a,"b \"c\" \\ {,}","",NULL,"NULL"}"#);
        let expected = ["a", r#"b "c" \ {,}"#, ""].map(Value::text).into_iter();
        assert_eq!(texts, Some(Value::Array(expected.chain([Value::Null, Value::text("NULL")]).collect())));
        for nonsense in ["", "{", "{1", "{1,}", "{1}x", "{\"1}", "{{{{{{{1}}}}}}}", "[1:2]"] {
            assert_eq!(ints(nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in r#"[{}",\\a1=\[\]:N]{0,40}"#) {
            let _ = texts(&text);
        }

        #[test]
        fn quoted_texts_survive(items: Vec<String>) {
            let quoted: Vec<String> =
                items.iter().map(|i| format!("\"{}\"", i.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            let text = format!("{{{}}}", quoted.join(","));
            let expected = Value::Array(items.into_iter().map(Value::text).collect());
            prop_assert_eq!(texts(&text), Some(expected));
        }
    }
}
