//! Artifacts: files and folders of the cache that are made once and then only read.
//!
//! An artifact is made beside its place and renamed into it, so that a reader sees all of it or nothing, also after a
//! crash. A lock for each artifact lets one process make it while the others wait.

use crate::cache::{self, Lock};
use anyhow::{Context as _, Result};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What [`claim`] found.
pub(crate) enum Claim {
    /// The artifact is there.
    Present(PathBuf),
    /// The caller makes it now.
    Absent(Making),
}

/// An artifact that this process is making; dropping it unfinished leaves nothing behind.
pub(crate) struct Making {
    /// Where the caller makes the file or folder; nothing is there yet, but its parent is.
    pub(crate) partial: PathBuf,
    destination: PathBuf,
    _lock: Lock,
}

/// Looks for an artifact by its path within the cache folder, and waits for any other process that is making it.
pub(crate) async fn claim(name: &str) -> Result<Claim> {
    let destination = cache::folder()?.join(name);
    if destination.exists() {
        return Ok(Claim::Present(destination));
    }
    let lock = cache::lock(name).await?;
    if destination.exists() {
        return Ok(Claim::Present(destination));
    }
    if let Some(parent) = destination.parent() {
        cache::make(parent)?;
    }
    let partial = cache::subfolder("partial")?.join(name.replace('/', "-"));
    remove(&partial);
    Ok(Claim::Absent(Making { partial, destination, _lock: lock }))
}

impl Making {
    /// Puts what was made in its place, readable by every user.
    pub(crate) fn finish(self) -> Result<PathBuf> {
        let place = || format!("putting {} in its place", self.destination.display());
        open_to_readers(&self.partial).with_context(place)?;
        std::fs::rename(&self.partial, &self.destination).with_context(place)?;
        Ok(self.destination.clone())
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        remove(&self.partial);
    }
}

/// A short name for a content, so that a changed recipe makes a new artifact.
pub(crate) fn hash(parts: &[&str]) -> String {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&bytes))
}

/// Removes a file or a folder; what cannot be removed shows up where it is made again.
fn remove(path: &Path) {
    if path.is_dir() {
        let _ = std::fs::remove_dir_all(path);
    } else {
        let _ = std::fs::remove_file(path);
    }
}

/// Lets every user read the files and enter the folders.
fn open_to_readers(path: &Path) -> std::io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let open = if metadata.is_dir() || mode & 0o100 != 0 { mode | 0o755 } else { mode | 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(open))?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            open_to_readers(&entry?.path())?;
        }
    }
    Ok(())
}
