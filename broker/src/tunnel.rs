//! Behind a balancer that tunnels: takes clients' packets out of their tunnels.
//!
//! The XDP program is attached through a link that this process holds, so it goes with the process,
//! however that ends. Answers to clients are not tunnelled; they leave as they do without a balancer.

use lb_decap::{Config, Decap, DecapError, Mode};
use tracing::info;

use crate::{
    config::{Tunnel, Vip},
    metrics::{render_head, render_value},
    vip::{VipError, interface_mtu},
};

/// What the largest tunnel adds: an IPv6 header and a UDP header for GUE (RFC 8200, 3; RFC 768).
const TUNNEL_HEADERS: u32 = 40 + 8;

/// What surrounds the data of a segment inside: an IPv6 header and a TCP header.
const INNER_HEADERS: u32 = 40 + 20;

/// Why packets cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    #[error("cannot unpack tunnelled packets")]
    Decap(#[from] DecapError),
    #[error("cannot find the MTU of {interface}")]
    Mtu {
        interface: String,
        #[source]
        source: VipError,
    },
    #[error("an MTU of {mtu} on {interface} leaves no room for tunnelled packets: give tunnel.mss")]
    NoRoom { interface: String, mtu: u32 },
}

/// The attached program; packets stay packed when it is dropped.
pub(crate) struct Unpacker {
    decap: Decap,
    mss: u16,
}

impl Unpacker {
    /// Attaches the program.
    ///
    /// # Errors
    /// When the interface is not there or has a program already, or the kernel refuses ours.
    pub(crate) async fn start(tunnel: &Tunnel, vip: &Vip) -> Result<Self, TunnelError> {
        let interface = &tunnel.interface;
        let mss = match tunnel.mss {
            Some(mss) => mss,
            None => mss_for(interface, mtu_of(interface).await?)?,
        };
        let mut decap = Decap::open(&Config {
            interface: interface.clone(),
            mode: tunnel.mode,
            sources: tunnel.from.clone(),
            vips: vip.addresses.iter().map(|&(address, _)| address).collect(),
            gue_port: tunnel.port,
        })?;
        let mode = match decap.attach()? {
            Mode::Generic => "generic",
            Mode::Auto | Mode::Native => "native",
        };
        info!(interface, mode, mss, "tunnelled packets are unpacked");
        Ok(Self { decap, mss })
    }

    /// The largest segment that clients are to send: it still fits when it is tunnelled.
    pub(crate) const fn mss(&self) -> u16 {
        self.mss
    }

    /// Appends its counters in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        // Without its counters the rest is still worth reading.
        let Ok(counts) = self.decap.counts() else {
            return;
        };
        let name = "tunnel_packets_total";
        render_head(out, name, "counter", "Packets by what the unpacker did.");
        for (outcome, count) in counts {
            let label = format!("outcome=\"{}\"", outcome.label());
            render_value(out, name, &label, count);
        }
    }
}

async fn mtu_of(interface: &str) -> Result<u32, TunnelError> {
    let mtu = interface_mtu(interface).await;
    mtu.map_err(|source| TunnelError::Mtu {
        interface: interface.to_owned(),
        source,
    })
}

fn mss_for(interface: &str, mtu: u32) -> Result<u16, TunnelError> {
    let mss = mtu.saturating_sub(TUNNEL_HEADERS + INNER_HEADERS);
    // Linux takes no smaller one.
    if mss < u32::from(Tunnel::MSS_MIN) {
        let interface = interface.to_owned();
        return Err(TunnelError::NoRoom { interface, mtu });
    }
    Ok(u16::try_from(mss).unwrap_or(u16::MAX).min(Tunnel::MSS_MAX))
}

#[cfg(test)]
mod tests {
    use super::{Tunnel, mss_for};

    #[test]
    fn segments_leave_room_for_the_largest_tunnel() {
        assert_eq!(mss_for("eth0", 1500).unwrap(), 1392);
        assert_eq!(mss_for("eth0", 65_536).unwrap(), Tunnel::MSS_MAX);
        let error = mss_for("eth0", 128).unwrap_err().to_string();
        assert!(error.contains("128") && error.contains("eth0"), "{error}");
    }
}
