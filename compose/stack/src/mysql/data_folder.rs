//! The data folder: a copy of one that the server made once, beside its place, so that one that is there is whole.

use super::binaries::Installation;
use super::{MySqlOptions, MySqlProduct};
use crate::cache;
use crate::server::account::{self, Account};
use crate::server::command;
use anyhow::{Context as _, Result};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Makes the data folder unless it is one already. Without the copy each server would work for seconds on its system tables and keys.
pub(super) async fn prepare(
    installation: &Installation,
    data: &Path,
    run: &Path,
    account: Option<Account>,
    options: &MySqlOptions,
) -> Result<()> {
    if data.join("mysql").is_dir() {
        return Ok(());
    }
    let folder = match options.product {
        MySqlProduct::MySql => "mysql",
        MySqlProduct::MariaDb => "mariadb",
    };
    let name = format!("{folder}/{}-data", options.version);
    let first = cache::subfolder(folder)?.join(format!("{}-data", options.version));
    {
        let _lock = cache::lock(&name).await?;
        if !first.is_dir() {
            make(installation, &first, run, account, options.product).await?;
        }
    }
    let partial = emptied(data)?;
    {
        let partial = partial.clone();
        tokio::task::spawn_blocking(move || copy(&first, &partial, account)).await.context("copying")??;
    }
    // A folder that the caller made is empty, or this fails.
    std::fs::rename(&partial, data).with_context(|| format!("{} must be empty or absent", data.display()))
}

/// The folder in which another one is made, without what is left of an earlier try.
fn emptied(folder: &Path) -> Result<PathBuf> {
    let mut name = folder.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| format!("removing {}", partial.display()))?;
    }
    Ok(partial)
}

/// Lets the server make a data folder.
async fn make(
    installation: &Installation,
    data: &Path,
    run: &Path,
    account: Option<Account>,
    product: MySqlProduct,
) -> Result<()> {
    let partial = emptied(data)?;
    cache::make(&partial)?;
    account::give(&partial, account)?;
    let mut server = command(installation, &partial, run, account);
    let remedy = match account {
        Some(Account { uid, .. }) => {
            format!("as root, {product} runs as user {uid}, which must be able to enter every folder above it")
        }
        None => "it needs libraries that this machine lacks, or room".to_owned(),
    };
    match product {
        MySqlProduct::MySql => {
            // The log of what is not in the tables yet grows to its size when the server starts.
            server.args(["--initialize-insecure", "--skip-log-bin", "--innodb-redo-log-capacity=8M"]);
            command::run(server, &remedy).await?;
            // By it a server is known, and each is another one.
            let known = partial.join("auto.cnf");
            std::fs::remove_file(&known).with_context(|| format!("removing {}", known.display()))?;
        }
        MySqlProduct::MariaDb => {
            server.args(["--bootstrap", "--innodb-buffer-pool-size=16M"]);
            command::run_with_input(server, system_tables(&installation.share)?.into_bytes(), &remedy).await?;
        }
    }
    std::fs::rename(&partial, data).with_context(|| format!("making {}", data.display()))
}

/// Copies a folder with all that is in it, for an account.
fn copy(from: &Path, to: &Path, account: Option<Account>) -> Result<()> {
    cache::make(to)?;
    account::give(to, account)?;
    let place = || format!("copying {}", from.display());
    for entry in std::fs::read_dir(from).with_context(place)? {
        let entry = entry.with_context(place)?;
        let target = to.join(entry.file_name());
        if entry.file_type().with_context(place)?.is_dir() {
            copy(&entry.path(), &target, account)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copying {}", entry.path().display()))?;
            account::give(&target, account)?;
        }
    }
    Ok(())
}

/// A command of the server with this data folder, whoever it is to run as.
fn command(installation: &Installation, data: &Path, run: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(installation.line.first().map_or(OsStr::new(""), OsString::as_os_str));
    command.args(installation.line.iter().skip(1)).args(places(installation, data, run)).current_dir(run);
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// Arguments that say where everything is; nothing else of the machine is read. Temporary tables have a folder of this server's own:
/// a server removes at its start what it finds of others in the folder that all share.
pub(super) fn places(installation: &Installation, data: &Path, run: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--no-defaults".into()];
    let places = [
        ("basedir", &*installation.base),
        ("datadir", data),
        ("tmpdir", run),
        ("lc-messages-dir", &installation.share),
        ("character-sets-dir", &installation.share.join("charsets")),
        ("plugin-dir", &installation.plugins),
    ];
    arguments.extend(places.map(|(name, path)| {
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(path);
        argument
    }));
    arguments
}

/// What MariaDB's own script feeds to a server without tables.
fn system_tables(share: &Path) -> Result<String> {
    let mut all = "create database if not exists mysql;\nuse mysql;\nset @auth_root_socket = null;\n".to_owned();
    for name in ["system_tables", "performance_tables", "system_tables_data"] {
        let read = |product: &str| std::fs::read_to_string(share.join(format!("{product}_{name}.sql")));
        let text = read("mariadb").or_else(|_| read("mysql"));
        all.push_str(&text.with_context(|| format!("no statements for {name} in {}", share.display()))?);
    }
    Ok(all)
}

/// Writes what the server does at each start before it lets anybody in: the administrator, by address, since names are not looked up.
pub(super) fn write_administrator(path: &Path, password: Option<&str>, account: Option<Account>) -> Result<()> {
    let password = password.unwrap_or_default().replace('\\', "\\\\").replace('\'', "''");
    let user = format!("{}@'127.0.0.1'", super::SUPERUSER);
    let statements = format!(
        "set session sql_log_bin = 0;\ncreate user if not exists {user};\nalter user {user} identified by '{password}';\n\
         grant all privileges on *.* to {user} with grant option;\n"
    );
    let mut file = File::options().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(statements.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    account::give(path, account)
}
