//! The shard's end of one connection: an output buffer, and a way to wake or close the connection.
//!
//! Packets are encoded into the buffer when they are sent and written to the socket when the
//! connection's task next runs, so that everything sent in between leaves in one write.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    task::{Context, Waker},
    time::Instant,
};

use bytes::BytesMut;

use crate::{
    aliases::{Incoming, Outgoing, UnknownAlias},
    codec::{
        self,
        packet::{
            Ack, ConnAck, Connect, Delivery, Naming, PacketId, TopicAlias, Version, Words, reason,
        },
    },
    config::Limits,
    metrics::{Counters, Metric},
    output::Output,
    peer::Peer,
    receipts::{Acks, Receipt, Waiter},
    session::Wire,
};

/// Bytes that may wait for one client's socket before messages stay in its session's queue.
///
/// Enough for a full write of a busy connection, and little enough for thousands of slow ones.
const OUTPUT_BOUND: usize = 256 * 1024;

/// A drained buffer of more than this is given back: most connections are idle most of the time.
const IDLE_CAPACITY: usize = 2048;

/// A DISCONNECT that has a reason code.
const DISCONNECT_BYTES: usize = 3;

/// What a client is told that cannot be told anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    None,
    Disconnect,
}

/// What a client said in its CONNECT and when, for those who ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// Seconds; zero is none.
    pub(crate) keep_alive: u16,
    pub(crate) clean_start: bool,
    pub(crate) at: Instant,
}

/// What went over one connection, its CONNECT left out.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) messages_in: Cell<u64>,
    pub(crate) messages_out: Cell<u64>,
    pub(crate) bytes_in: Cell<u64>,
    pub(crate) bytes_out: Cell<u64>,
}

/// One connection as its shard sees it.
#[derive(Debug)]
pub(crate) struct Link {
    peer: Peer,
    version: Version,
    opening: Opening,
    traffic: Traffic,
    maximum_packet: usize,
    /// Of what the broker cannot do.
    words: Words,
    counters: Arc<Counters>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    output: Output,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Answers to the client's PUBLISH packets that cannot be given yet.
    acks: Acks,
    closing: bool,
    /// The client is told why: it must be able to read that before the socket is gone.
    lingers: bool,
    /// A PUBLISH stayed in the session's queue because the buffer was full.
    starved: bool,
    /// The session has more to send than it may in one turn.
    unfinished: bool,
    /// The connection's task is running or will run without a further wake-up.
    scheduled: bool,
    waker: Option<Waker>,
}

impl Link {
    pub(crate) fn new(
        peer: Peer,
        connect: &Connect,
        limits: Limits,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        let unlimited = usize::MAX;
        let maximum_packet = connect.maximum_packet.map_or(unlimited, |bytes| {
            usize::try_from(bytes).unwrap_or(unlimited)
        });
        let state = State {
            incoming: Incoming::new(limits.topic_aliases),
            outgoing: Outgoing::new(connect.topic_aliases.min(limits.topic_aliases)),
            ..State::default()
        };
        Rc::new(Self {
            peer,
            version: connect.version,
            opening: Opening {
                keep_alive: connect.keep_alive,
                clean_start: connect.clean_start,
                at: Instant::now(),
            },
            traffic: Traffic::default(),
            maximum_packet,
            words: if connect.problem_information {
                Words::Within(maximum_packet)
            } else {
                Words::None
            },
            counters,
            state: RefCell::new(state),
        })
    }

    /// Finds out which topic a PUBLISH from the client means.
    ///
    /// # Errors
    /// When the client never said what the alias stands for.
    pub(crate) fn resolve(
        &self,
        alias: TopicAlias,
        topic: &mut Box<str>,
    ) -> Result<(), UnknownAlias> {
        self.state.borrow_mut().incoming.resolve(alias, topic)
    }

