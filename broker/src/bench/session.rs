//! One connection of one client as a state machine: bytes out, packets in, time passed in.
//!
//! ```text
//! connect --CONNACK--> [subscribing --SUBACK-->] up --stop--> closing (drained or overdue)
//! ```

use std::time::{Duration, Instant};

use super::{
    codec::{ConnAck, Connect, Malformed, Packet, Version, connect, ping},
    plan::{Identity, Plan},
    publisher::Publisher,
    subscriber::Subscriber,
    tally::Tally,
};

/// How long a publisher waits for acknowledgements after it was told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// What a client is for; it outlives the connection.
#[derive(Debug)]
pub(super) enum Role {
    Hold,
    Publish(Publisher),
    Subscribe(Subscriber),
}

/// Why a connection is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("connection refused with code {0:#04x}")]
    Refused(u8),
    #[error("subscription refused with code {0:#04x}")]
    SubscriptionRefused(u8),
    #[error("server disconnected with reason {0:#04x}")]
    Disconnected(u8),
    #[error("no {0} in time")]
    Silent(&'static str),
    #[error("unexpected packet from the server")]
    Unexpected,
}

/// State of one connection.
#[derive(Debug)]
pub(super) struct Session<'a> {
    role: &'a mut Role,
    tally: &'a Tally,
    number: u32,
    version: Version,
    timeout: Duration,
    phase: Phase,
    opened: Instant,
    ping_interval: Option<Duration>,
    ping_due: Option<Instant>,
    ping_sent: Option<Instant>,
    stop: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Subscribing,
    Up,
}

