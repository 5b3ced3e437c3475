//! Who was served by the graph lately, to be asked for again where an answer may be an outage's. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tributary_dsl::plan::{FanOutPlan, IndexPlan};
use tributary_event::ErrorClass;

use crate::graph::{Fetched, GraphError, Vertex};

/// Ids that are remembered of each index and type.
pub const WITNESSES: usize = 64;
/// Those of them that are asked for at a time.
const ASKED: usize = 4;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Documents of an index.
    Documents,
    /// Parents of vertices of a type.
    Parents,
}

/// Whom a call was about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Whom {
    pub kind: Kind,
    /// The index, or the type.
    pub name: String,
    /// The type of those who were asked for.
    pub type_name: String,
}

impl Whom {
    pub fn documents(index: &IndexPlan) -> Self {
        Self { kind: Kind::Documents, name: index.name.clone(), type_name: index.root_type.clone() }
    }

    pub fn children(plan: &FanOutPlan) -> Self {
        Self { kind: Kind::Parents, name: plan.type_name.clone(), type_name: plan.type_name.clone() }
    }
}

/// What the graph said of one id.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word<'a> {
    /// It is there, or has parents: the graph serves.
    Found,
    /// It is not there, or has no parents.
    Nothing,
    /// Something else about this one, which says little about others.
    Other,
    /// It failed, which may be anybody's fault.
    Failed(&'a GraphError),
}

impl<'a> Word<'a> {
    fn failure(error: &'a GraphError) -> Self {
        if error.class == ErrorClass::Definite { Self::Other } else { Self::Failed(error) }
    }

    pub fn of_fetched(fetched: &'a Fetched) -> Self {
        match fetched {
            Fetched::Found(_) => Self::Found,
            Fetched::Missing => Self::Nothing,
            Fetched::Failed(error) | Fetched::Waits(error) => Self::failure(error),
        }
    }

    pub fn of_parents(parents: &'a Result<Vec<Vertex>, GraphError>) -> Self {
        match parents {
            Ok(parents) if parents.is_empty() => Self::Nothing,
            Ok(_) => Self::Found,
            Err(error) => Self::failure(error),
        }
    }
}

/// The words of one call.
pub(super) struct Words<'w, 'a>(pub &'w [Word<'a>]);

impl<'a> Words<'_, 'a> {
    /// Whether anything was found.
    pub fn found(&self) -> bool {
        self.0.iter().any(|word| matches!(word, Word::Found))
    }

    /// Whether anything is not there.
    pub fn nothing(&self) -> bool {
        self.0.iter().any(|word| matches!(word, Word::Nothing))
    }

    /// A failure, a refusal rather than another.
    pub fn failure(&self) -> Option<&'a GraphError> {
        let failures =
            self.0.iter().filter_map(|word| if let Word::Failed(error) = word { Some(*error) } else { None });
        failures.max_by_key(|error| error.class == ErrorClass::Fatal)
    }
}

/// Who was served.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    /// Those found, the last one first.
    found: BTreeMap<Whom, VecDeque<String>>,
    /// Vertices that were answered without an error, with parents or without.
    answered: BTreeMap<Whom, VecDeque<String>>,
    /// Since when nobody is found.
    denied: BTreeMap<Whom, Instant>,
}

impl Witnesses {
    /// Takes in what a call said. Who is not there any more bears no witness.
    pub fn learn(&mut self, whom: &Whom, ids: &[String], words: &[Word<'_>]) {
        let with = |wanted: fn(&Word<'_>) -> bool| words_of(ids, words, wanted).take(WITNESSES).collect::<Vec<_>>();
        if let Some(found) = self.found.get_mut(whom) {
            let gone: Vec<&String> = words_of(ids, words, |word| matches!(word, Word::Nothing)).collect();
            found.retain(|known| !gone.contains(&known));
        }
        let found = with(|word| matches!(word, Word::Found));
        if !found.is_empty() {
            self.believe(whom);
        }
        let known = self.found.entry(whom.clone()).or_default();
        found.into_iter().for_each(|id| push(known, id));
        if whom.kind == Kind::Parents {
            let known = self.answered.entry(whom.clone()).or_default();
            with(|word| matches!(word, Word::Found | Word::Nothing)).into_iter().for_each(|id| push(known, id));
        }
    }

    /// Documents that an index has already.
    pub fn remember(&mut self, index: &Whom, documents: &[String]) {
        let found = self.found.entry(index.clone()).or_default();
        documents.iter().for_each(|id| push(found, id));
    }

    /// Some who were served, other than those that were asked for now; next time they are the last to be asked. `answered`: it
    /// does not matter whether they were found.
    pub fn others(&mut self, whom: &Whom, ids: &[String], answered: bool) -> Vec<String> {
        let known = if answered && whom.kind == Kind::Parents { &mut self.answered } else { &mut self.found };
        let Some(known) = known.get_mut(whom) else { return Vec::new() };
        let others: Vec<String> = known.iter().filter(|id| !ids.contains(id)).take(ASKED).cloned().collect();
        known.retain(|id| !others.contains(id));
        known.extend(others.iter().cloned());
        others
    }

    /// All who were served, the last one first.
    pub fn served(&self, whom: &Whom) -> Vec<String> {
        let known = if whom.kind == Kind::Parents { &self.answered } else { &self.found };
        known.get(whom).into_iter().flatten().cloned().collect()
    }

    /// Since how long nobody is found, who was before.
    pub fn disbelief(&mut self, whom: &Whom, now: Instant) -> Duration {
        now - *self.denied.entry(whom.clone()).or_insert(now)
    }

    /// What is said is true.
    pub fn believe(&mut self, whom: &Whom) {
        self.denied.remove(whom);
    }

    /// These are not there any more.
    pub fn forget(&mut self, whom: &Whom, ids: &[String]) {
        if let Some(found) = self.found.get_mut(whom) {
            found.retain(|known| !ids.contains(known));
        }
    }

    /// Rows that vertices come from were deleted, or all of types. Who is gone, or may have lost its parents, bears no witness.
    pub fn deleted(&mut self, vertices: &BTreeSet<Vertex>, emptied: &BTreeSet<String>) {
        for (whom, found) in &mut self.found {
            if emptied.contains(&whom.type_name) {
                found.clear();
            }
            found.retain(|id| !vertices.contains(&Vertex::new(&whom.type_name, id)));
        }
    }
}

/// The ids of which a word was said, the last one first.
fn words_of<'i>(
    ids: &'i [String],
    words: &'i [Word<'_>],
    wanted: fn(&Word<'_>) -> bool,
) -> impl Iterator<Item = &'i String> {
    ids.iter().zip(words).rev().filter(move |(_, word)| wanted(word)).map(|(id, _)| id)
}

fn push(known: &mut VecDeque<String>, id: &str) {
    known.retain(|other| other != id);
    known.push_front(id.to_owned());
    known.truncate(WITNESSES);
}
