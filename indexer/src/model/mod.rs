//! A model of convergence: the real stages of several processes, over topics, a graph and an index that are made of memory, on a
//! clock that stands still while somebody works. Whatever happens at random, at rest the index equals the database.
//!
//! A world is made of its seed alone: the same seed is the same schedule. `MODEL_SEED=n` runs one world and tells what it does;
//! `MODEL_WORLDS=n` says how many are run; `MODEL_TRACE` prints what is appended when. A mutant is a world without one of the rules that convergence rests on: some world of
//! few must go wrong, or the rule is not needed, or the model does not see what it is for.

#![allow(clippy::print_stdout)]

pub(crate) mod graph;
pub(crate) mod multitude;
pub(crate) mod process;
pub(crate) mod random;
mod store;
pub(crate) mod topics;
pub(crate) mod truth;
pub(crate) mod world;

use std::time::Duration;

use world::{World, Wrong};

use crate::context::{MUTANT, Rule};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs worlds, from a seed on, until one goes wrong.
fn first_wrong(first: u64, worlds: u64) -> Option<(u64, Wrong)> {
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("MODEL_FIRST").unwrap_or(first);
            first..first + number("MODEL_WORLDS").unwrap_or(worlds)
        }
    };
    let only_one = seeds.end == seeds.start + 1;
    seeds.into_iter().find_map(|seed| Some((seed, World::run(seed, only_one).err()?)))
}

#[test]
fn at_rest_the_index_equals_the_database() {
    if let Some((seed, wrong)) = first_wrong(0, 100) {
        panic!("MODEL_SEED={seed}, after {} steps: {}", wrong.steps, wrong.what);
    }
}

/// A seed is a schedule: of two runs of it each record is appended at the same moment.
#[test]
fn a_seed_goes_the_same_way_twice() {
    for seed in 0..6 {
        let [one, other] = [0, 1].map(|_| World::run(seed, false).ok());
        assert_eq!(one, other, "MODEL_SEED={seed}");
    }
}

/// A process that builds by a clock which is three seconds ahead, and asks nobody for anything, is found.
#[test]
fn a_clock_that_is_ahead_is_found() {
    let why = World::clocks(1, Duration::from_secs(3)).expect("it is found");
    assert!(why.contains("behind that of process 3") && why.contains("NTP"), "{why}");
    assert_eq!(World::clocks(1, Duration::from_millis(900)), None);
}

/// Runs worlds without a rule until one goes wrong, from the seed of one on that did: whatever changes the schedules moves it.
fn is_needed(rule: Rule, near: u64) {
    MUTANT.set(Some(rule));
    let found = first_wrong(near, 10_000);
    MUTANT.set(None);
    let (seed, wrong) = found.unwrap_or_else(|| panic!("without {rule:?} nothing went wrong"));
    println!("without {rule:?}: MODEL_SEED={seed}, after {} steps: {}", wrong.steps, wrong.what);
}

#[test]
fn without_the_last_look_documents_miss_changes() {
    is_needed(Rule::Settle, 300);
}

#[test]
fn without_the_late_look_documents_miss_what_the_graph_did_not_show() {
    is_needed(Rule::LateLook, 1152);
}

#[test]
fn without_barriers_late_writes_win() {
    is_needed(Rule::Barrier, 264);
}

#[test]
fn without_doubt_earlier_owners_win() {
    is_needed(Rule::Doubt, 2314);
}

#[test]
fn without_another_build_late_writes_are_missed() {
    is_needed(Rule::LateWrite, 196);
}

#[test]
fn without_the_longest_deadline_builds_outlive_the_last_look() {
    is_needed(Rule::Deadlines, 4198);
}

#[test]
fn without_clocks_that_agree_stamps_lie() {
    is_needed(Rule::Clocks, 258);
}
