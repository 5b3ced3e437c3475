//! Where fetched parts and run folders live, and locks between processes that use them at the same time.

pub(crate) mod artifact;
pub(crate) mod debian;

use crate::server::account;
use anyhow::{Context as _, Result, bail};
use std::fs::{File, TryLockError};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cache folder: `$TRIBUTARY_CACHE`, or `/var/cache/tributary` for root (servers that refuse root must be able to
/// read it, and root's home is often closed), or `tributary` in `$XDG_CACHE_HOME` or `~/.cache`.
///
/// # Errors
/// If none of these variables is set.
pub fn folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("TRIBUTARY_CACHE") {
        return Ok(std::path::absolute(path)?);
    }
    if account::is_root() {
        return Ok(PathBuf::from("/var/cache/tributary"));
    }
    match variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache"))) {
        Some(base) => Ok(base.join("tributary")),
        None => bail!("no cache folder: neither HOME nor XDG_CACHE_HOME is set; set one, or TRIBUTARY_CACHE"),
    }
}

/// A folder inside the cache folder, made if absent, with its parents.
pub(crate) fn subfolder(name: impl AsRef<Path>) -> Result<PathBuf> {
    let path = folder()?.join(name);
    make(&path)?;
    Ok(path)
}

/// Makes a folder that other users may enter, whatever the umask says.
pub(crate) fn make(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent)?;
    }
    match std::fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.with_context(|| {
            format!(
                "making the folder {}: choose another place with TRIBUTARY_CACHE if this one is closed",
                path.display()
            )
        })?,
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("opening the folder {} to its readers", path.display()))
}

/// A lock held by this process until dropped; it ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes a lock file if nobody holds it.
pub(crate) fn try_lock(path: &Path) -> Result<Option<Lock>> {
    let place = || format!("locking {}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(path).with_context(place)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(place),
    }
}

/// Waits for a named lock; another process may hold it for as long as a download takes.
pub(crate) async fn lock(name: &str) -> Result<Lock> {
    let path = subfolder("locks")?.join(format!("{}.lock", name.replace('/', "-")));
    let mut said = false;
    loop {
        if let Some(lock) = try_lock(&path)? {
            return Ok(lock);
        }
        if !std::mem::replace(&mut said, true) && name != "run" {
            eprintln!("waiting for another process that prepares {name}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
