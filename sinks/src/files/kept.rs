//! What is kept of a partition beside its files, and what files are called: the same in folders and in buckets.

use std::fmt;

use tributary_processor::sink::Mark;
use tributary_transport::TopicId;

/// What is kept of a partition: an offset, and the topic that it is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub mark: Mark,
    /// Whether the topic was made anew since there are files, so that their names say which one they are of.
    is_named: bool,
}

const ANEW: &str = "anew";

impl Kept {
    /// `7`, `7 <topic>`, or `7 <topic> anew`.
    pub fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let next = words.next()?.parse().ok()?;
        let topic = words.next().map(str::parse).transpose().ok()?;
        let is_named = match words.next() {
            None => false,
            Some(ANEW) => topic.is_some(),
            Some(_) => return None,
        };
        Some(Self { mark: Mark { next, topic }, is_named })
    }

    /// What is kept once the names of files were looked at: those that follow it are there.
    pub fn with_names(kept: Option<Self>, names: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Self> {
        // Files of a topic before this one say nothing of it.
        let suffix = kept.as_ref().map(Self::suffix).unwrap_or_default();
        let last = names.into_iter().filter_map(|name| end(name.as_ref(), &suffix)).max();
        match (kept, last) {
            (kept, None) => kept,
            (None, Some(last)) => Some(Self { mark: Mark::at(last), is_named: false }),
            (Some(mut kept), Some(last)) => {
                kept.mark.next = kept.mark.next.max(last);
                Some(kept)
            }
        }
    }

    /// What is kept after an entry; none: the entry does not follow what is kept, so it is fenced.
    pub fn after(kept: Option<Self>, from: Option<Mark>, to: Mark, has_events: bool) -> Option<Self> {
        let is_anew = from.is_some_and(|from| from.is_followed_anew(&to));
        // What names say cannot go back, but where they say that it is another topic.
        let goes_back = from.is_some_and(|from| to.next < from.next) && !is_anew;
        // Where the first events of another topic begin is said before their file can be there.
        let is_begun = !is_anew || !has_events;
        if kept.as_ref().map(|kept| kept.mark) != from || goes_back || !is_begun {
            return None;
        }
        Some(Self { mark: to, is_named: kept.is_some_and(|kept| kept.is_named) || is_anew })
    }

    /// The name of the file whose events end here.
    pub fn file(&self, from: Option<Mark>, extension: &str) -> String {
        let from = from.map_or(0, |from| from.next);
        format!("{from:020}-{:020}{}.{extension}", self.mark.next, self.suffix())
    }

    /// The name of the file with an event that was set aside and done again: it may be of a topic before this one.
    pub fn file_again(kept: Option<Self>, read_at: Mark, extension: &str) -> String {
        let is_of_another = kept.is_some_and(|kept| TopicId::is_other(kept.mark.topic, read_at.topic));
        let suffix = match read_at.topic.filter(|_| is_of_another) {
            Some(topic) => format!("-{topic}"),
            None => kept.map(|kept| kept.suffix()).unwrap_or_default(),
        };
        format!("again-{:020}{suffix}.{extension}", read_at.next)
    }

    /// What the names of files have behind their offsets.
    fn suffix(&self) -> String {
        match self.mark.topic.filter(|_| self.is_named) {
            Some(topic) => format!("-{topic}"),
            None => String::new(),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mark.next)?;
        if let Some(topic) = self.mark.topic {
            write!(f, " {topic}")?;
            if self.is_named {
                write!(f, " {ANEW}")?;
            }
        }
        Ok(())
    }
}

/// The end of the range that a file's name tells, where this is behind its offsets; none for other files.
fn end(name: &str, suffix: &str) -> Option<u64> {
    let (range, _) = name.split_once('.')?;
    let (from, to) = range.strip_suffix(suffix)?.split_once('-')?;
    let number = |text: &str| (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok());
    number(from)??;
    number(to)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_read_as_it_was_written() {
        let topic = Some(TopicId::new());
        for (topic, is_named) in [(None, false), (topic, false), (topic, true)] {
            let kept = Kept { mark: Mark { next: 7, topic }, is_named };
            assert_eq!(Kept::read(&kept.to_string()), Some(kept));
            let name = Kept { mark: Mark { next: 9, topic }, is_named }.file(Some(Mark::at(3)), "jsonl");
            assert_eq!((end(&name, &kept.suffix()), kept.suffix().is_empty()), (Some(9), !is_named), "{name}");
            assert_eq!(end(&name, "-other"), None);
        }
        for text in ["", "x", "7 no", "7  ", "7 AAAAAAAAAAAAAAAAAAAAAQ no"] {
            assert_eq!(Kept::read(text), None, "{text}");
        }
    }

    #[test]
    fn names_tell_ranges() {
        assert_eq!(end("00000000000000000000-00000000000000000007.jsonl", ""), Some(7));
        assert_eq!(end("00000000000000000000-18446744073709551615.parquet", ""), Some(u64::MAX));
        for other in ["0-7.jsonl", "00000000000000000000-00000000000000000007", "notes.txt", ".next", "-.x", ""] {
            assert_eq!(end(other, ""), None, "{other}");
        }
    }
}
