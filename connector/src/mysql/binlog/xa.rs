//! Names of XA transactions, by which what is prepared is found again when it commits: both of their texts behind their lengths, and the digits
//! of the number of their format.

use super::super::cursor::{Cursor, Malformed};
use super::statement::Word;

/// The name in a statement: `XA COMMIT X'616263',X'',1`.
pub(super) fn stated(words: &[Word]) -> Vec<u8> {
    let mut name = Vec::new();
    for word in words {
        match word {
            Word::Text(text) => put(&mut name, text),
            Word::Bare(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                name.extend_from_slice(number.as_bytes());
            }
            _ => {}
        }
    }
    name
}

/// The name in the beginning of a group of MariaDB that prepares it.
pub(super) fn prepared(cursor: &mut Cursor) -> Result<Vec<u8>, Malformed> {
    let (format, lengths) = (cursor.u32()?, [cursor.u8()?, cursor.u8()?]);
    let mut name = Vec::new();
    for length in lengths {
        put(&mut name, cursor.take(usize::from(length))?);
    }
    name.extend_from_slice(format.to_string().as_bytes());
    Ok(name)
}

fn put(name: &mut Vec<u8>, text: &[u8]) {
    name.extend_from_slice(&(text.len() as u32).to_le_bytes());
    name.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::super::group::GroupStart;
    use super::super::statement::Statement;
    use super::*;

    fn of(statement: &str) -> Vec<u8> {
        stated(&Statement { text: statement.into(), ..Statement::default() }.words().collect::<Vec<_>>())
    }

    #[test]
    fn a_group_of_mariadb_and_the_statement_that_commits_it_have_the_same_name() {
        let behind = |flags: u8, rest: &[u8]| [&7_u64.to_le_bytes()[..], &[1, 0, 0, 0, flags], rest].concat();
        let xid = [&300_u32.to_le_bytes()[..], &[2, 1], b"a\xff", b"c"].concat();
        let grouped = [&[9; 8][..], &xid].concat();
        let prepares = |body: &[u8]| match GroupStart::mariadb(3, body) {
            Ok(GroupStart::MariaDb { prepares, .. }) => Ok(prepares),
            other => Err(other),
        };
        let name = of("XA COMMIT X'61ff',X'63',300");
        assert_eq!(prepares(&behind(0x40, &xid)), Ok(Some(name.clone())));
        assert_eq!(prepares(&behind(0x42, &grouped)), Ok(Some(name)));
        // One that commits what was prepared names it in its statement.
        assert_eq!(prepares(&behind(0x80, &xid)), Ok(None));
        assert!(prepares(&behind(0x40, &xid[..8])).is_err());
    }

    #[test]
    fn names_differ_where_their_texts_do() {
        assert_eq!(of("XA START 'abc',X'',1"), of("xa commit x'616263', '', 1"));
        assert_ne!(of("XA COMMIT 'ab','c',1"), of("XA COMMIT 'a','bc',1"));
        assert_ne!(of("XA COMMIT 'ab','c',1"), of("XA COMMIT 'ab','c',2"));
    }
}
