//! Consumer groups within the process: who reads which partition.
//!
//! Joining and leaving take effect at once; members hear of it in their next delivery. An assignment has a number, and a
//! commit counts only under the number it was read under, so a member that lost a partition cannot move its offset.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::contract::TopicPartition;

/// All groups.
#[derive(Debug, Default)]
pub(super) struct Groups {
    state: Mutex<State>,
    /// How often somebody joined or left.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<String, Group>,
    members: u64,
}

#[derive(Debug, Default)]
struct Group {
    members: BTreeMap<u64, Vec<TopicPartition>>,
    assigned: BTreeMap<TopicPartition, Assignment>,
    number: u64,
}

/// Whose a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    pub member: u64,
    pub number: u64,
}

impl Groups {
    /// Adds a member that reads these partitions, and returns its number.
    pub fn join(&self, group: &str, places: Vec<TopicPartition>) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.members += 1;
        let member = state.members;
        let group = state.groups.entry(group.to_owned()).or_default();
        group.members.insert(member, places);
        group.rebalance();
        self.changes.fetch_add(1, Ordering::Release);
        member
    }

    /// Removes a member.
    pub fn leave(&self, group: &str, member: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = state.groups.get_mut(group) {
            found.members.remove(&member);
            found.rebalance();
            if found.members.is_empty() {
                state.groups.remove(group);
            }
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// How often somebody joined or left. As long as it stays, so do all assignments.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The groups that read a topic now.
    pub fn readers(&self, topic: &str) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = |group: &Group| group.assigned.keys().any(|place| &*place.topic == topic);
        state.groups.iter().filter(|(_, group)| reads(group)).map(|(name, _)| name.clone()).collect()
    }

    /// The partitions of a member, each with the number of its assignment.
    pub fn assigned(&self, group: &str, member: u64) -> BTreeMap<TopicPartition, u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(group) = state.groups.get(group) else { return BTreeMap::new() };
        group.assigned.iter().filter(|(_, a)| a.member == member).map(|(place, a)| (place.clone(), a.number)).collect()
    }
}

impl Group {
    fn rebalance(&mut self) {
        let old = std::mem::take(&mut self.assigned);
        for (place, member) in assign(&self.members, &old) {
            let kept = old.get(&place).filter(|a| a.member == member).copied();
            let assignment = kept.unwrap_or_else(|| {
                self.number += 1;
                Assignment { member, number: self.number }
            });
            self.assigned.insert(place, assignment);
        }
    }
}

/// Shares the partitions among the members that want them: as evenly as may be, and moving as few as may be.
fn assign(
    members: &BTreeMap<u64, Vec<TopicPartition>>,
    old: &BTreeMap<TopicPartition, Assignment>,
) -> BTreeMap<TopicPartition, u64> {
    let mut wanted: BTreeMap<&TopicPartition, Vec<u64>> = BTreeMap::new();
    for (member, places) in members {
        for place in places {
            wanted.entry(place).or_default().push(*member);
        }
    }
    let fair = wanted.len().div_ceil(members.len().max(1));
    let mut load: BTreeMap<u64, usize> = members.keys().map(|m| (*m, 0)).collect();
    let mut assigned = BTreeMap::new();
    for (place, candidates) in &wanted {
        if let Some(owner) = old.get(*place).map(|a| a.member).filter(|m| candidates.contains(m) && load[m] < fair) {
            *load.entry(owner).or_default() += 1;
            assigned.insert((*place).clone(), owner);
        }
    }
    for (place, candidates) in &wanted {
        if !assigned.contains_key(*place)
            && let Some(member) = candidates.iter().min_by_key(|m| load[m])
        {
            *load.entry(*member).or_default() += 1;
            assigned.insert((*place).clone(), *member);
        }
    }
    // What was kept may leave a newcomer with too little.
    while let Some((place, to)) = assigned.iter().find_map(|(place, from)| {
        let to = wanted[place].iter().min_by_key(|m| load[m])?;
        (load[to] + 1 < load[from]).then(|| (place.clone(), *to))
    }) {
        if let Some(from) = assigned.insert(place, to) {
            *load.entry(from).or_default() -= 1;
        }
        *load.entry(to).or_default() += 1;
    }
    assigned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(topic: &str, count: u32) -> Vec<TopicPartition> {
        (0..count).map(|partition| TopicPartition { topic: topic.into(), partition }).collect()
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_and_loads_differ_by_one_at_most(count in 1_u32..20, joins in 1_usize..6, leaves in 0_usize..6) {
            let groups = Groups::default();
            let mut members: Vec<u64> = (0..joins).map(|_| groups.join("g", places("t", count))).collect();
            for _ in 0..leaves.min(joins - 1) {
                groups.leave("g", members.remove(0));
            }
            let loads: Vec<usize> = members.iter().map(|m| groups.assigned("g", *m).len()).collect();
            prop_assert_eq!(loads.iter().sum::<usize>(), count as usize);
            prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
        }
    }

    #[test]
    fn a_partition_that_stays_keeps_its_number() {
        let groups = Groups::default();
        let first = groups.join("g", places("t", 4));
        let before = groups.assigned("g", first);
        let second = groups.join("g", places("t", 4));
        let after = groups.assigned("g", first);
        assert_eq!(after.len(), 2);
        assert!(after.iter().all(|(place, number)| before[place] == *number));
        assert!(groups.assigned("g", second).values().all(|number| !before.values().any(|n| n == number)));
    }
}
