//! Which harm comes when: an endless sequence that a seed decides.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Who is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Postgres,
    /// A Kafka broker, counted from 0.
    Broker(usize),
    Elasticsearch,
    Graph,
    /// A process of the pipeline, counted from 0.
    Process(usize),
}

/// What happens to it, until it is healed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Harm {
    /// SIGKILL; it is started again.
    Kill,
    /// It is asked to end, and started again.
    Stop,
    /// SIGSTOP and SIGCONT. A graph answers nothing meanwhile.
    Pause,
    /// The graph reads at once, and answers three seconds later.
    Late,
    /// Packets are lost, in both directions; no connection is closed, and nobody is told. A process is cut off from every server. A
    /// server is cut off from the processes of [`REMOTE`] alone: the first process, the other servers and the writers reach it.
    Cut,
}

/// One harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// The quiet before it.
    pub(super) after: Duration,
    pub(super) target: Target,
    pub(super) harm: Harm,
    /// How long it lasts.
    pub(super) lasts: Duration,
}

/// Two sequences run beside each other, so that a process is hurt while a server is. Within one of them a harm is healed before
/// the next one begins: two brokers of three that are away at once would only be an outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sequence {
    Servers {
        /// Whether a server can be cut off from processes.
        cuts: bool,
    },
    Processes {
        /// Whether networks of processes can be cut.
        cuts: bool,
    },
}

/// The processes whose networks are cut, and that servers are cut off from, if any are. The first one can be asked at any time.
pub(super) const REMOTE: [usize; 2] = [1, PASSING];
/// The process that comes and goes.
pub(super) const PASSING: usize = 2;

impl Sequence {
    /// The same steps for the same seed.
    pub(super) fn steps(self, seed: u64) -> impl Iterator<Item = Step> {
        let number = u64::from(matches!(self, Sequence::Processes { .. }));
        let mut random = StdRng::seed_from_u64(seed.wrapping_mul(2).wrapping_add(number));
        std::iter::repeat_with(move || self.step(&mut random))
    }

    fn step(self, random: &mut StdRng) -> Step {
        let target = match self {
            Sequence::Servers { .. } => match random.random_range(0..8) {
                0 | 1 => Target::Postgres,
                2..=4 => Target::Broker(random.random_range(0..3)),
                5 => Target::Elasticsearch,
                _ => Target::Graph,
            },
            Sequence::Processes { .. } => Target::Process(random.random_range(0..3)),
        };
        let is_cut = match (self, target) {
            (Sequence::Processes { cuts }, Target::Process(number)) => cuts && REMOTE.contains(&number),
            (Sequence::Servers { cuts } | Sequence::Processes { cuts }, _) => cuts,
        };
        let harms: &[Harm] = match (target, is_cut) {
            (Target::Graph, false) => &[Harm::Kill, Harm::Stop, Harm::Pause, Harm::Late, Harm::Late],
            (Target::Graph, true) => {
                &[Harm::Kill, Harm::Stop, Harm::Pause, Harm::Late, Harm::Late, Harm::Cut, Harm::Cut]
            }
            (Target::Process(_), true) => &[Harm::Kill, Harm::Stop, Harm::Pause, Harm::Cut, Harm::Cut, Harm::Cut],
            (_, true) => &[Harm::Kill, Harm::Stop, Harm::Pause, Harm::Cut, Harm::Cut],
            (_, false) => &[Harm::Kill, Harm::Stop, Harm::Pause],
        };
        let harm = harms[random.random_range(0..harms.len())];
        let seconds = match (target, harm) {
            (Target::Process(PASSING), Harm::Kill | Harm::Stop) => 5.0..20.0,
            (_, Harm::Kill | Harm::Stop) => 0.0..4.0,
            (_, Harm::Pause | Harm::Cut) => 1.0..20.0,
            (_, Harm::Late) => 5.0..15.0,
        };
        let after = Duration::from_secs_f64(random.random_range(0.5..4.0));
        Step { after, target, harm, lasts: Duration::from_secs_f64(random.random_range(seconds)) }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Postgres => write!(to, "PostgreSQL"),
            Target::Broker(number) => write!(to, "Kafka broker {number}"),
            Target::Elasticsearch => write!(to, "Elasticsearch"),
            Target::Graph => write!(to, "the graph"),
            Target::Process(number) => write!(to, "process {number}"),
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.pad(match self {
            Harm::Kill => "killed",
            Harm::Stop => "stopped",
            Harm::Pause => "paused",
            Harm::Late => "late",
            Harm::Cut => "cut off",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(sequence: Sequence, seed: u64, count: usize) -> Vec<Step> {
        sequence.steps(seed).take(count).collect()
    }

    #[test]
    fn a_seed_decides_every_step() {
        for sequence in [Sequence::Servers { cuts: true }, Sequence::Processes { cuts: true }] {
            assert_eq!(first(sequence, 7, 100), first(sequence, 7, 100));
            assert_ne!(first(sequence, 7, 100), first(sequence, 8, 100));
        }
    }

    #[test]
    fn everybody_is_hurt_in_every_way_that_is_possible() {
        let servers = [
            Target::Postgres,
            Target::Broker(0),
            Target::Broker(1),
            Target::Broker(2),
            Target::Elasticsearch,
            Target::Graph,
        ];
        let processes = [0, 1, 2].map(Target::Process);
        let is_hurt = |steps: &[Step], target, harm| steps.iter().any(|s| (s.target, s.harm) == (target, harm));
        for cuts in [true, false] {
            let of_servers = first(Sequence::Servers { cuts }, 1, 500);
            let of_processes = first(Sequence::Processes { cuts }, 1, 500);
            for harm in [Harm::Kill, Harm::Stop, Harm::Pause] {
                assert!(servers.iter().all(|target| is_hurt(&of_servers, *target, harm)), "{harm}");
                assert!(processes.iter().all(|target| is_hurt(&of_processes, *target, harm)), "{harm}");
            }
            assert!(is_hurt(&of_servers, Target::Graph, Harm::Late));
            assert_eq!(servers.map(|target| is_hurt(&of_servers, target, Harm::Cut)), [cuts; 6]);
            assert_eq!(processes.map(|target| is_hurt(&of_processes, target, Harm::Cut)), [false, cuts, cuts]);
        }
    }
}
