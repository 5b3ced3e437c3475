//! Why a request was not answered, by whom that may be blamed on.

/// Why a request was not answered. Each holds a sentence: place, cause, remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The service is away, which says nothing about what was asked for.
    Away(String),
    /// It asked to be left alone for a while, which is no fact about what was asked for.
    Throttled(String),
    /// It was not asked, for it is to be left alone.
    LeftAlone(String),
    /// It refuses us, or is not where it is looked for. Somebody has to do something.
    Refused(String),
    /// It does not take the request as it is. One that asks for less may be taken.
    Unfit(String),
    /// The same, and because of how much was asked for.
    TooMuch(String),
    /// It failed by taking too long: because of what was asked for, or how much, or for whatever is asked.
    TooSlow(String),
    /// It failed: because of what was asked for, or for whatever is asked.
    Doubtful(String),
    /// It failed for a single key, and says so; unless it does for every key, it is that key's.
    Erred(String),
}

impl Trouble {
    /// What metrics call it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Throttled(_) => "throttled",
            Self::LeftAlone(_) => "left_alone",
            Self::Refused(_) => "refused",
            Self::Unfit(_) => "unfit",
            Self::TooMuch(_) => "too_much",
            Self::TooSlow(_) => "too_slow",
            Self::Doubtful(_) | Self::Erred(_) => "failed",
        }
    }
}
