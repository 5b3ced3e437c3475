//! A network namespace whose only way out are relays to our servers, under the same addresses: the network of a process in it
//! can be cut so that no packet arrives, and nobody is told; and so can the way to one of the servers, by its relay.
//!
//! It needs root and `ip` (iproute2).

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::process::Command;

use super::relay::Relay;

/// A network namespace; removed when dropped.
pub(super) struct Namespace {
    name: String,
    /// One for each server, by its port.
    relays: BTreeMap<u16, Relay>,
}

impl Namespace {
    /// Why this machine cannot have one.
    pub(super) async fn missing() -> Option<&'static str> {
        if !rustix::process::geteuid().is_root() {
            return Some("a network is cut as root only");
        }
        ip("-V").await.is_err().then_some("`ip` is missing: apt-get install iproute2")
    }

    /// A namespace for a process, in which these ports of 127.0.0.1 lead to the servers that listen there outside of it.
    pub(super) async fn new(process: usize, ports: &[u16]) -> Result<Self> {
        let name = format!("tributary-chaos-{}-{process}", std::process::id());
        ip(&format!("netns add {name}")).await?;
        let mut namespace = Self { name, relays: BTreeMap::new() };
        namespace.mend().await?;
        for listener in listen(&namespace.name, ports.to_vec()).await? {
            let to = listener.local_addr()?;
            namespace.relays.insert(to.port(), Relay::new(tokio::net::TcpListener::from_std(listener)?, to));
        }
        Ok(namespace)
    }

    /// The same command, in the namespace: its process keeps the number that it was started with.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Packets are lost from now on; no connection is closed.
    pub(super) async fn cut(&self) -> Result<()> {
        ip(&format!("-n {} link set lo down", self.name)).await
    }

    /// Packets arrive again.
    pub(super) async fn mend(&self) -> Result<()> {
        ip(&format!("-n {} link set lo up", self.name)).await
    }

    /// The way to the server that listens on this port outside.
    pub(super) fn relay(&self, port: u16) -> Result<&Relay> {
        self.relays.get(&port).with_context(|| format!("no relay of namespace {} leads to port {port}", self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Listens in the namespace: a socket belongs to the namespace of the thread that made it.
async fn listen(name: &str, ports: Vec<u16>) -> Result<Vec<TcpListener>> {
    let place = Path::new("/run/netns").join(name);
    let made = std::thread::spawn(move || -> Result<Vec<TcpListener>> {
        let place = File::open(&place).with_context(|| format!("opening {}", place.display()))?;
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network)).context("entering the namespace")?;
        let listen = |port| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        ports.into_iter().map(listen).collect()
    });
    match tokio::task::spawn_blocking(|| made.join()).await? {
        Ok(listeners) => listeners,
        Err(_) => bail!("the thread that listens in the namespace panicked"),
    }
}

async fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().await.context("starting `ip`")?;
    if !output.status.success() {
        bail!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
