//! Free loopback ports.
//!
//! They are taken below the range that the kernel gives to outgoing connections (32768 and up on Linux), because a port
//! must stay ours while its server is killed and started again. A lock file per port keeps two processes from choosing
//! the same one.

use crate::cache::{self, Lock};
use anyhow::{Context as _, Result, bail};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

const RANGE: Range<u16> = 20_000..32_000;

/// A port that no other handle, of this or another process, takes while this one lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: Option<Lock>,
}

/// Takes the wanted port, or a free one.
pub(crate) fn take(wanted: Option<u16>) -> Result<Port> {
    match wanted {
        Some(number) => {
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).with_context(|| {
                format!("port {number} on 127.0.0.1 is taken: stop its owner or choose another port")
            })?;
            Ok(Port { number, _lock: None })
        }
        None => free(),
    }
}

fn free() -> Result<Port> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let folder = cache::subfolder("run/ports")?;
    let size = RANGE.end - RANGE.start;
    // Processes that run at the same time begin at different places, so they seldom meet.
    let start = u16::try_from(std::process::id() * 37 % u32::from(size))?;
    for _ in 0..size {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % size;
        let number = RANGE.start + (start + step) % size;
        let Some(lock) = cache::try_lock(&folder.join(format!("{number}.lock")))? else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
            return Ok(Port { number, _lock: Some(lock) });
        }
    }
    bail!("no free port between {} and {} on 127.0.0.1: stop what holds them", RANGE.start, RANGE.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_while_both_are_held() {
        let (first, second) = (take(None).unwrap(), take(None).unwrap());
        assert_ne!(first.number, second.number);
        assert!(RANGE.contains(&first.number));
    }
}
