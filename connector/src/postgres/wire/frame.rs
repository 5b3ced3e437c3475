//! Messages of the wire protocol as they lie in what has arrived (kind, length, body), and what those of the stream hold.
//! Pure: no panics, and nothing is taken that is not there.
//!
//! Reference: PostgreSQL documentation, "Message Formats" and "Streaming Replication Protocol".

use tributary_event::Lsn;

/// What the stream says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Frame<'a> {
    /// A message of the plugin.
    Data {
        /// Where the message's record starts.
        start: Lsn,
        payload: &'a [u8],
    },
    /// The server has nothing to send before `end`.
    Keepalive { end: Lsn, reply: bool },
}

/// Number of bytes of the complete messages at the start of `bytes`.
///
/// # Errors
/// A length that no message has.
pub(in crate::postgres) fn complete(bytes: &[u8]) -> Result<usize, u32> {
    let mut end = 0;
    while let Some(&[_, a, b, c, d]) = bytes.get(end..end + 5) {
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(length);
        }
        if bytes.len() - end <= length as usize {
            break;
        }
        end += 1 + length as usize;
    }
    Ok(end)
}

/// Kind and body of the message at `at`, which moves behind it; `None` if it is not whole.
pub(in crate::postgres) fn next<'a>(bytes: &'a [u8], at: &mut usize) -> Option<(u8, &'a [u8])> {
    let (&[kind, a, b, c, d], rest) = bytes.get(*at..)?.split_first_chunk::<5>()?;
    let length = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(4)?;
    let body = rest.get(..length)?;
    *at += 5 + length;
    Some((kind, body))
}

/// What a message of the stream (`CopyData`) holds: `None` if it is cut short, `Some(None)` if it is of no interest.
pub(in crate::postgres) fn copied(body: &[u8]) -> Option<Option<Frame<'_>>> {
    let lsn = |bytes: [u8; 8]| Lsn(u64::from_be_bytes(bytes));
    let Some((kind, rest)) = body.split_first() else { return Some(None) };
    Some(match kind {
        // Start of the record, end of the log, time.
        b'w' => {
            let (head, payload) = rest.split_first_chunk::<24>()?;
            Some(Frame::Data { start: lsn(*head.first_chunk()?), payload })
        }
        // End of the log, time, whether an answer is wanted.
        b'k' => {
            let head = rest.first_chunk::<17>()?;
            Some(Frame::Keepalive { end: lsn(*head.first_chunk()?), reply: head[16] == 1 })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_complete_messages_end_where_the_last_does(
            messages in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..5),
            tail: Vec<u8>,
        ) {
            let mut bytes = Vec::new();
            for (kind, body) in &messages {
                bytes.push(*kind);
                bytes.extend((body.len() as u32 + 4).to_be_bytes());
                bytes.extend(body);
            }
            let whole = bytes.len();
            prop_assert_eq!(complete(&bytes), Ok(whole));
            let mut at = 0;
            for (kind, body) in &messages {
                prop_assert_eq!(next(&bytes, &mut at), Some((*kind, &body[..])));
                let _ = copied(body);
            }
            prop_assert_eq!(next(&bytes, &mut at), None);
            bytes.extend(tail);
            if let Ok(end) = complete(&bytes) {
                prop_assert!((whole..=bytes.len()).contains(&end));
            }
        }

        #[test]
        fn bodies_of_every_kind_are_read_or_refused(kind in prop::sample::select(b"wkrx".to_vec()), rest: Vec<u8>) {
            let body = [&[kind], &rest[..]].concat();
            if let Some(Some(Frame::Data { payload, .. })) = copied(&body) {
                prop_assert_eq!(payload, &rest[24..]);
            }
        }
    }
}
