//! A wall clock that a test sets, for processes that are started with its environment: libfaketime, of Debian. Clocks that only go forward
//! (`CLOCK_MONOTONIC`), by which timers go, stay as they are, as on a machine whose time somebody sets.

use crate::cache::debian::{self, Packages};
use crate::server::run_folder::RunFolder;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

const PACKAGES: Packages = Packages { suite: "bookworm", name: "libfaketime", version: "0.9.10" };

/// A clock. Dropping it removes the file that says how it is set: nobody should go by it any more.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    folder: RunFolder,
}

impl Clock {
    /// Why there is none on this machine; none: there is one.
    pub fn left_out() -> Option<&'static str> {
        (!debian::is_here())
            .then_some("libfaketime is fetched from Debian's archive, and this machine does not run Debian")
    }

    /// A clock that shows the machine's time. The library is fetched if it is not in the cache.
    ///
    /// # Errors
    /// If it cannot be fetched.
    pub async fn new() -> Result<Self> {
        let library = fetch().await?;
        let clock = Self { library, folder: RunFolder::make("clock", None).await? };
        clock.set(0)?;
        Ok(clock)
    }

    /// Lets it be so many seconds ahead of the machine's, or behind it.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn set(&self, seconds: i64) -> Result<()> {
        let (file, new) = (self.file(), self.file().with_extension("new"));
        std::fs::write(&new, format!("{seconds:+}\n")).with_context(|| format!("writing {}", new.display()))?;
        std::fs::rename(&new, &file).with_context(|| format!("writing {}", file.display()))
    }

    /// What a process is started with that goes by it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.file())),
            // It is looked at for every question.
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn file(&self) -> PathBuf {
        self.folder.path.join("time")
    }
}

/// The library for processes with threads.
pub(crate) async fn fetch() -> Result<PathBuf> {
    let tree = PACKAGES.fetch("libfaketime/0.9.10").await?;
    tree.library("faketime/libfaketimeMT.so.1")
}
