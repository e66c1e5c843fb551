//! Waits for brokers that were started.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::lab::{Host, Process, wait_until};

/// For a broker to listen.
const START: Duration = Duration::from_secs(20);

/// Waits until a broker takes connections.
///
/// # Errors
/// When it does not, or has ended; with its log.
pub(super) fn wait(host: &Host, process: &mut Process, address: SocketAddr) -> Result<()> {
    let is_up = || {
        let connect = || Ok(TcpStream::connect(address).is_ok());
        let up = host.netns().enter(connect).unwrap_or(false);
        (up || !process.is_running()).then_some(up)
    };
    let up = wait_until(START, "the broker listening", is_up);
    let up = up.with_context(|| process.tail())?;
    ensure!(up, "the broker has ended: {}", process.tail());
    Ok(())
}
