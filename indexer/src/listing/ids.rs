//! Which ids were listed: their hashes of 64 bits, in six bytes each, so that ten million need some 70 MB.
//!
//! The first two bytes of a hash say in which of 65,536 parts it is, and the part keeps the other six. (A hash table of the same needs
//! 16 to 32 bytes an id while it grows.) That an id is taken for one that was listed has a chance of one to 2^64 for each that was.

use xxhash_rust::xxh3::xxh3_64;

/// The parts.
const PARTS: usize = 1 << 16;
/// A part grows by this share of itself, and by four ids at least.
const GROWTH: usize = 8;

/// What a part keeps of a hash.
type Rest = [u8; 6];

/// A set of ids.
#[derive(Debug)]
pub(super) struct Ids {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Default)]
struct Part {
    rests: Vec<Rest>,
    is_sorted: bool,
}

impl Default for Ids {
    fn default() -> Self {
        Self { parts: vec![Part::default(); PARTS] }
    }
}

fn place(id: &str) -> (usize, Rest) {
    let [a, b, rest @ ..] = xxh3_64(id.as_bytes()).to_be_bytes();
    (usize::from(u16::from_be_bytes([a, b])), rest)
}

impl Ids {
    /// Adds an id.
    pub fn add(&mut self, id: &str) {
        let (part, rest) = place(id);
        let part = &mut self.parts[part];
        if part.rests.len() == part.rests.capacity() {
            part.rests.reserve_exact((part.rests.len() / GROWTH).max(4));
        }
        part.rests.push(rest);
        part.is_sorted = false;
    }

    /// Whether it was added.
    pub fn contains(&mut self, id: &str) -> bool {
        let (part, rest) = place(id);
        let part = &mut self.parts[part];
        if !part.is_sorted {
            part.rests.sort_unstable();
            part.is_sorted = true;
        }
        part.rests.binary_search(&rest).is_ok()
    }

    /// The bytes that it takes.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.rests.capacity() * size_of::<Rest>());
        parts.sum::<usize>() + self.parts.capacity() * size_of::<Part>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_what_was_added() {
        let mut ids = Ids::default();
        (0..20_000).step_by(2).for_each(|n| ids.add(&n.to_string()));
        for n in 0..20_000 {
            assert_eq!(ids.contains(&n.to_string()), n % 2 == 0);
        }
        ids.add("1");
        assert!(ids.contains("1") && ids.contains("0") && !ids.contains("3"));
    }

    #[test]
    fn an_id_needs_eight_bytes_or_less() {
        // Twelve in each part, so that parts have grown. Where there are ten million, each needs less.
        const COUNT: usize = 100 * PARTS / 8;
        let mut ids = Ids { parts: vec![Part::default(); PARTS] };
        let mut id = String::new();
        for n in 0..COUNT {
            use std::fmt::Write as _;
            id.clear();
            let _ = write!(id, "{n}");
            ids.add(&id);
        }
        assert!(ids.contains("0") && !ids.contains("-1"));
        let bytes = ids.bytes() - PARTS * size_of::<Part>();
        assert!(bytes < 8 * COUNT, "{bytes} bytes");
    }
}
