//! What of a service's answers is told in messages: their beginning, on one line, without what we sent as a secret.

use std::collections::BTreeSet;

use tributary_dsl::plan::Secret;

/// So many characters of an answer are told.
const MOST: usize = 200;
/// Shorter words of secrets (`Basic`) are no secrets, and would be found everywhere.
const SHORTEST: usize = 6;
/// So much of an answer is looked at. More than is told, for a secret may begin before the end of that.
const LOOKED_AT: usize = 16 * 1024;

/// What is never told.
pub(crate) struct Secrets(Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// The values of headers and their words, and other text.
    pub(crate) fn new<'s>(headers: impl Iterator<Item = &'s Secret>, others: impl Iterator<Item = String>) -> Self {
        let whole = headers.map(|secret| secret.reveal().to_owned()).chain(others);
        let words: BTreeSet<String> = whole
            .flat_map(|text| {
                let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
                words.push(text);
                words
            })
            .filter(|word| word.len() >= SHORTEST)
            .collect();
        let mut words: Vec<String> = words.into_iter().collect();
        // What another one is a part of comes first.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        Self(words)
    }

    /// The beginning of an answer, fit to be printed.
    pub(crate) fn excerpt(&self, answer: &[u8]) -> String {
        let seen = answer.get(..LOOKED_AT).unwrap_or(answer);
        let mut text = String::from_utf8_lossy(seen).into_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), "***");
            }
        }
        let mut told: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
        told.retain(|c| !c.is_control());
        match told.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", told.get(..end).unwrap_or_default()),
            None if told.is_empty() => "nothing".to_owned(),
            None => told,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_told_on_one_line_without_secrets() {
        let headers = [Secret::new("Bearer abc-123-def"), Secret::new("x")];
        let secrets = Secrets::new(headers.iter(), ["hunter22".to_owned()].into_iter());
        let told = secrets.excerpt(b"no\n\x1b[31m  token abc-123-def, \"Bearer abc-123-def\", hunter22 x\xff");
        assert_eq!(told, "no [31m token ***, \"***\", *** x\u{fffd}");
        assert_eq!(secrets.excerpt(b" \n"), "nothing");
        let long = secrets.excerpt("é".repeat(MOST + 1).as_bytes());
        assert_eq!((long.chars().count(), long.ends_with('…')), (MOST + 1, true));
        let cut = format!("{}abc-123-def", "é".repeat(MOST - 3));
        assert!(!secrets.excerpt(cut.as_bytes()).contains("abc"));
        assert!(!format!("{secrets:?}").contains("abc"));
    }
}
