//! A text as it may be shown: its lines, with anything that looks like a secret masked, character by character, so that
//! columns stay where they are.

/// A file's name and its lines.
#[derive(Debug)]
pub(crate) struct SourceText {
    file: String,
    /// The number of the first line, less one.
    before: usize,
    lines: Vec<String>,
}

/// Parts of a key that say that its value is not for print.
const SECRET_KEYS: [&str; 7] = ["password", "secret", "token", "key", "authorization", "credential", "cookie"];

/// Whether the value of a key is not for print, as its name says.
pub(crate) fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    // `keys` are those of tables, and a `key` alone is that of a record or a row.
    let is_none = key.contains('/') || key == "keys" || key == "key";
    SECRET_KEYS.iter().any(|part| key.contains(part)) && !is_none
}

impl SourceText {
    /// The text of a GraphQL file: nothing in it is secret.
    pub fn plain(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), before: 0, lines: lines(text) }
    }

    /// The text of a pipeline: passwords in URLs and values of keys such as `password` are masked.
    pub fn masked(file: &str, text: &str) -> Self {
        let lines = lines(text).iter().map(|line| mask_values(&mask_urls(line))).collect();
        Self { file: file.to_owned(), before: 0, lines }
    }

    /// The same text, which begins at a line of its file.
    pub fn beginning_at(self, number: usize) -> Self {
        Self { before: number.saturating_sub(1), ..self }
    }

    /// Masks a stretch as well: from a place (line and column, from 1) to before another.
    pub fn mask(&mut self, from: (usize, usize), to: (usize, usize)) {
        for number in from.0..=to.0 {
            let Some(line) = self.lines.get_mut(number.wrapping_sub(1 + self.before)) else { continue };
            let start = if number == from.0 { from.1.saturating_sub(1) } else { 0 };
            let end = if number == to.0 { to.1.saturating_sub(1) } else { usize::MAX };
            *line = stars(line, start, end);
        }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn line_count(&self) -> usize {
        self.before + self.lines.len().max(1)
    }

    /// A line, from 1.
    pub fn line(&self, number: usize) -> &str {
        self.lines.get(number.wrapping_sub(1 + self.before)).map_or("", String::as_str)
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

/// Masks characters (not bytes) of a line, but for spaces and for `${VARIABLE}`, which is no secret itself.
fn stars(line: &str, start: usize, end: usize) -> String {
    let mut variable = false;
    let chars: Vec<char> = line.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        variable = variable || (*c == '$' && chars.get(i + 1) == Some(&'{'));
        let keep = i < start || i >= end || variable || c.is_whitespace() || matches!(c, '"' | '\'');
        out.push(if keep { *c } else { '*' });
        // A default (`${A:-hunter2}`) is written in the text, and may be secret.
        if variable && (*c == '}' || *c == ':') {
            variable = false;
        }
    }
    out
}

/// `scheme://user:password@host`: the password.
fn mask_urls(line: &str) -> String {
    let mut out = line.to_owned();
    let mut from = 0;
    while let Some(at) = out.get(from..).and_then(|rest| rest.find("://")).map(|at| at + from + 3) {
        from = at;
        let rest = &out[at..];
        let authority = rest.find(|c: char| c == '/' && !rest.contains('@') || c.is_whitespace()).unwrap_or(rest.len());
        let Some(host) = rest[..authority].rfind('@') else { continue };
        let Some(password) = rest[..host].find(':') else { continue };
        let chars = |to: usize| out[..to].chars().count();
        out = stars(&out, chars(at + password + 1), chars(at + host));
    }
    out
}

/// `password: value`: the value, to the end of the line or, inside of braces, to the comma.
fn mask_values(line: &str) -> String {
    let mut out = line.to_owned();
    let lower = line.to_ascii_lowercase();
    for (colon, _) in lower.match_indices(':') {
        let key = lower[..colon].rsplit(|c: char| c.is_whitespace() || "{,[".contains(c)).next().unwrap_or_default();
        let key = key.trim_matches(['"', '\'']);
        let value = &line[colon + 1..];
        if !is_secret(key) || !(value.is_empty() || value.starts_with([' ', '\t'])) {
            continue;
        }
        let flow = lower[..colon].contains('{');
        let end = if flow { value.find([',', '}']).unwrap_or(value.len()) } else { value.len() };
        let chars = |to: usize| line[..to].chars().count();
        let file = key.ends_with("_file");
        if !file {
            out = stars(&out, chars(colon + 1), chars(colon + 1 + end));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_in_place() {
        let shown = |line: &str| SourceText::masked("f", line).line(1).to_owned();
        assert_eq!(shown("keys: { public.movie: [id] }"), "keys: { public.movie: [id] }");
        assert_eq!(shown("url: postgres://u:hunter2@h/d"), "url: postgres://u:*******@h/d");
        assert_eq!(shown("url: postgres://u:a/b@h/d"), "url: postgres://u:***@h/d");
        assert_eq!(shown("url: http://h:9200/d"), "url: http://h:9200/d");
        assert_eq!(shown("{ password: hunter2, shards: 1 }"), "{ password: *******, shards: 1 }");
        assert_eq!(shown("{ key: .after.id }"), "{ key: .after.id }");
        assert_eq!(shown("X-Api-Key: \"ab c\""), "X-Api-Key: \"** *\"");
        assert_eq!(shown("password: ${PW}"), "password: ${PW}");
        assert_eq!(shown("password: ${PW:-hunter2}"), "password: ${PW:*********");
        assert_eq!(shown("password_file: pw.txt"), "password_file: pw.txt");
        assert_eq!(shown("passwörd: é # api_key: ü"), "passwörd: é # api_key: *");
    }

    #[test]
    fn stretches_are_masked() {
        let mut text = SourceText::masked("f", "headers:\n  x: abc\n    def\n");
        text.mask((2, 6), (3, 7));
        assert_eq!(text.line(2), "  x: ***");
        assert_eq!(text.line(3), "    **f");
    }
}
