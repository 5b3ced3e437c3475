//! One process of a world's pipeline: its folder, its runs, and the signals that it gets.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};

pub(super) struct Process {
    /// Holds its data and the output of each of its runs.
    folder: PathBuf,
    child: Option<Child>,
    paused: bool,
    runs: usize,
}

impl Process {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, child: None, paused: false, runs: 0 }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where it says where it listens.
    fn record(&self, pipeline: &str) -> PathBuf {
        self.data().join(format!("{pipeline}.running.json"))
    }

    pub(super) fn start(&mut self, mut run: Command, pipeline: &str) {
        assert!(self.child.is_none(), "it runs already");
        self.runs += 1;
        let _ = std::fs::remove_file(self.record(pipeline));
        let log = |what: &str| File::create(self.folder.join(format!("run-{}.{what}", self.runs))).expect("a log");
        self.child = Some(run.stdout(log("out")).stderr(log("log")).spawn().expect("tributary starts"));
    }

    /// What its last run wrote.
    pub(super) fn output(&self) -> String {
        let read = |what: &str| {
            std::fs::read_to_string(self.folder.join(format!("run-{}.{what}", self.runs))).unwrap_or_default()
        };
        format!("{}\n{}", read("out"), read("log"))
    }

    /// Whether it was started, and neither ended nor paused since, as far as is known.
    pub(super) fn is_up(&self) -> bool {
        self.child.is_some() && !self.paused
    }

    /// Where it listens, once it does.
    pub(super) fn address(&self, pipeline: &str) -> Option<String> {
        let record = std::fs::read(self.record(pipeline)).ok().filter(|_| self.is_up())?;
        serde_json::from_slice::<serde_json::Value>(&record).ok()?["address"].as_str().map(str::to_owned)
    }

    pub(super) fn id(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("a process"))
    }

    pub(super) fn kill(&mut self) {
        let mut child = self.child.take().expect("a process");
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        self.paused = false;
    }

    /// Asks it to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(super) fn pause(&mut self) {
        self.signal(Signal::STOP);
        self.paused = true;
    }

    pub(super) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.paused = false;
    }

    pub(super) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("a signal");
    }

    /// How it ended, if it has; it may be started again then.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().expect("waitable")?;
        self.child = None;
        Some(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