impl<'a> Session<'a> {
    /// Writes CONNECT; `opened` is when the TCP connection was begun.
    pub(super) fn open(
        plan: &Plan,
        identity: &Identity,
        role: &'a mut Role,
        tally: &'a Tally,
        out: &mut Vec<u8>,
        opened: Instant,
    ) -> Self {
        let common = &plan.common;
        let packet = Connect {
            version: plan.version(),
            client_id: &identity.client_id,
            clean: common.clean,
            keep_alive: common.keepalive,
            username: identity.username.as_deref(),
            password: identity.password.as_deref(),
            session_expiry: if common.clean {
                0
            } else {
                u32::try_from(common.session_expiry.as_secs()).unwrap_or(u32::MAX)
            },
        };
        connect(out, &packet);
        Self {
            role,
            tally,
            number: identity.number,
            version: plan.version(),
            timeout: common.timeout,
            phase: Phase::Connecting,
            opened,
            ping_interval: plan.ping_interval,
            ping_due: None,
            ping_sent: None,
            stop: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Whether the role has more to write as soon as the socket takes it.
    pub(super) fn is_eager(&self) -> bool {
        match &*self.role {
            Role::Publish(publisher) => self.is_up() && publisher.is_eager(),
            Role::Hold | Role::Subscribe(_) => false,
        }
    }

    /// Lets a publisher begin.
    pub(super) fn start_publishing(&mut self, at: Instant) {
        if let Role::Publish(publisher) = self.role {
            publisher.start(at);
        }
    }

    /// Begins the orderly end.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stop = Some(now);
        if let Role::Publish(publisher) = self.role {
            publisher.stop();
        }
    }

    /// After [`Self::stop`]: whether the connection may be closed.
    pub(super) fn may_close(&self, now: Instant) -> bool {
        let Some(stopped) = self.stop else {
            return false;
        };
        let drained = match &*self.role {
            Role::Publish(publisher) => publisher.is_drained(),
            Role::Hold | Role::Subscribe(_) => true,
        };
        drained || !self.is_up() || now >= stopped + DRAIN
    }

    /// When [`Self::poll`] has something to do even if nothing arrives.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.is_up() {
            return Some(self.opened + self.timeout);
        }
        let ping = match self.ping_sent {
            Some(sent) => Some(sent + self.timeout),
            None => self.ping_due,
        };
        let role = match &*self.role {
            Role::Publish(publisher) => publisher.deadline(),
            Role::Hold | Role::Subscribe(_) => None,
        };
        let drain = self.stop.map(|stopped| stopped + DRAIN);
        [ping, role, drain].into_iter().flatten().min()
    }

    /// Writes what is due and notices what is overdue.
    pub(super) fn poll(&mut self, out: &mut Vec<u8>, now: Instant) -> Result<(), SessionError> {
        match self.phase {
            Phase::Connecting if now >= self.opened + self.timeout => {
                return Err(SessionError::Silent("CONNACK"));
            }
            Phase::Subscribing if now >= self.opened + self.timeout => {
                return Err(SessionError::Silent("SUBACK"));
            }
            Phase::Connecting | Phase::Subscribing => return Ok(()),
            Phase::Up => {}
        }
        if self
            .ping_sent
            .is_some_and(|sent| now >= sent + self.timeout)
        {
            return Err(SessionError::Silent("PINGRESP"));
        }
        if self.ping_sent.is_none() && self.ping_due.is_some_and(|due| now >= due) {
            ping(out);
            self.ping_sent = Some(now);
        }
        if let Role::Publish(publisher) = self.role {
            publisher.poll(out, now);
        }
        Ok(())
    }

    /// All that was written is with the kernel.
    pub(super) fn handle_flushed(&mut self, now: Instant) {
        if let Role::Publish(publisher) = self.role {
            publisher.handle_flushed(now);
        }
    }

    /// Takes one packet from the server.
    pub(super) fn handle(
        &mut self,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), SessionError> {
        match (packet, &mut *self.role) {
            (Packet::ConnAck(packet), _) => self.handle_connack(*packet, out, now),
            (Packet::SubAck { codes, .. }, _) => self.handle_suback(codes, now),
            (Packet::PingResp, _) => {
                self.handle_pingresp(now);
                Ok(())
            }
            (Packet::Disconnect { reason }, _) => Err(SessionError::Disconnected(*reason)),
            (Packet::Publish(packet), Role::Subscribe(subscriber)) => {
                subscriber.handle_publish(packet, out, now);
                Ok(())
            }
            (Packet::PubRel(packet), Role::Subscribe(subscriber)) => {
                subscriber.handle_pubrel(*packet, out);
                Ok(())
            }
            (Packet::PubAck(packet), Role::Publish(publisher)) => {
                publisher.handle_puback(*packet, now);
                Ok(())
            }
            (Packet::PubRec(packet), Role::Publish(publisher)) => {
                publisher.handle_pubrec(*packet, out, now);
                Ok(())
            }
            (Packet::PubComp(packet), Role::Publish(publisher)) => {
                publisher.handle_pubcomp(*packet, now);
                Ok(())
            }
            // Also what a session kept from an earlier run with another task brings.
            (
                Packet::Publish(_)
                | Packet::PubRel(_)
                | Packet::PubAck(_)
                | Packet::PubRec(_)
                | Packet::PubComp(_),
                _,
            ) => Err(SessionError::Unexpected),
        }
    }

    fn handle_connack(
        &mut self,
        packet: ConnAck,
        out: &mut Vec<u8>,
        now: Instant,
    ) -> Result<(), SessionError> {
        if self.phase != Phase::Connecting {
            return Err(SessionError::Unexpected);
        }
        if packet.code != 0 {
            return Err(SessionError::Refused(packet.code));
        }
        if let Some(seconds) = packet.server_keep_alive.filter(|&seconds| seconds > 0) {
            let half = Duration::from_secs(u64::from(seconds)) / 2;
            self.ping_interval = Some(self.ping_interval.map_or(half, |own| own.min(half)));
        }
        self.tally
            .connect
            .record(self.number, now.saturating_duration_since(self.opened));
        match self.role {
            Role::Hold => {}
            Role::Publish(publisher) => {
                let present = packet.session_present;
                publisher.resume(out, present, packet.receive_maximum, now);
            }
            Role::Subscribe(subscriber) => {
                subscriber.resume(out, packet.session_present);
                self.phase = Phase::Subscribing;
                return Ok(());
            }
        }
        self.come_up(now);
        Ok(())
    }

    fn handle_suback(&mut self, codes: &[u8], now: Instant) -> Result<(), SessionError> {
        if let Some(&code) = codes.iter().find(|&&code| code >= 0x80) {
            return Err(SessionError::SubscriptionRefused(code));
        }
        if self.phase == Phase::Subscribing {
            self.come_up(now);
        }
        Ok(())
    }

    fn come_up(&mut self, now: Instant) {
        self.phase = Phase::Up;
        // Clients that came up together spread their first PINGREQ over the interval.
        self.ping_due = self
            .ping_interval
            .map(|interval| now + interval.mul_f64(share(self.number)));
    }

    fn handle_pingresp(&mut self, now: Instant) {
        if let Some(sent) = self.ping_sent.take() {
            self.tally
                .round_trip
                .record(self.number, now.saturating_duration_since(sent));
            self.ping_due = self
                .ping_interval
                .map(|interval| (sent + interval).max(now));
        }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }
}

/// A share of 1 for each client, evenly spread over any run of numbers (the golden ratio).
pub(super) fn share(number: u32) -> f64 {
    ((f64::from(number) + 1.0) * 0.618_033_988_749_895).fract()
}

#[cfg(test)]
mod tests;
