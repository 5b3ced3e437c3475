//! What the kernel's process table says about a process: when it started, and its descendants.
//!
//! PostgreSQL's workers leave the process group of their server, so killing "the whole server" needs the table. On
//! systems without `/proc` nothing is found and only the process group is killed.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::HashMap;

/// A process, told apart from a later one with the same number by its start time (clock ticks since boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) started: u64,
}

impl Process {
    /// The living process with this number.
    pub(crate) fn find(pid: i32) -> Option<Process> {
        read(pid).map(|(process, _)| process)
    }

    /// Whether it still runs.
    pub(crate) fn lives(self) -> bool {
        Process::find(self.pid) == Some(self)
    }

    /// Its children, their children, and so on.
    pub(crate) fn descendants(self) -> Vec<Process> {
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for (process, parent) in entries.filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?)) {
            children.entry(parent).or_default().push(process);
        }
        let mut found = Vec::new();
        let mut open = vec![self.pid];
        while let Some(pid) = open.pop() {
            let next = children.remove(&pid).unwrap_or_default();
            open.extend(next.iter().map(|process| process.pid));
            found.extend(next);
        }
        found
    }
}

/// Sends a signal to one process; a process that is gone needs none.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to a process and its descendants.
pub(crate) fn signal_tree(pid: i32, with: Signal) {
    signal(pid, with);
    for process in Process::find(pid).map(Process::descendants).unwrap_or_default() {
        signal(process.pid, with);
    }
}

/// Ends a process, its group and its descendants with SIGKILL; returns those that may take a moment to vanish.
pub(crate) fn kill_tree(pid: i32) -> Vec<Process> {
    let descendants = Process::find(pid).map(Process::descendants).unwrap_or_default();
    if let Some(group) = Pid::from_raw(pid) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    signal(pid, Signal::KILL);
    for process in descendants.iter().filter(|process| process.lives()) {
        signal(process.pid, Signal::KILL);
    }
    descendants
}

/// Reads `/proc/<pid>/stat`: the process and its parent; a zombie counts as gone.
fn read(pid: i32) -> Option<(Process, i32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, parent, started) = parse(&text)?;
    (state != "Z").then_some((Process { pid, started }, parent))
}

/// State, parent and start time of proc(5)'s `stat` line; the name before them may hold spaces and parentheses.
fn parse(stat: &str) -> Option<(&str, i32, u64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some((fields.first()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_past_an_odd_name() {
        let line = "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 100";
        assert_eq!(parse(line), Some(("S", 7, 9876)));
    }
}
