//! The one list of packet outcomes.
//!
//! A [`Verdict`] is an XDP action, a counter slot and a metric label. A packet cannot leave the
//! program without one, so everything that happens to packets is counted and visible.

/// What XDP does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Pass,
    Drop,
    Transmit,
    Redirect,
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $name:ident = $action:ident, $label:literal;)*) => {
        /// How a packet's way through the program ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Verdict {
            $($(#[$doc])* $name,)*
        }

        impl Verdict {
            /// Every verdict, in the order of the counter slots.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The XDP action that goes with the verdict.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$name => Action::$action,)*
                }
            }

            /// The name in metrics, status and docs.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

verdicts! {
    /// Not IP, not TCP or UDP, or not addressed to a service: left to the host, untouched.
    PassNotOurs = Pass, "pass_not_ours";
    /// So damaged that it cannot be said whose it is: left to the host, which drops it.
    PassMalformed = Pass, "pass_malformed";
    /// Sent to a backend by MAC rewrite, out of the interface it came in by.
    TxDsr = Transmit, "tx_dsr";
    /// As [`Self::TxDsr`], out of another interface.
    RedirectDsr = Redirect, "redirect_dsr";
    /// Sent to a backend with both addresses translated.
    TxNat = Transmit, "tx_nat";
    /// As [`Self::TxNat`], out of another interface.
    RedirectNat = Redirect, "redirect_nat";
    /// A backend's reply, translated back and sent to the client.
    TxNatReply = Transmit, "tx_nat_reply";
    /// As [`Self::TxNatReply`], out of another interface.
    RedirectNatReply = Redirect, "redirect_nat_reply";
    /// Sent to a backend inside another packet.
    TxTunnel = Transmit, "tx_tunnel";
    /// As [`Self::TxTunnel`], out of another interface.
    RedirectTunnel = Redirect, "redirect_tunnel";
    /// An ICMP error about a flow, sent to the flow's backend.
    TxIcmp = Transmit, "tx_icmp";
    /// As [`Self::TxIcmp`], out of another interface.
    RedirectIcmp = Redirect, "redirect_icmp";
    /// An ICMP error about a translated flow, sent to its client.
    TxIcmpReply = Transmit, "tx_icmp_reply";
    /// As [`Self::TxIcmpReply`], out of another interface.
    RedirectIcmpReply = Redirect, "redirect_icmp_reply";
    /// Too large for the way to the backend: answered with an ICMP error that says so.
    TxTooBig = Transmit, "tx_too_big";
    /// Had no hop left: answered with an ICMP error that says so.
    TxTimeExceeded = Transmit, "tx_time_exceeded";
    /// A SYN that was answered with a challenge.
    TxChallenge = Transmit, "tx_challenge";
    /// Asked who has a virtual router's address, and was told its virtual MAC address.
    TxNeighbour = Transmit, "tx_neighbour";
    /// A ping of an address that is at a virtual MAC address, answered.
    TxEcho = Transmit, "tx_echo";
    /// Addressed to a VIP, with an IP, TCP or UDP header that contradicts itself or the frame.
    DropMalformed = Drop, "drop_malformed";
    /// Addressed to a service, but a fragment whose first piece was not seen.
    DropFragment = Drop, "drop_fragment";
    /// Addressed to a service with a TTL or hop limit that has run out.
    DropTtlExpired = Drop, "drop_ttl_expired";
    /// The service has no backend that takes the packet.
    DropNoBackend = Drop, "drop_no_backend";
    /// The backend's link-layer address is not known.
    DropNoNextHop = Drop, "drop_no_next_hop";
    /// NAT: no source address of the backend's family.
    DropNatNoSource = Drop, "drop_nat_no_source";
    /// NAT: no free port towards the backend.
    DropNatPortsExhausted = Drop, "drop_nat_ports_exhausted";
    /// NAT: the flow could not be recorded.
    DropFlowTableFull = Drop, "drop_flow_table_full";
    /// NAT: the packet belongs to no flow and cannot start one.
    DropNatUnknownFlow = Drop, "drop_nat_unknown_flow";
    /// Too large for the way to the backend, and not to be answered.
    DropTooBig = Drop, "drop_too_big";
    /// Tunnel: no source address of the backend's family.
    DropTunnelNoSource = Drop, "drop_tunnel_no_source";
    /// Every backend has as many flows as it may have.
    DropBackendsFull = Drop, "drop_backends_full";
    /// The service's access list denies the client.
    DropDenied = Drop, "drop_denied";
    /// The service has as many new connections a second as it takes.
    DropServiceRate = Drop, "drop_service_rate";
    /// The source has as many new connections a second as it may start.
    DropSourceRate = Drop, "drop_source_rate";
    /// The flow's first data is no MQTT CONNECT.
    DropNotMqtt = Drop, "drop_not_mqtt";
    /// The answer to a challenge: good, so the source may connect now.
    DropChallengeAnswered = Drop, "drop_challenge_answered";
    /// An ICMP error about a flow that is not known.
    DropIcmpUnknownFlow = Drop, "drop_icmp_unknown_flow";
    /// Asks who has a virtual router's address, which is not Active here, or not known to be any more.
    DropNotActive = Drop, "drop_not_active";
    /// The program met a state that its loader rules out.
    DropInternal = Drop, "drop_internal";
}

impl Verdict {
    /// The number of verdicts, hence of counter slots.
    pub const COUNT: usize = Self::ALL.len();

    /// The counter slot.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Action, Verdict};

    #[test]
    fn slots_are_dense_and_labels_unique() {
        let labels: BTreeSet<_> = Verdict::ALL.iter().map(|verdict| verdict.label()).collect();
        assert_eq!(labels.len(), Verdict::COUNT);
        for (slot, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(verdict.slot() as usize, slot);
        }
    }

    #[test]
    fn labels_start_with_the_action() {
        for verdict in Verdict::ALL {
            let prefix = match verdict.action() {
                Action::Pass => "pass_",
                Action::Drop => "drop_",
                Action::Transmit => "tx_",
                Action::Redirect => "redirect_",
            };
            assert!(verdict.label().starts_with(prefix), "{verdict:?}");
        }
    }
}
