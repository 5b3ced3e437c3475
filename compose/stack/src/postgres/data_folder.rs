//! The data folder: made by initdb when absent, with our settings in a file of their own.

use super::{PostgresOptions, SUPERUSER};
use crate::cache;
use crate::server::account::{self, Account};
use crate::server::command;
use anyhow::{Context as _, Result};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use tokio::process::Command;

/// The file of settings that postgresql.conf includes; written at every start.
const SETTINGS_FILE: &str = "tributary.conf";

/// Makes the data folder unless it is one already, and writes the settings.
pub(super) async fn prepare(
    binaries: &Path,
    data: &Path,
    run: &Path,
    account: Option<Account>,
    options: &PostgresOptions,
) -> Result<()> {
    cache::make(data)?;
    account::give(data, account)?;
    if !data.join("PG_VERSION").is_file() {
        initialise(binaries, data, run, account, options.password.as_deref()).await?;
    }
    write(&data.join(SETTINGS_FILE), &settings(options))?;
    account::give(&data.join(SETTINGS_FILE), account)
}

async fn initialise(
    binaries: &Path,
    data: &Path,
    run: &Path,
    account: Option<Account>,
    password: Option<&str>,
) -> Result<()> {
    let mut initdb = Command::new(binaries.join("bin/initdb"));
    initdb.arg("-D").arg(data).args([
        "-U",
        SUPERUSER,
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]);
    initdb.current_dir(run).env_remove("PGDATA").env("TZ", "UTC");
    let secret = run.join("password");
    match password {
        Some(password) => {
            write_secret(&secret, password).with_context(|| format!("writing {}", secret.display()))?;
            account::give(&secret, account)?;
            initdb.arg("--auth=scram-sha-256").arg(format!("--pwfile={}", secret.display()));
        }
        None => {
            initdb.arg("--auth=trust");
        }
    }
    if let Some(Account { uid, gid }) = account {
        initdb.uid(uid).gid(gid);
    }
    let remedy = match account {
        Some(Account { uid, .. }) => {
            format!(
                "as root, PostgreSQL runs as user {uid}, which must be able to enter every folder above {}",
                data.display()
            )
        }
        None => format!("{} must be empty or absent, and writable", data.display()),
    };
    let result = command::run(initdb, &remedy).await;
    let _ = std::fs::remove_file(secret);
    result?;

    let main = data.join("postgresql.conf");
    let text = std::fs::read_to_string(&main).with_context(|| format!("reading {}", main.display()))?;
    write(&main, &format!("{text}\ninclude_if_exists = '{SETTINGS_FILE}'\n"))
}

/// Our settings, then the caller's: the last of a name wins.
fn settings(options: &PostgresOptions) -> String {
    let fsync = if options.fsync { "on" } else { "off" };
    let ours = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("wal_level", "logical"),
        ("max_replication_slots", "400"),
        ("max_wal_senders", "50"),
        ("max_connections", "300"),
        ("max_prepared_transactions", "50"),
        ("fsync", fsync),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
    ];
    let theirs = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    ours.into_iter().chain(theirs).fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name} = '{}'", value.replace('\\', "\\\\").replace('\'', "''"));
        text
    })
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_and_the_callers_come_last() {
        let options = PostgresOptions { settings: vec![("fsync".into(), "it's".into())], ..Default::default() };
        let text = settings(&options);
        assert!(text.contains("fsync = 'on'\n"));
        assert!(text.ends_with("fsync = 'it''s'\n"));
    }
}
