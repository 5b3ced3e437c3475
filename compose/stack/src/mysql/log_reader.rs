//! The programs that come with the servers and read their logs, for benchmarks: `mysqlbinlog` and `mariadb-binlog`.

use super::{MySql, MySqlProduct, binaries};
use anyhow::{Context as _, Result};
use std::ffi::OsString;
use tokio::process::Command;

/// A program that reads logs.
#[derive(Clone, Debug)]
pub struct LogReader {
    line: Vec<OsString>,
}

impl LogReader {
    /// The program of a version, fetched if it is not in the cache.
    ///
    /// # Errors
    /// If it cannot be fetched on this machine.
    pub async fn fetch(product: MySqlProduct, version: &str) -> Result<Self> {
        Ok(Self { line: binaries::log_reader(product, version).await? })
    }

    /// The command that reads a server's log over its connection, from a file of it to the end; what is to be made of it is added.
    ///
    /// # Errors
    /// If there is no program.
    pub fn command(&self, server: &MySql, how: &[&str], first_file: &str) -> Result<Command> {
        let mut words = self.line.iter();
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).arg("--no-defaults").args(["--read-from-remote-server", "--host=127.0.0.1", "--user=root"]);
        command.arg(format!("--port={}", server.port())).args(how).args(["--to-last-log", first_file]);
        Ok(command)
    }
}