    /// How the client is told the topic of a PUBLISH; `None` when there is no way to tell it in a
    /// packet that the client takes.
    fn name(&self, delivery: &Delivery) -> Option<Naming> {
        let fits = |naming| {
            self.maximum_packet == usize::MAX
                || codec::delivery_len(delivery, naming, self.version) <= self.maximum_packet
        };
        let outgoing = &mut self.state.borrow_mut().outgoing;
        outgoing
            .name(&delivery.message.topic, fits)
            .or_else(|| fits(Naming::Name).then_some(Naming::Name))
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn opening(&self) -> &Opening {
        &self.opening
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Counts bytes read from the client.
    pub(crate) fn note_read(&self, bytes: usize) {
        self.counters.add(Metric::BytesIn, bytes);
        Traffic::add(&self.traffic.bytes_in, bytes);
    }

    /// Counts bytes that its socket took.
    pub(crate) fn note_written(&self, bytes: usize) {
        self.counters.add(Metric::BytesOut, bytes);
        Traffic::add(&self.traffic.bytes_out, bytes);
    }

    /// Counts a PUBLISH of the client's.
    pub(crate) fn note_message(&self) {
        self.counters.inc(Metric::MessagesIn);
        Traffic::add(&self.traffic.messages_in, 1);
    }

    pub(crate) fn connack(&self, connack: ConnAck) {
        // There is no DISCONNECT before a CONNACK (MQTT 5, 3.14.0-1).
        self.encode_or(Farewell::None, |version, out| {
            codec::encode_connack(connack, Words::None, version, out);
        });
    }

    pub(crate) fn suback(&self, id: PacketId, codes: &[u8]) {
        self.encode(|version, out| codec::encode_suback(id, codes, self.words, version, out));
    }

    pub(crate) fn unsuback(&self, id: PacketId, codes: &[u8]) {
        self.encode(|version, out| codec::encode_unsuback(id, codes, self.words, version, out));
    }

    /// Answers a PUBLISH, once its receipt is complete and those before it are answered; until then
    /// [`Link::next_answer`] is to be asked when the waiter is told.
    pub(crate) fn acknowledge(&self, ack: Ack, receipt: Option<Rc<Receipt>>, waiter: Waiter) {
        let mut state = self.state.borrow_mut();
        if !state.acks.must_wait(receipt.as_ref()) {
            drop(state);
            (&mut &*self).ack(ack);
        } else if !state.closing {
            state.acks.push(ack, receipt, waiter);
            self.counters.inc(Metric::Unconfirmed);
        }
    }

    /// The next answer that need not wait any more.
    pub(crate) fn next_answer(&self, waiter: Waiter) -> Option<Ack> {
        let ack = self.state.borrow_mut().acks.pop(waiter)?;
        self.counters.sub(Metric::Unconfirmed, 1);
        Some(ack)
    }

    /// How many PUBLISH packets are not answered yet.
    pub(crate) fn unanswered(&self) -> usize {
        self.state.borrow().acks.len()
    }

    pub(crate) fn pingresp(&self) {
        self.encode(|_version, out| codec::encode_pingresp(out));
    }

    /// Closes the connection once its output is written, after a DISCONNECT with this reason where
    /// the protocol has one.
    pub(crate) fn close(&self, reason: u8) {
        self.refer(reason, None);
    }

    /// Closes the connection as [`Link::close`] does; tells where to go on, if there is a way to.
    pub(crate) fn refer(&self, reason: u8, servers: Option<&str>) {
        let words = self.farewell();
        self.encode(|version, out| codec::encode_referral(reason, servers, words, version, out));
        self.state.borrow_mut().lingers |= self.version.is_v5();
        self.close_silently();
    }

    /// Closes the connection as [`Link::close`] does, but leaves any client the time to read all.
    pub(crate) fn close_gently(&self, reason: u8) {
        self.state.borrow_mut().lingers = true;
        self.close(reason);
    }

    /// Closes the connection once its output is written.
    pub(crate) fn close_silently(&self) {
        let mut state = self.state.borrow_mut();
        state.closing = true;
        wake(&mut state);
    }

    /// A DISCONNECT may say why to those, too, who want to hear of problems in no other packet (MQTT
    /// 5, 3.1.2.11.7).
    fn farewell(&self) -> Words {
        Words::Within(self.maximum_packet)
    }

    fn encode(&self, write: impl FnOnce(Version, &mut BytesMut)) {
        self.encode_or(Farewell::Disconnect, write);
    }

    /// Appends a packet, or closes the connection when it is longer than the client takes (MQTT 5,
    /// 3.1.2.11.4): a client cannot go on without its answers. A PUBLISH was looked at before.
    fn encode_or(&self, farewell: Farewell, write: impl FnOnce(Version, &mut BytesMut)) {
        let mut state = self.state.borrow_mut();
        if state.closing {
            return;
        }
        let before = state.output.len();
        write(self.version, state.output.buffer());
        if state.output.len() - before > self.maximum_packet {
            state.output.truncate(before);
            if farewell == Farewell::Disconnect && self.maximum_packet >= DISCONNECT_BYTES {
                let (code, words) = (reason::PACKET_TOO_LARGE, self.farewell());
                codec::encode_disconnect(code, words, self.version, state.output.buffer());
                state.lingers = true;
            }
            state.closing = true;
        }
        if state.output.len() > before {
            self.counters.inc(Metric::PacketsOut);
        }
        wake(&mut state);
    }

    /// Marks the connection's task as running; its own output then needs no wake-up.
    pub(crate) fn begin_poll(&self, context: &Context<'_>) {
        let mut state = self.state.borrow_mut();
        state.scheduled = true;
        match &state.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            Some(_) | None => state.waker = Some(context.waker().clone()),
        }
    }

    pub(crate) fn end_poll(&self) {
        let mut state = self.state.borrow_mut();
        state.scheduled = false;
        if state.unfinished && state.is_drained() && !state.closing {
            wake(&mut state);
        }
    }

    /// Has the session asked for more in the connection's next turn.
    pub(crate) fn continue_later(&self) {
        let mut state = self.state.borrow_mut();
        state.unfinished = true;
        wake(&mut state);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state.borrow().closing
    }

    pub(crate) fn lingers(&self) -> bool {
        self.state.borrow().lingers
    }

    /// Bytes that wait for the client's socket.
    pub(crate) fn output_len(&self) -> usize {
        self.state.borrow().output.len()
    }

    /// Whether the client leaves so much unread that nothing more should be read from it.
    pub(crate) fn is_full(&self) -> bool {
        Self::would_be_full(self.state.borrow().output.len())
    }

    /// As [`Link::is_full`], for output that was taken.
    pub(crate) fn would_be_full(output: usize) -> bool {
        output >= OUTPUT_BOUND
    }

    /// Whether the session has something to send for which there is room.
    pub(crate) fn take_starved(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if !state.is_drained() {
            return false;
        }
        let unfinished = std::mem::take(&mut state.unfinished);
        std::mem::take(&mut state.starved) || unfinished
    }

    /// Has all that is said from now on wait until this parcel of the shard's is stored.
    pub(crate) fn hold(&self, number: u64) {
        self.state.borrow_mut().output.hold(number);
    }

    /// Parcels up to this one are stored.
    pub(crate) fn let_go(&self, stored: u64) {
        let mut state = self.state.borrow_mut();
        if state.output.is_held() {
            state.output.release(stored);
            wake(&mut state);
        }
    }

    /// Closes the connection without what waits to be stored: it cannot be.
    pub(crate) fn give_up_held(&self) {
        let mut state = self.state.borrow_mut();
        let is_held = state.output.is_held();
        if is_held {
            state.output.forget_held();
        }
        drop(state);
        if !is_held {
            return;
        }
        // There is no DISCONNECT before a CONNACK (MQTT 5, 3.14.0-1).
        if self.traffic.bytes_out.get() == 0 {
            self.close_silently();
        } else {
            self.close(reason::QUOTA_EXCEEDED);
        }
    }

    /// Takes what is to be written; [`Link::put_back`] returns what the socket did not take.
    pub(crate) fn take_output(&self) -> Output {
        std::mem::take(&mut self.state.borrow_mut().output)
    }

    /// Returns unwritten output. Nothing was sent meanwhile: the task that writes does not yield.
    pub(crate) fn put_back(&self, output: Output) {
        // What is held back may be yet to come: an answer that also waits for other shards.
        if !output.is_empty() || output.is_held() || output.capacity() <= IDLE_CAPACITY {
            self.state.borrow_mut().output = output;
        }
    }
}

impl Drop for Link {
    /// Who publishes and leaves hears nothing, and publishes again.
    fn drop(&mut self) {
        let unanswered = self.state.get_mut().acks.len();
        self.counters.sub(Metric::Unconfirmed, unanswered);
    }
}

impl Traffic {
    fn add(count: &Cell<u64>, amount: usize) {
        count.set(count.get().wrapping_add(amount as u64));
    }
}

impl State {
    /// Whether there is room for more than a few messages.
    fn is_drained(&self) -> bool {
        self.output.len() < OUTPUT_BOUND / 2
    }
}

fn wake(state: &mut State) {
    if !state.scheduled
        && let Some(waker) = &state.waker
    {
        state.scheduled = true;
        waker.wake_by_ref();
    }
}

impl Wire for &Link {
    fn has_room(&self) -> bool {
        let mut state = self.state.borrow_mut();
        // What a closing connection is sent would count as sent and never arrive.
        let has_room = !state.closing && state.output.len() < OUTPUT_BOUND;
        state.starved |= !has_room;
        has_room
    }

    fn publish(&mut self, delivery: &Delivery, now: Instant) -> bool {
        let Some(naming) = self.name(delivery) else {
            return false;
        };
        self.counters.inc(Metric::MessagesOut);
        Traffic::add(&self.traffic.messages_out, 1);
        self.encode(|version, out| codec::encode_delivery(delivery, naming, version, now, out));
        true
    }

    fn ack(&mut self, ack: Ack) {
        self.encode(|version, out| codec::encode_ack(ack, self.words, version, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_that_is_yet_to_come_stays_held_back() {
        let connect = Connect::for_tests(Version::V311, "c");
        let limits = crate::shard::Shared::for_tests("", 1).limits();
        let link = Link::new(Peer::for_tests(), &connect, limits, Arc::default());
        // A buffer that is worth giving back.
        link.suback(PacketId::MIN, &[0; 2 * IDLE_CAPACITY]);
        link.hold(1);
        let mut output = link.take_output();
        output.advance(output.len());
        link.put_back(output);
        link.pingresp();
        assert!(link.take_output().writable().is_empty());
    }
}
