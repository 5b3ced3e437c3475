//! A model of convergence: the real stages of several processes, over topics, a graph and an index that are made of memory, on a
//! clock that stands still while somebody works. Whatever happens at random, at rest the index equals the database.
//!
//! A world is made of its seed alone: the same seed is the same schedule. `MODEL_SEED=n` runs one world and tells what it does;
//! `MODEL_WORLDS=n` says how many are run.

mod graph;
mod process;
mod random;
mod store;
mod topics;
mod truth;
mod world;

use world::{World, Wrong};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs worlds until one goes wrong.
fn first_wrong(worlds: u64) -> Option<(u64, Wrong)> {
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_WORLDS").unwrap_or(worlds),
    };
    let only_one = seeds.end == seeds.start + 1;
    seeds.into_iter().find_map(|seed| Some((seed, World::run(seed, only_one).err()?)))
}

#[test]
fn at_rest_the_index_equals_the_database() {
    if let Ok(n) = std::env::var("MODEL_COUNT") {
        let n: u64 = n.parse().expect("n");
        for seed in 0..n {
            if let Err(wrong) = World::run(seed, false) {
                println!("SEED {seed} {} steps: {}", wrong.steps, wrong.what);
            }
        }
        return;
    }
    if let Some((seed, wrong)) = first_wrong(300) {
        panic!("MODEL_SEED={seed}, after {} steps: {}", wrong.steps, wrong.what);
    }
}
