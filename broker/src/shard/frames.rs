//! A shard's lanes: what other shards send it, what it sends them, and who has taken what.

use std::{
    cell::RefCell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::error;

use super::{Shard, account};
use crate::{
    lanes::{
        self, Event, Flushed, Inbox, LaneEnds, LaneError, LaneReader,
        frame::{self, Content, Item, Mark},
    },
    message::Qos,
    metrics::Metric,
    receipts::Needs,
    routes::ShardId,
};

/// How long a full lane is left alone before it is tried again.
const LANE_RETRY: Duration = Duration::from_millis(1);

/// Frames read before connections get their turn. A frame is half a connection's turn, and carries
/// what many connections of another shard have sent.
const FRAMES_PER_TURN: u64 = 8;

/// Messages of another shard, or of another node.
pub(super) struct Frame<'a> {
    from: ShardId,
    bytes: &'a [u8],
    /// What they need before the sender hears that they were taken.
    needs: Needs,
    is_awaited: bool,
}

impl<'a> Frame<'a> {
    /// With what is behind the header.
    pub(super) fn new(from: ShardId, bytes: &'a [u8]) -> Self {
        Self {
            from,
            bytes,
            needs: Needs::default(),
            is_awaited: false,
        }
    }
}

/// Delivers what other shards send; joins the next Router when this one dies.
pub(super) async fn receive(
    id: ShardId,
    shard: Rc<RefCell<Shard>>,
    ends: LaneEnds,
) -> Result<(), LaneError> {
    let (ends_count, lanes) = {
        let state = shard.borrow();
        (state.shared.ends(), Arc::clone(&state.shared.lanes))
    };
    let mut inbox = Inbox::new(id, ends_count, Arc::clone(&lanes));
    let (mut reader, tx) = LaneReader::new(id, lanes, ends);
    shard.borrow_mut().outbox.rejoin(tx);
    let mut frames = 0_u64;
    loop {
        let tx = match reader.next().await? {
            Event::Joined(tx) => tx,
            Event::Frame(bytes) => {
                let is_whole = receive_frame(&shard, &mut inbox, &bytes).await;
                frames += 1;
                // The link yields only when it is empty; connections must get their turn.
                if frames.is_multiple_of(FRAMES_PER_TURN) {
                    tokio::task::yield_now().await;
                }
                if is_whole {
                    continue;
                }
                reader.rejoin(lanes::Failure::Gap).await?
            }
        };
        let mut state = shard.borrow_mut();
        state.counters.inc(Metric::LaneRestarts);
        state.outbox.rejoin(tx);
    }
}

/// Delivers a frame's messages, as many at once as a turn allows; tells whether the lane is still whole.
async fn receive_frame(shard: &RefCell<Shard>, inbox: &mut Inbox, payload: &[u8]) -> bool {
    let mut bytes = payload;
    let from = frame::read_header(&mut &*bytes).map_or(ShardId(0), |header| header.from);
    let messages = match inbox.handle_frame(&mut bytes) {
        lanes::Arrival::New { messages } => messages,
        lanes::Arrival::Ignored => return true,
        lanes::Arrival::Gap { missing } => {
            error!(missing, "frames missing on a lane");
            let missing = usize::try_from(missing).unwrap_or(usize::MAX);
            let state = shard.borrow();
            state.counters.add(Metric::LaneGaps, missing);
            return false;
        }
    };
    let mut frame = Frame::new(from, bytes);
    // What comes from other shards is held back as what comes from clients is. Another node would take
    // this one for dead; its publishers wait for the store.
    let is_neighbours = shard.borrow().is_neighbour(from);
    let relief = async || {
        if is_neighbours {
            account::store_relief(shard).await;
        }
    };
    relief().await;
    while shard.borrow_mut().take_messages(&mut frame, Instant::now()) {
        tokio::task::yield_now().await;
        relief().await;
    }
    let mut state = shard.borrow_mut();
    state.counters.inc(Metric::LaneFrames);
    state.counters.add(Metric::LaneMessages, messages as usize);
    state.frames_taken += 1;
    let finished = inbox.finish_frame();
    if let Some((from, sequence)) = finished.filter(|_frame| frame.is_awaited) {
        state.confirm_frame(from, sequence, &frame.needs);
    }
    true
}

impl Shard {
    /// Whether what comes from there comes from this node.
    fn is_neighbour(&self, from: ShardId) -> bool {
        from.0 < self.shared.shards
    }

