//! What is wrong with a text, where, and what to do about it; printed as `rustc` prints.

use std::fmt;
use std::sync::Arc;

use crate::text::SourceText;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The pipeline cannot run.
    Error,
    /// The pipeline can run, but perhaps not as meant.
    Warning,
    /// Only a person can know whether anything is wrong.
    Note,
}

/// One finding, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named by the caller or in the pipeline.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters to mark, at least 1.
    pub length: usize,
    /// The cause.
    pub message: String,
    /// What was seen that shows it, a line each.
    pub notes: Vec<String>,
    /// The remedy.
    pub help: Option<String>,
    /// The line itself, with anything that looks like a secret masked.
    pub source_line: String,
}

impl Diagnostic {
    /// Whether it forbids running the pipeline.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The text for people; with terminal colours if asked for.
    pub fn render(&self, color: bool) -> String {
        let paint = |code: &str, text: &str| {
            if color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
        };
        let (word, hue) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
            Severity::Note => ("note", "1;36"),
        };
        let out = format!("{}{}", paint(hue, word), paint("1", &format!(": {}", self.message)));
        self.shown(out, hue, &paint)
    }

    /// The text without the word for how bad it is, for where that is said already.
    pub fn untitled(&self) -> String {
        self.shown(self.message.clone(), "", &|_, text| text.to_owned())
    }

    /// Message and remedy in one line, with the place before them: for logs.
    pub fn line(&self) -> String {
        let place = if self.file.is_empty() { String::new() } else { format!("{}:{}: ", self.file, self.line) };
        let more = self.notes.iter().map(String::as_str).chain(self.help.iter().flat_map(|help| help.lines()));
        let more: String = more.map(|line| format!("; {}", line.trim())).collect();
        format!("{place}{}{more}", self.message)
    }

    /// What follows the message: the place, what was seen, and the remedy.
    fn shown(&self, mut out: String, hue: &str, paint: &dyn Fn(&str, &str) -> String) -> String {
        out.push('\n');
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let bar = paint("1;34", "|");
        let equals = paint("1;34", "=");
        if self.file.is_empty() {
            self.notes.iter().for_each(|note| out.push_str(&format!(" {equals} {}: {note}\n", paint("1", "note"))));
            self.help.iter().for_each(|help| out.push_str(&format!(" {equals} {}: {help}", paint("1", "help"))));
            return out.trim_end().to_owned();
        }
        out.push_str(&format!("{gutter}{} {}:{}:{}\n", paint("1;34", "-->"), self.file, self.line, self.column));
        out.push_str(&format!("{gutter} {bar}\n"));
        let line = self.source_line.trim_end();
        out.push_str(&format!("{} {bar} {line}\n", paint("1;34", &number)));
        // Tabs stay tabs, so that the caret stands below its text.
        let before: String = (0..self.column.saturating_sub(1))
            .map(|i| if line.chars().nth(i) == Some('\t') { '\t' } else { ' ' })
            .collect();
        let mut carets = "^".repeat(self.length.max(1));
        let beside = self.help.as_deref().filter(|help| !help.contains('\n') && help.chars().count() <= 60);
        if let Some(help) = beside {
            carets = format!("{carets} {help}");
        }
        out.push_str(&format!("{gutter} {bar} {before}{}", paint(hue, &carets)));
        for note in &self.notes {
            out.push_str(&format!("\n{gutter} {equals} {}: {note}", paint("1", "note")));
        }
        if let (None, Some(help)) = (beside, &self.help) {
            let mut lines = help.lines();
            let first = lines.next().unwrap_or_default();
            out.push_str(&format!("\n{gutter} {equals} {}: {first}", paint("1", "help")));
            for line in lines {
                out.push_str(&format!("\n{gutter}         {line}"));
            }
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl PartialEq for Spot {
    fn eq(&self, other: &Self) -> bool {
        let place = |spot: &Self| (spot.line, spot.column, spot.length);
        Arc::ptr_eq(&self.text, &other.text) && place(self) == place(other)
    }
}

impl Eq for Spot {}

/// A stretch of one line of a text.
#[derive(Debug, Clone)]
pub(crate) struct Spot {
    pub text: Arc<SourceText>,
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

impl Spot {
    /// A stretch; what is outside of the text is brought back into it.
    pub fn new(text: &Arc<SourceText>, line: usize, column: usize, length: usize) -> Self {
        let line = line.clamp(1, text.line_count());
        let width = text.line(line).trim_end().chars().count();
        let column = column.clamp(1, width + 1);
        let length = length.clamp(1, (width + 1).saturating_sub(column).max(1));
        Self { text: Arc::clone(text), line, column, length }
    }

    /// An error here.
    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Error, message.into())
    }

    /// A warning here.
    pub fn warning(&self, message: impl Into<String>) -> Diagnostic {
        self.diagnostic(Severity::Warning, message.into())
    }

    pub fn diagnostic(&self, severity: Severity, message: String) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.text.file().to_owned(),
            line: self.line,
            column: self.column,
            length: self.length,
            message,
            notes: Vec::new(),
            help: None,
            source_line: self.text.line(self.line).to_owned(),
        }
    }
}

impl Diagnostic {
    /// What is wrong with something that is written nowhere.
    pub(crate) fn nowhere(severity: Severity, message: String) -> Self {
        Self {
            severity,
            file: String::new(),
            line: 0,
            column: 1,
            length: 1,
            message,
            notes: Vec::new(),
            help: None,
            source_line: String::new(),
        }
    }

    /// With a remedy.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With something that was seen.
    #[must_use]
    pub fn seen(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    pub(crate) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// By file (in the order of first mention), line and column; what was found twice at one place is said once.
pub(crate) fn sorted(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut files: Vec<String> = Vec::new();
    for diagnostic in &found {
        if !files.contains(&diagnostic.file) {
            files.push(diagnostic.file.clone());
        }
    }
    let rank = |d: &Diagnostic| files.iter().position(|f| *f == d.file);
    found.sort_by_key(|d| (rank(d), d.line, d.column, d.severity));
    found.dedup();
    found
}
