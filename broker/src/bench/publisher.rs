//! One publishing client: decides when to write which message, and counts what comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    codec::{Ack, AckKind, PublishHead, Qos, Version, ack, publish, publish_len},
    payload::{Payload, Source, Stamp, wall_clock},
    plan::{Identity, Plan, PublishTask},
    tally::Tally,
    template::expand,
    window::{Flight, Window},
};

/// Bytes written in one go by a client that publishes as fast as it can.
const BATCH: usize = 64 * 1024;

/// A client's messages, across all its connections.
#[derive(Debug)]
pub(super) struct Publisher {
    tally: Arc<Tally>,
    tickets: Arc<Tickets>,
    version: Version,
    topic: String,
    source: Source,
    qos: Qos,
    retain: bool,
    payload: Payload,
    interval: Duration,
    inflight: u16,
    window: Window,
    next_sequence: u64,
    /// Messages written since the outgoing bytes were last handed to the kernel whole.
    unflushed: u64,
    due: Instant,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Sending,
    /// No more messages to send, only acknowledgements to wait for.
    Draining,
}

/// The messages that all clients together may still send.
#[derive(Debug)]
pub(super) struct Tickets(Option<AtomicU64>);

impl Tickets {
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self(limit.map(AtomicU64::new))
    }

    fn take(&self) -> bool {
        let Some(left) = &self.0 else { return true };
        left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok()
    }
}

impl Publisher {
    pub(super) fn new(
        plan: &Plan,
        task: &PublishTask,
        identity: &Identity,
        tally: Arc<Tally>,
        tickets: Arc<Tickets>,
    ) -> Self {
        Self {
            due: tally.start(),
            tally,
            tickets,
            version: plan.version(),
            topic: expand(&task.topic, identity.names()),
            source: Source {
                run: plan.run,
                client: identity.number,
            },
            qos: task.qos,
            retain: task.retain,
            payload: task.payload.clone(),
            interval: task.interval,
            inflight: task.inflight,
            window: Window::new(task.inflight),
            next_sequence: 0,
            unflushed: 0,
            phase: Phase::Waiting,
        }
    }

    /// Begins to send; the first message is due at `at`.
    pub(super) fn start(&mut self, at: Instant) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Sending;
            self.due = at;
        }
    }

    /// Sends nothing new from here on.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Draining;
    }

    pub(super) fn is_drained(&self) -> bool {
        self.window.is_empty()
    }

    /// Whether it would write more at once if the socket took it.
    pub(super) fn is_eager(&self) -> bool {
        self.phase == Phase::Sending && self.interval.is_zero() && self.has_room()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let timed = self.phase == Phase::Sending && !self.interval.is_zero() && self.has_room();
        timed.then_some(self.due)
    }

    /// Writes what is due.
    pub(super) fn poll(&mut self, out: &mut Vec<u8>, now: Instant) {
        if self.phase != Phase::Sending || (self.due > now && !self.interval.is_zero()) {
            return;
        }
        if self.interval.is_zero() {
            while out.len() < BATCH && self.send_next(out, now) {}
            return;
        }
        // A message that is late because this task ran late is sent with the next; what the
        // window has no room for is left out, so that the rate never bursts above the window.
        let late = now.duration_since(self.due).as_nanos() / self.interval.as_nanos();
        let due = u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1);
        self.due += self.interval * due;
        let mut left = due;
        while left > 0 && out.len() < BATCH && self.send_next(out, now) {
            left -= 1;
        }
    }

    /// Takes up again what was in flight when the last connection ended [MQTT-4.4.0-1].
    pub(super) fn resume(
        &mut self,
        out: &mut Vec<u8>,
        session_present: bool,
        receive_maximum: Option<u16>,
        now: Instant,
    ) {
        self.due = self.due.max(now);
        if self.qos == Qos::Zero {
            self.abandon_unflushed();
        }
        self.window
            .set_limit(self.inflight.min(receive_maximum.unwrap_or(u16::MAX)));
        let mut window = std::mem::replace(&mut self.window, Window::new(0));
        for flight in window.iter_mut() {
            // A server without the session has forgotten that it received the message.
            flight.released &= session_present;
            if flight.released {
                ack(out, AckKind::Rel, flight.packet_id);
            } else {
                self.write(out, flight, session_present);
            }
        }
        self.window = window;
    }

    /// All that was written is with the kernel: it counts as published.
    pub(super) fn handle_flushed(&mut self, now: Instant) {
        if self.unflushed > 0 {
            self.tally
                .published
                .add(std::mem::take(&mut self.unflushed));
            self.tally.messages.touch(now);
        }
    }

    /// Counts what will not be acknowledged because the client does not come back.
    pub(super) fn abandon(&mut self) {
        match self.qos {
            Qos::Zero => self.abandon_unflushed(),
            Qos::One | Qos::Two => {
                self.tally.abandoned.add(self.window.len() as u64);
            }
        }
    }

    fn abandon_unflushed(&mut self) {
        self.tally
            .abandoned
            .add(std::mem::take(&mut self.unflushed));
    }

    pub(super) fn handle_puback(&mut self, packet: Ack, now: Instant) {
        self.finish(packet, now);
    }

    pub(super) fn handle_pubrec(&mut self, packet: Ack, out: &mut Vec<u8>, now: Instant) {
        if packet.reason >= 0x80 {
            self.finish(packet, now);
        } else if self.window.release(packet.packet_id) {
            ack(out, AckKind::Rel, packet.packet_id);
        }
    }

    pub(super) fn handle_pubcomp(&mut self, packet: Ack, now: Instant) {
        self.finish(packet, now);
    }

    fn finish(&mut self, packet: Ack, now: Instant) {
        let Some(flight) = self.window.close(packet.packet_id) else {
            return;
        };
        self.tally.messages.touch(now);
        if packet.reason >= 0x80 {
            self.tally.refused.add(1);
            return;
        }
        self.tally.acked.add(1);
        let took = now.saturating_duration_since(flight.sent);
        self.tally.latency.record(self.source.client, took);
    }

    fn has_room(&self) -> bool {
        self.qos == Qos::Zero || self.window.has_room()
    }

    fn send_next(&mut self, out: &mut Vec<u8>, now: Instant) -> bool {
        if !self.has_room() {
            return false;
        }
        if !self.tickets.take() {
            self.phase = Phase::Draining;
            return false;
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let stamped = wall_clock();
        let packet_id = match self.qos {
            Qos::Zero => 0,
            Qos::One | Qos::Two => self.window.open(sequence, stamped, now),
        };
        let flight = Flight {
            packet_id,
            sequence,
            stamped,
            sent: now,
            released: false,
        };
        self.write(out, &flight, false);
        self.unflushed += 1;
        true
    }

    fn write(&self, out: &mut Vec<u8>, flight: &Flight, dup: bool) {
        let head = PublishHead {
            version: self.version,
            topic: self.topic.as_bytes(),
            qos: self.qos,
            retain: self.retain,
            dup,
            packet_id: flight.packet_id,
        };
        let size = self.payload.len();
        out.reserve(publish_len(&head, size));
        publish(out, &head, size);
        let stamp = Stamp {
            source: self.source,
            sequence: flight.sequence,
            sent: flight.stamped,
        };
        self.payload.append(out, &stamp);
    }
}
