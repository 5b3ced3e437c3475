//! How far the listing of an index is, and under which plan: a record on the board, and what is decided by it.

use serde::{Deserialize, Serialize};

use crate::listing::fingerprint::Fingerprint;
use crate::store::Prepared;

/// Plans that are remembered as replaced, at most.
const EARLIER: usize = 16;

/// How far the listing of an index's roots is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Counts the states of the index.
    pub revision: u64,
    /// Counts the listings of the index.
    pub number: u64,
    /// Who lists; none: whoever comes first.
    pub by: Option<String>,
    /// The plan that its documents are built by, and its changes resolved by; none before any process knew one.
    pub plan: Option<Fingerprint>,
    /// Digests of plans that were replaced, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<String>,
    /// The process in whose folder the documents are, where the store is embedded and the transport is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Where the next page starts.
    pub after: Option<String>,
    /// Ids asked for.
    pub listed: u64,
    /// Whether all were.
    pub complete: bool,
    /// Whether the roots are done, and the documents of the index are being listed.
    pub documents: bool,
    /// Whether the index was empty when this began.
    pub new_index: bool,
    /// When it begins, in microseconds since the Unix epoch: documents that it asks for are fetched when the graph shows whatever
    /// happened before that.
    pub begun_us: i64,
    /// Why every document is built again, where nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// A process has run the pipeline without the index, which then heard of no doubts, and whose needs nobody checked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// What a process is to an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Party {
    /// Names the process among others of the pipeline.
    pub instance: String,
    /// The plan that it runs.
    pub plan: Fingerprint,
    /// Whether the documents are in its own folder, though others may share the transport.
    pub is_home: bool,
}

/// Whether a process may work on an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It may.
    Free,
    /// If no process is there that works by the plan which the state names: its own was replaced by that one.
    Replaced,
    /// If no process is there in whose folder the documents are, which is this one's.
    Elsewhere(String),
}

impl Listing {
    /// The listing after this one, which begins now and is nobody's yet.
    pub(super) fn next(before: Option<&Self>, new_index: bool, why: Option<String>, now_us: i64) -> Self {
        let kept = before.cloned().unwrap_or_default();
        Self {
            number: kept.number + 1,
            plan: kept.plan,
            earlier: kept.earlier,
            home: kept.home,
            new_index,
            why,
            begun_us: now_us,
            left: kept.left,
            ..Self::default()
        }
    }

    /// Whether this process works by another plan, or in another folder, than the state says; and how that differs.
    pub(super) fn differs(&self, party: &Party) -> Option<String> {
        if let Some(plan) = self.plan.as_ref().filter(|plan| **plan != party.plan) {
            return Some(plan.difference(&party.plan));
        }
        let is_elsewhere = party.is_home && self.home.as_ref().is_some_and(|home| *home != party.instance);
        is_elsewhere.then(|| "its documents are in another folder".to_owned())
    }

    /// Whether a process may work on the index that has this state.
    pub(super) fn claim(&self, party: &Party) -> Claim {
        match &self.home {
            Some(home) if party.is_home && *home != party.instance => return Claim::Elsewhere(home.clone()),
            _ => {}
        }
        let is_other = self.plan.as_ref().is_some_and(|plan| *plan != party.plan);
        if is_other && self.earlier.contains(&party.plan.digest()) { Claim::Replaced } else { Claim::Free }
    }
}

