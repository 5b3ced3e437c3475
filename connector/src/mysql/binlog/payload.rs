//! Events of a transaction that were compressed together (MySQL), and single ones (MariaDB).
//!
//! Reference: MySQL Source Code Documentation, `Transaction_payload_event`; MariaDB Knowledge Base, "Compressing Events to Reduce Size of the
//! Binary Log".

use std::io::{self, BufRead, BufReader, Read as _};

use bytes::{Bytes, BytesMut};
use flate2::read::ZlibDecoder;

use super::super::cursor::{Cursor, Malformed, SHORT};
use super::super::kept::Kept;
use super::header::{CHECKSUM, HEADER, Header};
use crate::error::ConnectorError;

const CORRUPT: Malformed = Malformed("its compressed content cannot be read");
/// Sizes of events have 32 bits, whatever a compressed one claims to become.
const LARGEST: u64 = u32::MAX as u64;
/// How much memory is taken before content has come that fills it.
const FIRST: usize = 64 << 10;

/// How the content is compressed.
const NONE: u64 = 255;
const ZSTD: u64 = 0;

/// Why an event of a payload cannot be read.
#[derive(Debug)]
pub(in super::super) enum Unreadable {
    /// The server has sent it so.
    Malformed(Malformed),
    /// The file that it is kept in cannot be read.
    Kept(ConnectorError),
}

impl Unreadable {
    /// The error of the event at a place.
    pub(in super::super) fn at(self, place: String) -> ConnectorError {
        match self {
            Self::Malformed(malformed) => ConnectorError::protocol(place, malformed.to_string()),
            Self::Kept(error) => error,
        }
    }
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        error.downcast().map_or(Self::Malformed(CORRUPT), Self::Kept)
    }
}

/// The events of a compressed transaction, read one by one.
pub(in super::super) struct Payload {
    from: Box<dyn io::Read + Send>,
}

impl Payload {
    /// Opens it. `owner` has the body of the event.
    pub(in super::super) fn open(owner: &Bytes) -> Result<Self, Malformed> {
        let mut cursor = Cursor(owner);
        let fields = Fields::read(&mut cursor)?;
        let size = usize::try_from(fields.size.unwrap_or(cursor.len() as u64)).unwrap_or(usize::MAX);
        let content = owner.slice_ref(cursor.take(size)?);
        Self::over(io::Cursor::new(content), fields.algorithm)
    }

    /// Opens that of an event in a file.
    pub(in super::super) fn open_kept(mut kept: Kept, has_checksum: bool) -> Result<Self, Unreadable> {
        let mut cursor = Cursor(kept.front.get(HEADER..).unwrap_or_default());
        let fields = Fields::read(&mut cursor)?;
        let before = (kept.front.len() - cursor.len()) as u64;
        let behind = if has_checksum { CHECKSUM as u64 } else { 0 };
        let rest = kept.size.checked_sub(before + behind).ok_or(SHORT)?;
        let size = fields.size.unwrap_or(rest);
        if size > rest {
            return Err(SHORT.into());
        }
        io::copy(&mut kept.by_ref().take(before), &mut io::sink())?;
        Ok(Self::over(kept.take(size), fields.algorithm)?)
    }

    fn over(content: impl BufRead + Send + 'static, algorithm: Option<u64>) -> Result<Self, Malformed> {
        let from: Box<dyn io::Read + Send> = match algorithm {
            Some(ZSTD) => {
                let decoder = zstd::stream::read::Decoder::with_buffer(content).map_err(|_| CORRUPT)?;
                Box::new(BufReader::with_capacity(FIRST, decoder))
            }
            None | Some(NONE) => Box::new(content),
            Some(_) => return Err(Malformed("it is compressed in a way that is not known")),
        };
        Ok(Self { from })
    }

    /// The next event; none at the end.
    pub(in super::super) fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let mut event = BytesMut::zeroed(HEADER);
        match self.from.read(&mut event[..1])? {
            0 => return Ok(None),
            _ => self.from.read_exact(&mut event[1..])?,
        }
        let size = Header::read(&event)?.size as usize;
        if size < HEADER {
            return Err(CORRUPT.into());
        }
        while event.len() < size {
            let at = event.len();
            let more = (size - at).min(at.max(FIRST));
            event.resize(at + more, 0);
            self.from.read_exact(&mut event[at..])?;
        }
        Ok(Some(event.freeze()))
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payload")
    }
}

/// What stands in front of the content.
#[derive(Debug, Default)]
struct Fields {
    size: Option<u64>,
    algorithm: Option<u64>,
}

impl Fields {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        loop {
            let field = cursor.lenenc()?;
            if field == 0 {
                return Ok(fields);
            }
            let mut content = Cursor(cursor.lenenc_bytes()?);
            match field {
                1 => fields.size = Some(content.lenenc()?),
                2 => fields.algorithm = Some(content.lenenc()?),
                _ => {}
            }
        }
    }
}

/// Content that MariaDB compressed: a byte with the number of those that tell its size, the size, then zlib's bytes.
pub(in super::super) fn uncompressed(content: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut cursor = Cursor(content);
    let head = cursor.u8()?;
    if head & 0x80 == 0 || head & 0x70 != 0 {
        return Err(Malformed("it is compressed in a way that is not known"));
    }
    let size = cursor.uint_be(usize::from(head & 0x07).min(8))?;
    if size > LARGEST {
        return Err(CORRUPT);
    }
    let mut out = Vec::new();
    let read = ZlibDecoder::new(cursor.0).take(size.saturating_add(1)).read_to_end(&mut out).map_err(|_| CORRUPT)?;
    if read as u64 == size { Ok(out) } else { Err(CORRUPT) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = uncompressed(&bytes);
            if let Ok(mut payload) = Payload::open(&Bytes::from(bytes)) {
                while let Ok(Some(_)) = payload.next() {}
            }
        }
    }
}
