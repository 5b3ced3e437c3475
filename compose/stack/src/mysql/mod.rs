//! MySQL and MariaDB: real servers with a binary log by row, with a data folder that lives as long as the handle or longer.
//!
//! Connect with a driver, by address: names are not looked up. As root the server runs as `nobody`, because both refuse root.

mod binaries;
mod data_folder;
mod log_reader;
mod session;

use crate::cache::debian;
use crate::server::account;
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use crate::server::{Launch, Server};
use anyhow::{Context as _, Result};
use rustix::process::Signal;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(crate) use binaries::fetch;
pub use log_reader::LogReader;
pub use session::MySqlSession;

/// The administrator of every server.
const SUPERUSER: &str = "root";

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MySqlProduct {
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl MySqlProduct {
    /// The versions that this machine can have, the newest first; none: see [`MySqlProduct::left_out`].
    pub fn versions(self) -> &'static [&'static str] {
        match (self, debian::is_here()) {
            (MySqlProduct::MySql, true) => &["9.7"],
            (MySqlProduct::MySql, false) => &[],
            (MySqlProduct::MariaDb, true) => &["11.8", "11.4", "10.11"],
            (MySqlProduct::MariaDb, false) => &["11.4"],
        }
    }

    /// The newest of them.
    pub fn newest(self) -> Option<&'static str> {
        self.versions().first().copied()
    }

    /// Why it cannot be had here, if so.
    pub fn left_out(self) -> Option<&'static str> {
        self.newest().is_none().then_some("it comes from Debian's archive, and this machine does not run Debian")
    }
}

impl std::fmt::Display for MySqlProduct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            MySqlProduct::MySql => "MySQL",
            MySqlProduct::MariaDb => "MariaDB",
        })
    }
}

/// What kind of server to start.
#[derive(Clone, Debug)]
pub struct MySqlOptions {
    /// MySQL or MariaDB.
    pub product: MySqlProduct,
    /// `9.7` of MySQL; `11.8`, `11.4` or `10.11` of MariaDB. Debian's packages need a machine that runs Debian; MariaDB 11.4 comes
    /// with Maven, for Linux on x86-64.
    pub version: String,
    /// The port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// The data folder, made if absent and left in place; `None` takes a fresh one that goes with the handle.
    pub data_dir: Option<PathBuf>,
    /// The administrator's password; `None` lets every local connection in. It is set at each start.
    pub password: Option<String>,
    /// Whether commits are forced to disk. Off is faster, and still survives `kill -9` of the server, not a power cut.
    pub fsync: bool,
    /// Whether plugins are there that Debian has in a package of their own (MariaDB): `auth_ed25519`, `auth_parsec`, `file_key_management`.
    pub further_plugins: bool,
    /// Further settings by the names of options, such as `binlog-row-image`; they win over ours.
    pub settings: Vec<(String, String)>,
}

impl MySqlOptions {
    /// A version of MySQL or MariaDB.
    pub fn of(product: MySqlProduct, version: &str) -> MySqlOptions {
        let (version, port, data_dir, password) = (version.to_owned(), None, None, None);
        let (fsync, further_plugins, settings) = (true, false, Vec::new());
        MySqlOptions { product, version, port, data_dir, password, fsync, further_plugins, settings }
    }
}

/// A server of MySQL or MariaDB. Dropping it kills the server, and removes the data folder unless one was given.
#[derive(Debug)]
pub struct MySql {
    server: Server,
    port: Port,
    data_dir: PathBuf,
    password: Option<String>,
}