/// The listing that begins when a process has made an index ready, if one must. `documents`: how many the index holds.
/// `now_us`: the present moment; `handover_us`: how long processes of another plan may still work.
pub(super) fn opening(
    state: Option<&Listing>,
    party: &Party,
    (prepared, documents): (Prepared, u64),
    (now_us, handover_us): (i64, i64),
) -> Option<Listing> {
    let is_new = prepared == Prepared::Created;
    // An index that should have documents and has none was created anew and its process died right then, or was emptied.
    let emptied = documents == 0 && state.is_some_and(|l| l.complete && l.listed > 0);
    // Nor does one that never had any show that the graph knew its roots once.
    let never_built = documents == 0 && state.is_some_and(|l| l.listed == 0);
    let why = state.and_then(|state| match &state.plan {
        None => Some("it is not known by which plan its documents were built".to_owned()),
        Some(plan) if *plan != party.plan => Some(party.plan.difference(plan)),
        Some(_) => state.differs(party).or_else(|| {
            let text = "it was out of the pipeline for a while, in which rows may have changed without events";
            state.left.then(|| text.to_owned())
        }),
    });
    if state.is_some() && !is_new && !emptied && why.is_none() {
        return None;
    }
    let next = Listing::next(state, is_new || emptied || never_built, why, now_us);
    let mut next = Listing { left: false, ..next };
    if let Some(other) = next.plan.replace(party.plan.clone()).filter(|plan| *plan != party.plan) {
        next.earlier.retain(|digest| *digest != party.plan.digest());
        next.earlier.push(other.digest());
        let first = next.earlier.len().saturating_sub(EARLIER);
        next.earlier.drain(..first);
        // What those build and resolve until they hear of this is listed once more.
        next.begun_us += handover_us;
    }
    next.home = party.is_home.then(|| party.instance.clone());
    next.by = Some(party.instance.clone());
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(instance: &str, plan: &str) -> Party {
        let plan = serde_json::from_value(serde_json::json!({ "its query": plan })).expect("a fingerprint");
        Party { instance: instance.to_owned(), plan, is_home: false }
    }

    fn complete(listing: Listing) -> Listing {
        Listing { complete: true, listed: 5, ..listing }
    }

    const EXISTING: (Prepared, u64) = (Prepared::Existing, 5);

    #[test]
    fn a_listing_begins_where_there_is_none_or_the_index_is_new_or_was_emptied() {
        let me = party("a", "q");
        let first = opening(None, &me, (Prepared::Created, 0), (0, 9)).expect("a listing");
        assert!(first.new_index && first.plan.as_ref() == Some(&me.plan) && first.why.is_none());
        let state = complete(first);
        assert_eq!(opening(Some(&state), &me, EXISTING, (0, 9)), None);
        for prepared in [(Prepared::Created, 0), (Prepared::Existing, 0)] {
            let again = opening(Some(&state), &me, prepared, (0, 9)).expect("a listing");
            assert!(again.new_index && !again.complete && again.number == 2);
        }
        // Another plan, before any root was ever listed: nothing is known of the roots, and a wrong rule must not wait for better times.
        let unlisted = Listing { listed: 0, complete: false, ..state };
        let again = opening(Some(&unlisted), &party("a", "other"), (Prepared::Existing, 0), (0, 9)).expect("a listing");
        assert!(again.new_index);
        assert!(!opening(Some(&unlisted), &party("a", "other"), EXISTING, (0, 9)).expect("a listing").new_index);
    }

    #[test]
    fn another_plan_lists_anew_says_why_and_waits_for_the_former() {
        let (old, new) = (party("a", "old"), party("b", "new"));
        let state = complete(opening(None, &old, EXISTING, (0, 9)).expect("a listing"));
        let next = opening(Some(&state), &new, EXISTING, (7, 60)).expect("a listing");
        assert_eq!(next.why.as_deref(), Some("its query changed"));
        assert_eq!(next.begun_us, 67);
        assert_eq!((state.claim(&new), next.claim(&old)), (Claim::Free, Claim::Replaced));
        assert!(next.differs(&old).is_some() && next.differs(&new).is_none());
        let back = opening(Some(&next), &old, EXISTING, (0, 0)).expect("a listing");
        assert_eq!((back.claim(&new), back.claim(&old)), (Claim::Replaced, Claim::Free));
        assert_eq!(back.earlier, vec![new.plan.digest()]);
    }

    #[test]
    fn an_index_that_was_out_of_the_pipeline_is_listed_once_when_it_is_back() {
        let me = party("a", "q");
        let state = complete(opening(None, &me, EXISTING, (0, 0)).expect("a listing"));
        let left = Listing { left: true, ..state };
        // A doubt, and a whole listing by a process that still has it, do not end that.
        let doubted = complete(Listing::next(Some(&left), false, None, 3));
        let back = opening(Some(&doubted), &me, EXISTING, (7, 9)).expect("a listing");
        assert!(back.why.as_ref().is_some_and(|why| why.contains("out of the pipeline")), "{:?}", back.why);
        assert!(!back.left && !back.complete && back.begun_us == 7);
        assert_eq!(opening(Some(&complete(back)), &me, EXISTING, (8, 9)), None);
    }

    #[test]
    fn documents_in_another_folder_are_claimed_only_if_nobody_keeps_them() {
        let of = |instance| Party { is_home: true, ..party(instance, "q") };
        let state = complete(opening(None, &of("a"), EXISTING, (0, 0)).expect("a listing"));
        assert_eq!((state.claim(&of("a")), state.claim(&of("b"))), (Claim::Free, Claim::Elsewhere("a".into())));
        let moved = opening(Some(&state), &of("b"), EXISTING, (0, 0)).expect("a listing");
        assert!(moved.differs(&of("a")).is_some());
    }
}
