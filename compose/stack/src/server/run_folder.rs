//! The folder of one running server, and the end of servers that outlived their owner.
//!
//! The owner holds `owner.lock` as long as it lives. A folder whose lock is free belongs to an owner that was killed: its
//! server, known by pid and start time, is ended and the folder removed when any process starts its next server.

use super::account::{self, Account};
use super::process_table::{self, Process};
use crate::cache::{self, Lock};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

/// How long the log of a server that failed to start is kept.
const LOGS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A server's folder; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunFolder {
    pub(crate) path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    /// Makes the folder `run/<name>-<pid>-<number>` for a server that runs under the account.
    pub(crate) async fn make(name: &str, account: Option<Account>) -> Result<RunFolder> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let run = cache::subfolder("run")?;
        // Held while folders appear and vanish, so that nobody takes a folder without its lock yet for an orphan.
        let _guard = cache::lock("run").await?;
        end_orphans(&run);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = run.join(format!("{name}-{}-{number}", std::process::id()));
        cache::make(&path)?;
        let lock = cache::try_lock(&path.join("owner.lock"))?
            .with_context(|| format!("{} belongs to another process", path.display()))?;
        account::give(&path, account)?;
        Ok(RunFolder { path, _lock: lock })
    }

    /// The file that the server's output goes to.
    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("server.log")
    }

    /// Notes which process the server is.
    pub(crate) fn note_server(&self, pid: i32) -> Result<()> {
        let Some(process) = Process::find(pid) else { return Ok(()) };
        let path = self.path.join("server.pid");
        std::fs::write(&path, format!("{} {}\n", process.pid, process.started))
            .with_context(|| format!("writing {}", path.display()))
    }

    /// Keeps the log beyond the folder's life, for a person to read after a failure.
    pub(crate) fn keep_log(&self) -> Result<PathBuf> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let kept = cache::subfolder("logs")?.join(format!("{name}.log"));
        std::fs::copy(self.log(), &kept).with_context(|| format!("keeping the log as {}", kept.display()))?;
        Ok(kept)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Ends servers whose owner is gone and removes their folders, and removes old logs. Best effort: a folder that stays
/// costs disk space only.
fn end_orphans(run: &Path) {
    for path in entries(run).filter(|path| path.join("owner.lock").is_file()) {
        let Ok(Some(_lock)) = cache::try_lock(&path.join("owner.lock")) else { continue };
        if let Some(process) = noted_server(&path).filter(|process| process.lives()) {
            process_table::kill_tree(process.pid);
        }
        let _ = std::fs::remove_dir_all(&path);
    }
    let old = SystemTime::now() - LOGS_KEPT;
    for path in run.parent().into_iter().flat_map(|cache| entries(&cache.join("logs"))) {
        if path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|time| time < old) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn noted_server(folder: &Path) -> Option<Process> {
    let text = std::fs::read_to_string(folder.join("server.pid")).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
}