    /// Delivers messages of a frame, as many as one turn allows; tells whether there are more.
    pub(super) fn take_messages(&mut self, frame: &mut Frame<'_>, now: Instant) -> bool {
        let work = self.begin_work();
        let noted = self.noted();
        // What another node's item waits for must not be other items: two nodes could wait for each
        // other. What is for groups is an exception: see `deliver_to_seats`.
        let is_neighbours = self.is_neighbour(frame.from);
        let mut handed_on = Needs::default();
        let mut is_more = false;
        loop {
            // What follows may be for sessions of copies.
            if !is_neighbours && self.promote_before(frame.bytes, frame.from, work, now) {
                is_more = true;
                break;
            }
            let Some(content) = frame::read_content(&mut frame.bytes, now) else {
                break;
            };
            let Item {
                message,
                seats,
                mark: Mark { source, .. },
            } = match content {
                Content::Message(item) => item,
                Content::Word { bytes, is_awaited } => {
                    frame.is_awaited |= is_awaited;
                    self.handle_word(frame.from, bytes, &mut frame.needs, now);
                    continue;
                }
            };
            let message = Arc::new(message);
            frame.is_awaited |= message.qos > Qos::AtMostOnce;
            if !seats.is_empty() {
                // What a shard has taken for its subscribers says nothing of its seats: a repeat's
                // are chosen anew.
                self.deliver_to_seats(frame.from, &seats, &message, &mut frame.needs, now);
            } else if !self.has_taken(source) {
                let noted = self.noted();
                let needs = if is_neighbours {
                    &mut frame.needs
                } else {
                    &mut handed_on
                };
                self.deliver(&message, None, needs, now);
                self.note_taken(noted, source);
            }
            if self.is_spent(work) {
                is_more = !frame.bytes.is_empty();
                break;
            }
        }
        self.need_noted(noted, &mut frame.needs);
        is_more
    }
}

/// Answers publishers when other shards have taken their messages.
pub(super) async fn hear_confirmations(id: ShardId, shard: Rc<RefCell<Shard>>) {
    let lanes = Arc::clone(&shard.borrow().shared.lanes);
    let mut taken = Vec::new();
    loop {
        lanes.confirmed(id, &mut taken).await;
        for (count, confirmation) in (1_u64..).zip(taken.drain(..)) {
            shard.borrow_mut().handle_frame_confirmation(confirmation);
            // There is an answer for each message of a frame.
            if count.is_multiple_of(FRAMES_PER_TURN) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Hands frames to the Router after each burst of packets.
pub(super) async fn send(shard: Rc<RefCell<Shard>>) {
    let work = Rc::clone(&shard.borrow().outbox_work);
    loop {
        work.notified().await;
        loop {
            let flushed = shard.borrow_mut().flush_lanes();
            match flushed {
                Flushed::All => break,
                Flushed::Blocked => tokio::time::sleep(LANE_RETRY).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::Identity, lanes::frame::Writer, session::Subscription, shard::Shared, testing,
    };

    #[test]
    fn frame_for_many_subscribers_is_taken_in_several_turns() {
        const SUBSCRIBERS: usize = 300;
        const MESSAGES: usize = 200;
        let counters = Arc::default();
        let mut shard = Shard::new(ShardId(0), Shared::for_tests("", 2), Arc::clone(&counters));
        let subscription = Subscription {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        for number in 0..SUBSCRIBERS {
            let client_id = number.to_string();
            let key = shard.open_session(&client_id, Identity::ANONYMOUS).unwrap();
            shard.subscribers.insert("t", key, subscription);
        }
        let message = testing::message([], Qos::AtLeastOnce);
        let now = Instant::now();
        let mut writer = Writer::new(ShardId(1), 1);
        for _ in 0..MESSAGES {
            writer.push(&message, &[], now);
        }
        let bytes = writer.finish();
        let mut frame = Frame::new(ShardId(1), &bytes[frame::HEADER..]);
        let queued = |shard: &Shard| -> usize {
            let sessions = shard.sessions.iter();
            sessions.map(|entry| entry.session.queue_len()).sum()
        };
        let mut turns = 1;
        let mut before = 0;
        while shard.take_messages(&mut frame, now) {
            turns += 1;
            let taken = queued(&shard) - before;
            assert!(0 < taken && taken < SUBSCRIBERS * MESSAGES / 2, "{taken}");
            before += taken;
        }
        assert!(turns > 2, "{turns}");
        assert!(frame.is_awaited);
        assert_eq!(queued(&shard), SUBSCRIBERS * MESSAGES);
    }
}
