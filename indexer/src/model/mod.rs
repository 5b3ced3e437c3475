//! A model of convergence: the real stages of several processes, over topics, a graph and an index that are made of memory, on a
//! clock that stands still while somebody works. Whatever happens at random, at rest the index equals the database.
//!
//! A world is made of its seed alone: the same seed is the same schedule. `MODEL_SEED=n` runs one world and tells what it does;
//! `MODEL_WORLDS=n` says how many are run. A mutant is a world without one of the rules that convergence rests on: some world of
//! few must go wrong, or the rule is not needed, or the model does not see what it is for.

#![allow(clippy::print_stdout)]

pub(crate) mod graph;
pub(crate) mod process;
pub(crate) mod random;
mod store;
pub(crate) mod topics;
pub(crate) mod truth;
pub(crate) mod world;

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

/// Runs worlds without a rule until one goes wrong, from a seed on that is known to be near one.
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
fn without_barriers_late_writes_win() {
    is_needed(Rule::Barrier, 210);
}

#[test]
#[ignore = "it takes minutes, for such worlds are rare: run it when what it is about is changed"]
fn without_doubt_earlier_owners_win() {
    is_needed(Rule::Doubt, 0);
}