impl MySql {
    /// Fetches the programs if needed, makes the data folder if needed, starts the server and waits until it answers.
    ///
    /// # Errors
    /// If the version is unknown, cannot be fetched on this machine, or the server does not start; the error shows the end of its log.
    pub async fn start(options: MySqlOptions) -> Result<MySql> {
        let mut installation = binaries::fetch(options.product, &options.version).await?;
        if options.further_plugins {
            installation.plugins = binaries::further_plugins(options.product, &options.version).await?;
        }
        let account = account::unprivileged();
        let name = match options.product {
            MySqlProduct::MySql => "mysql",
            MySqlProduct::MariaDb => "mariadb",
        };
        let folder = RunFolder::make(name, account).await?;
        let port = port::take(options.port)?;
        let data_dir = match &options.data_dir {
            Some(path) => std::path::absolute(path)?,
            None => folder.path.join("data"),
        };
        data_folder::prepare(&installation, &data_dir, &folder.path, account, &options).await?;
        let administrator = folder.path.join("administrator.sql");
        data_folder::write_administrator(&administrator, options.password.as_deref(), account)?;

        let mut line = installation.line.clone().into_iter();
        let program = line.next().context("no program")?.into();
        let mut arguments: Vec<OsString> =
            line.chain(data_folder::places(&installation, &data_dir, &folder.path)).collect();
        let mut init_file = OsString::from("--init-file=");
        init_file.push(&administrator);
        arguments.push(init_file);
        arguments.push(format!("--port={}", port.number).into());
        arguments.extend(settings(&options).into_iter().map(|(name, value)| format!("--{name}={value}").into()));
        let launch = Launch { program, arguments, account, stop: Signal::TERM };
        let server = Server::start(name, launch, Probe::MySql(port.number), folder).await?;
        Ok(MySql { server, port, data_dir, password: options.password })
    }

    /// The administrator's URL of a database, for example `mysql://root@127.0.0.1:20001/movies`.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.server_url())
    }

    /// The administrator's URL without a database, for example `mysql://root@127.0.0.1:20001`.
    pub fn server_url(&self) -> String {
        let password =
            self.password.as_deref().map(|password| format!(":{}", crate::postgres::percent_encode(password)));
        format!("mysql://{SUPERUSER}{}@127.0.0.1:{}", password.unwrap_or_default(), self.port.number)
    }

    /// The port on 127.0.0.1; it stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The file that the server logs to.
    pub fn log(&self) -> PathBuf {
        self.server.log()
    }

    /// The number of the server's process while it runs, to measure it.
    pub async fn pid(&self) -> Option<u32> {
        self.server.pid().await
    }

    /// Stops the server in good order; open transactions are rolled back.
    ///
    /// # Errors
    /// If the process neither stops nor can be killed.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop().await
    }

    /// Ends the server with SIGKILL.
    ///
    /// # Errors
    /// If the process does not go away.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Lets the server stand still, as a machine that is suspended does.
    pub async fn pause(&self) {
        self.server.pause().await;
    }

    /// Lets what was paused go on.
    pub async fn resume(&self) {
        self.server.resume().await;
    }

    /// Starts the server again on the same port and data, unless it runs, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start; the error shows the end of its log.
    pub async fn start_again(&self) -> Result<()> {
        self.server.start_again().await
    }

    /// Stops the server in good order and starts it again.
    ///
    /// # Errors
    /// As [`MySql::stop`] and [`MySql::start_again`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }
}

/// Our settings, then the caller's: the last of a name wins.
fn settings(options: &MySqlOptions) -> Vec<(String, String)> {
    let (flush, sync) = if options.fsync { ("1", "1") } else { ("2", "0") };
    let mut ours = vec![
        ("bind-address", "127.0.0.1"),
        ("skip-name-resolve", "ON"),
        // Beside the data: their paths have a limit that a cache folder may exceed.
        ("socket", "server.sock"),
        ("pid-file", "server.pid"),
        ("server-id", "1"),
        ("log-bin", "bin"),
        ("binlog-format", "ROW"),
        ("max-connections", "300"),
        ("innodb-flush-log-at-trx-commit", flush),
        ("sync-binlog", sync),
        ("innodb-buffer-pool-size", "64M"),
        ("performance-schema", "OFF"),
        ("default-time-zone", "+00:00"),
        ("secure-file-priv", ""),
    ];
    match options.product {
        MySqlProduct::MySql => ours.extend([("mysqlx", "OFF")]),
        MySqlProduct::MariaDb => ours.extend([("character-set-server", "utf8mb4")]),
    }
    let ours = ours.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    ours.chain(options.settings.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_settings_come_last() {
        let settings = vec![("sync-binlog".to_owned(), "7".to_owned())];
        let all = super::settings(&MySqlOptions { settings, ..MySqlOptions::of(MySqlProduct::MariaDb, "11.8") });
        assert!(all.contains(&("sync-binlog".to_owned(), "1".to_owned())));
        assert_eq!(all.last(), Some(&("sync-binlog".to_owned(), "7".to_owned())));
    }
}
