//! Hears the adverts of virtual routers, as the hosts on their link do.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt::set_ip_add_membership;
use rustix::net::{Protocol, RawProtocol, RecvFlags, recv};

use super::nodes::v4;
use crate::lab::{Family, Host, raw_socket, run_first};

/// The protocol number of VRRP, and the group that adverts go to (RFC 9568, 5.1.1.2, 5.1.1.4).
const VRRP: u32 = 112;
const ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Waits for the next advert of a host, and returns when it came.
///
/// # Errors
/// When none comes within `patience`.
pub(super) fn next(client: &Host, from: Ipv4Addr, patience: Duration) -> Result<Instant> {
    let own = v4(client.address(Family::V4));
    client.netns().enter(|| {
        let _ = run_first();
        let number = RawProtocol::new(VRRP).context("a protocol number")?;
        let socket = raw_socket(Protocol::from_raw(number)).context("no raw socket for adverts")?;
        set_ip_add_membership(&socket, &ROUTERS, &own).context("cannot join the routers")?;
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 256];
        while Instant::now() < deadline {
            let Ok((length, _)) = recv(&socket, &mut buffer[..], RecvFlags::empty()) else {
                continue;
            };
            if length > 20 && buffer[12..16] == from.octets() {
                return Ok(Instant::now());
            }
        }
        anyhow::bail!("no advert of {from} within {patience:?}")
    })
}
