//! A process of the pipeline, whoever ends it: we do, or it does.

use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use super::network::Namespace;
use crate::answers;
use crate::tools::target;

pub(super) struct Member {
    /// The pipeline, and the process's own data and log.
    pipeline: PathBuf,
    folder: PathBuf,
    child: Mutex<Option<Child>>,
    paused: AtomicBool,
}

impl Member {
    pub(super) fn new(pipeline: PathBuf, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Self { pipeline, folder, child: Mutex::new(None), paused: AtomicBool::new(false) })
    }

    /// Starts it, unless it runs.
    pub(super) async fn start(&self, namespace: Option<&Namespace>) -> Result<()> {
        let mut child = self.child.lock().await;
        if child.is_some() {
            return Ok(());
        }
        let program = target().join("debug/tributary");
        let mut command = namespace.map_or_else(|| Command::new(&program), |namespace| namespace.command(&program));
        let log = File::options().create(true).append(true).open(self.log()).context("opening a log")?;
        let _ = std::fs::remove_file(self.data().join("movie-search.running.json"));
        command.args(["run", "--quiet"]).arg(&self.pipeline).env("TRIBUTARY_DATA", self.data());
        command.env("TRIBUTARY_LOG_FORMAT", "json").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        *child = Some(command.kill_on_drop(true).spawn().context("starting tributary: run ./x, which builds it")?);
        Ok(())
    }

    /// Ends it with SIGKILL.
    pub(super) async fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await.context("killing a process")?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has: how it ended.
    pub(super) async fn stop(&self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.lock().await.take() else { return Ok(None) };
        signal(&child, Signal::TERM)?;
        Ok(Some(child.wait().await.context("waiting for a process")?))
    }

    /// Lets it stand still.
    pub(super) async fn pause(&self) -> Result<()> {
        self.paused.store(true, Ordering::Release);
        self.child.lock().await.as_ref().map_or(Ok(()), |child| signal(child, Signal::STOP))
    }

    /// Lets it go on.
    pub(super) async fn resume(&self) -> Result<()> {
        let result = self.child.lock().await.as_ref().map_or(Ok(()), |child| signal(child, Signal::CONT));
        self.paused.store(false, Ordering::Release);
        result
    }

    /// How it ended by itself, if it has.
    pub(super) async fn ended(&self) -> Result<Option<ExitStatus>> {
        let mut child = self.child.lock().await;
        let Some(running) = child.as_mut() else { return Ok(None) };
        let status = running.try_wait().context("looking at a process")?;
        if status.is_some() {
            *child = None;
        }
        Ok(status)
    }

    /// Where it listens, if it may be asked.
    pub(super) fn address(&self) -> Option<String> {
        answers::address(&self.data()).filter(|_| !self.paused.load(Ordering::Acquire))
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    // One that has ended needs no signal.
    pid.map_or(Ok(()), |pid| kill_process(pid, signal).context("sending a signal to a process"))
}
