//! One server process: start and wait until it is ready, stop, kill, start again on the same port and data.

pub(crate) mod account;
pub(crate) mod command;
pub(crate) mod port;
pub(crate) mod probe;
mod process_table;
pub(crate) mod run_folder;

use self::account::Account;
use self::probe::Probe;
use self::process_table::Process;
use self::run_folder::RunFolder;
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// The longest that a server may take until it is ready.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// The longest that a server may take to stop by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(25);

/// How a server process is started and asked to stop.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) account: Option<Account>,
    /// The signal that asks it to stop in good order.
    pub(crate) stop: Signal,
}

/// A server process with its folder. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    launch: Launch,
    probe: Probe,
    child: Mutex<Option<Child>>,
    folder: RunFolder,
}

impl Server {
    /// Starts a server and returns when it is ready.
    pub(crate) async fn start(name: &str, launch: Launch, probe: Probe, folder: RunFolder) -> Result<Server> {
        let server = Server::spawned(name, launch, probe, folder).await?;
        server.ready().await?;
        Ok(server)
    }

    /// Starts a server and returns at once; see [`Server::ready`].
    pub(crate) async fn spawned(name: &str, launch: Launch, probe: Probe, folder: RunFolder) -> Result<Server> {
        let server = Server { name: name.to_owned(), launch, probe, child: Mutex::new(None), folder };
        server.spawn().await?;
        Ok(server)
    }

    /// Starts the process unless it runs, and returns when it is ready.
    pub(crate) async fn start_again(&self) -> Result<()> {
        self.spawn().await?;
        self.ready().await
    }

    /// Starts the process unless it runs; see [`Server::ready`].
    pub(crate) async fn spawn(&self) -> Result<()> {
        let mut slot = self.child.lock().await;
        if let Some(child) = slot.as_mut()
            && child.try_wait()?.is_none()
        {
            return Ok(());
        }
        let child = self.command()?.spawn().with_context(|| {
            format!(
                "starting {} ({}): remove it from the cache to fetch it again",
                self.name,
                self.launch.program.display()
            )
        })?;
        self.folder.note_server(pid(&child))?;
        *slot = Some(child);
        Ok(())
    }

    /// Returns when the server answers.
    pub(crate) async fn ready(&self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let answer = self.probe.ask().await;
            let ended = match self.child.lock().await.as_mut() {
                Some(child) => child.try_wait()?.map(|status| status.to_string()),
                None => Some("stopped by its owner".to_owned()),
            };
            let failure = match (answer, ended) {
                (_, Some(status)) => format!("ended while it started ({status})"),
                (Ok(()), None) => return Ok(()),
                (Err(missing), None) if begin.elapsed() > START_DEADLINE => {
                    format!("was not ready within {} s ({missing})", START_DEADLINE.as_secs())
                }
                (Err(_), None) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            self.kill().await?;
            bail!("{} {failure}; {}", self.name, self.explain());
        }
    }

    /// Asks the server to stop in good order and waits for it; after [`STOP_DEADLINE`] it is killed.
    pub(crate) async fn stop(&self) -> Result<()> {
        let mut slot = self.child.lock().await;
        let Some(child) = slot.as_mut() else { return Ok(()) };
        process_table::signal(pid(child), self.launch.stop);
        let begin = Instant::now();
        while child.try_wait()?.is_none() {
            if begin.elapsed() > STOP_DEADLINE {
                drop(slot);
                return self.kill().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        *slot = None;
        Ok(())
    }

    /// Ends the server and its workers with SIGKILL, as a power cut would, and waits until they are gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        let mut slot = self.child.lock().await;
        let Some(mut child) = slot.take() else { return Ok(()) };
        let workers = process_table::kill_tree(pid(&child));
        let begin = Instant::now();
        while child.try_wait()?.is_none() || workers.iter().any(|worker| worker.lives()) {
            if begin.elapsed() > STOP_DEADLINE {
                bail!("{} (pid {}) is still there {} s after SIGKILL", self.name, child.id(), STOP_DEADLINE.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Lets the server and its workers stand still, as a machine that is suspended does.
    pub(crate) async fn pause(&self) {
        self.signal_all(Signal::STOP).await;
    }

    /// Lets them go on.
    pub(crate) async fn resume(&self) {
        self.signal_all(Signal::CONT).await;
    }

    async fn signal_all(&self, signal: Signal) {
        if let Some(child) = self.child.lock().await.as_ref() {
            process_table::signal_tree(pid(child), signal);
        }
    }

    /// The file that the server's output goes to.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.log()
    }

    /// The number of the server's process while it runs, to measure it.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().map(Child::id)
    }

    fn command(&self) -> Result<Command> {
        let path = self.folder.log();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("opening the log {}", path.display()))?;
        let mut command = Command::new(&self.launch.program);
        command.args(&self.launch.arguments).current_dir(&self.folder.path).process_group(0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A person's settings for clients of databases would reach the server too.
        let is_theirs = |name: &OsString| ["PG", "MYSQL"].iter().any(|word| name.to_string_lossy().starts_with(word));
        for (name, _) in std::env::vars_os().filter(|(name, _)| is_theirs(name)) {
            command.env_remove(name);
        }
        if let Some(Account { uid, gid }) = self.launch.account {
            command.uid(uid).gid(gid);
        }
        Ok(command)
    }

    /// The end of the log, and where the whole of it is kept.
    fn explain(&self) -> String {
        let text = std::fs::read(self.folder.log()).unwrap_or_default();
        let tail = command::tail(&String::from_utf8_lossy(&text), 40);
        match self.folder.keep_log() {
            Ok(kept) => format!("the end of its log ({}):\n{tail}", kept.display()),
            Err(error) => format!("the end of its log ({error:#}):\n{tail}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            let workers = process_table::kill_tree(pid(&child));
            let _ = child.wait();
            // Workers that still write would keep the folder from being removed.
            let begin = Instant::now();
            while workers.iter().copied().any(Process::lives) && begin.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Process numbers fit an `i32` on every Unix.
fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(i32::MAX)
}
