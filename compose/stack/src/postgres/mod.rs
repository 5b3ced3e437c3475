//! PostgreSQL: a real server from pinned binaries, with a data folder that lives as long as the handle or longer.
//!
//! There is no psql beside these binaries; connect with a driver. Local connections need no password unless one is
//! asked for. As root the server runs as `nobody`, because PostgreSQL refuses root.

mod binaries;
mod data_folder;
mod standby;

use crate::server::account;
use crate::server::port::{self, Port};
use crate::server::probe::Probe;
use crate::server::run_folder::RunFolder;
use crate::server::{Launch, Server};
use anyhow::Result;
use rustix::process::Signal;
use std::path::{Path, PathBuf};

pub(crate) use binaries::fetch;

/// The superuser of every server.
const SUPERUSER: &str = "postgres";

/// What kind of server to start.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// The major version, `14` to `18`, each pinned to one release.
    pub version: String,
    /// The port on 127.0.0.1; `None` takes a free one.
    pub port: Option<u16>,
    /// The data folder, made if absent and left in place; `None` takes a fresh one that goes with the handle.
    pub data_dir: Option<PathBuf>,
    /// The superuser's password, checked with SCRAM-SHA-256; `None` trusts every local connection. It is set when the data
    /// folder is made.
    pub password: Option<String>,
    /// Whether commits are forced to disk. Off is faster, and still survives `kill -9` of the server, not a power cut.
    pub fsync: bool,
    /// Further settings of postgresql.conf; they win over ours. `ALTER SYSTEM` wins over both.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        let (version, port, data_dir, password) = ("18".to_owned(), None, None, None);
        PostgresOptions { version, port, data_dir, password, fsync: true, settings: Vec::new() }
    }
}

/// A PostgreSQL server. Dropping it kills the server, and removes the data folder unless one was given.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: Port,
    data_dir: PathBuf,
    password: Option<String>,
}

impl Postgres {
    /// Fetches the binaries if needed, makes the data folder if needed, starts the server and waits until it answers.
    ///
    /// # Errors
    /// If the version is unknown, cannot be fetched, or the server does not start; the error shows the end of its log.
    pub async fn start(options: PostgresOptions) -> Result<Postgres> {
        let binaries = binaries::fetch(&options.version).await?;
        let account = account::unprivileged();
        let folder = RunFolder::make("postgres", account).await?;
        let port = port::take(options.port)?;
        let data_dir = match &options.data_dir {
            Some(path) => std::path::absolute(path)?,
            None => folder.path.join("data"),
        };
        data_folder::prepare(&binaries, &data_dir, &folder.path, account, &options).await?;

        let mut arguments = vec!["-D".into(), data_dir.clone().into_os_string()];
        arguments.extend(["-p", &port.number.to_string()].map(Into::into));
        let stop = Signal::INT; // PostgreSQL's "fast" shutdown: open transactions are rolled back
        let launch = Launch { program: binaries.join("bin/postgres"), arguments, account, stop };
        let probe = Probe::Postgres(config(port.number, "postgres", options.password.as_deref()));
        let server = Server::start("postgres", launch, probe, folder).await?;
        Ok(Postgres { server, port, data_dir, password: options.password })
    }

    /// The superuser's URL of a database, for example `postgres://postgres@127.0.0.1:20001/movies`.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.server_url())
    }

    /// The superuser's URL without a database, for example `postgres://postgres@127.0.0.1:20001`.
    pub fn server_url(&self) -> String {
        let password = self.password.as_deref().map(|password| format!(":{}", percent_encode(password)));
        format!("postgres://{SUPERUSER}{}@127.0.0.1:{}", password.unwrap_or_default(), self.port.number)
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

    /// The number of the server's main process while it runs, to measure it.
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

    /// Ends the server and all its workers with SIGKILL.
    ///
    /// # Errors
    /// If a process does not go away.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Lets the server and all its workers stand still, as a machine that is suspended does.
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
    /// As [`Postgres::stop`] and [`Postgres::start_again`].
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }
}

/// A connection string of libpq's keyword form, which needs no escapes for a URL.
fn config(port: u16, database: &str, password: Option<&str>) -> String {
    let quoted = password.map(|word| format!(" password='{}'", word.replace('\\', "\\\\").replace('\'', "\\'")));
    format!(
        "host=127.0.0.1 port={port} user={SUPERUSER} dbname={database} connect_timeout=5{}",
        quoted.unwrap_or_default()
    )
}

/// RFC 3986, section 2.1: everything but unreserved characters is encoded.
pub(crate) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_escaped_in_both_forms() {
        assert_eq!(percent_encode("a b@c/'"), "a%20b%40c%2F%27");
        assert!(config(1, "postgres", Some("it's")).ends_with(r" password='it\'s'"));
    }
}
