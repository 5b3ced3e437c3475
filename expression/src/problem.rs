//! What is wrong with a program's text, and where in it.

use vrl::diagnostic::{Diagnostic, DiagnosticList, Note, Severity};

/// Something that is wrong with a program, or perhaps not as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Whether it forbids running the program.
    pub is_error: bool,
    /// The cause.
    pub message: String,
    /// The remedy.
    pub help: Option<String>,
    /// Where it begins in the program's text, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

impl Problem {
    pub(crate) fn all(list: DiagnosticList) -> Vec<Self> {
        list.into_iter().map(|diagnostic| Self::of(&diagnostic)).collect()
    }

    fn of(diagnostic: &Diagnostic) -> Self {
        let label = diagnostic.labels.iter().find(|label| label.primary).or(diagnostic.labels.first());
        let (start, end) = label.map_or((0, 0), |label| (label.span.start(), label.span.end()));
        let about = label.map_or("", |label| label.message.as_str());
        let message = match about {
            "" => diagnostic.message.clone(),
            about => format!("{}: {about}", diagnostic.message),
        };
        // The other labels say what would be right.
        let others = diagnostic.labels.iter().map(|label| label.message.as_str());
        let others = others.filter(|other| !other.is_empty() && *other != about).collect::<Vec<_>>().join(" ");
        let others = Some(others).filter(|others| !others.is_empty());
        let helps: Vec<String> = others.into_iter().chain(diagnostic.notes.iter().filter_map(help)).collect();
        Self {
            is_error: matches!(diagnostic.severity, Severity::Error | Severity::Bug),
            message,
            help: Some(helps.join("\n")).filter(|help| !help.is_empty()),
            start,
            end: end.max(start),
        }
    }
}

/// What a note says to do; most of them only name pages.
fn help(note: &Note) -> Option<String> {
    match note {
        Note::Hint(_) | Note::Example(_) | Note::CoerceValue | Note::Basic(_) => {
            Some(note.to_string().trim().to_owned()).filter(|text| !text.is_empty())
        }
        _ => None,
    }
}
