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
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let bar = paint("1;34", "|");
        let mut out = format!("{}{}\n", paint(hue, word), paint("1", &format!(": {}", self.message)));
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
        if let (None, Some(help)) = (beside, &self.help) {
            let mut lines = help.lines();
            let first = lines.next().unwrap_or_default();
            out.push_str(&format!("\n{gutter} {} {}: {first}", paint("1;34", "="), paint("1", "help")));
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

    fn diagnostic(&self, severity: Severity, message: String) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.text.file().to_owned(),
            line: self.line,
            column: self.column,
            length: self.length,
            message,
            help: None,
            source_line: self.text.line(self.line).to_owned(),
        }
    }
}

impl Diagnostic {
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
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
