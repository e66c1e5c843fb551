use std::sync::Arc;

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::{frame::Writer, *};
use crate::{
    codec::packet::PacketId,
    message::{Message, MessageId, Qos},
    session::journal::{Origin, SessionId},
    shares::{Seat, ShareId},
};

fn message(topic: &str, payload: &[u8]) -> Message {
    Message {
        topic: topic.into(),
        payload: payload.into(),
        properties: Box::default(),
        qos: Qos::AtLeastOnce,
        retain: true,
        expires: None,
        id: MessageId::NONE,
    }
}

/// Two shards; the second one reads.
struct Pair {
    lanes: Arc<Lanes>,
    outbox: Outbox,
    inbox: Inbox,
    rx: LinkRx,
    generation: u64,
}

impl Pair {
    fn new() -> Self {
        let lanes = Arc::new(Lanes::start(2).unwrap());
        let mut outbox = Outbox::new(ShardId(0), 2, Arc::clone(&lanes));
        outbox.rejoin(lanes.join(ShardId(0), None).unwrap().tx);
        let LaneEnds {
            generation,
            rx,
            tx: _,
        } = lanes.join(ShardId(1), None).unwrap();
        let inbox = Inbox::new(ShardId(1), 2, Arc::clone(&lanes));
        Self {
            lanes,
            outbox,
            inbox,
            rx,
            generation,
        }
    }

    fn push(&mut self, payload: &[u8]) {
        self.outbox
            .push(ShardId(1), &message("ä/b", payload), &[], Instant::now());
    }

    /// The next frame's bytes, or that the Router is gone.
    fn next(&mut self) -> Result<Bytes, Box<LinkError>> {
        loop {
            match self.rx.recv_deadline(Instant::now() + JOIN_TIMEOUT)? {
                Some(Notification::Forward(forward)) => return Ok(forward.publish.payload),
                Some(Notification::Unschedule) => self.rx.ready()?,
                Some(_) | None => {}
            }
        }
    }

    fn read(&mut self) -> Vec<Vec<u8>> {
        let bytes = self.next().unwrap();
        let mut rest = &bytes[..];
        let messages = match self.inbox.handle_frame(&mut rest) {
            Arrival::New { messages } => messages,
            Arrival::Ignored => return Vec::new(),
            Arrival::Gap { missing } => panic!("{missing} frames missing"),
        };
        let read = || frame::read_message(&mut rest, Instant::now());
        let payloads: Vec<_> = std::iter::from_fn(read)
            .map(|(message, _seats)| message.payload.to_vec())
            .collect();
        assert_eq!(payloads.len(), messages as usize);
        self.inbox.finish_frame();
        payloads
    }

    /// Both shards join the Router after the one that failed.
    fn rejoin(&mut self) {
        let failed = Some(self.generation);
        let ends = self.lanes.join(ShardId(1), failed).unwrap();
        assert_eq!(ends.generation, self.generation + 1);
        self.rx = ends.rx;
        let again = self.lanes.join(ShardId(0), failed).unwrap();
        assert_eq!(again.generation, ends.generation);
        self.outbox.rejoin(again.tx);
    }
}

#[test]
fn messages_cross_in_order_and_in_one_frame() {
    let mut pair = Pair::new();
    pair.push(b"1");
    pair.push(b"2");
    assert_eq!(pair.outbox.flush(), Flushed::All);
    pair.push(b"3");
    assert_eq!(pair.outbox.flush(), Flushed::All);
    assert_eq!(pair.read(), vec![b"1".to_vec(), b"2".to_vec()]);
    assert_eq!(pair.read(), vec![b"3".to_vec()]);
}

#[test]
fn frame_is_delivered_when_its_messages_are() {
    let mut pair = Pair::new();
    pair.push(b"1");
    assert_eq!(pair.outbox.flush(), Flushed::All);
    assert_eq!(pair.outbox.frames(), 1);
    let bytes = pair.next().unwrap();
    let arrival = pair.inbox.handle_frame(&mut &bytes[..]);
    assert_eq!(arrival, Arrival::New { messages: 1 });
    assert!(!pair.outbox.is_delivered());
    pair.inbox.finish_frame();
    assert!(pair.outbox.is_delivered());
}

#[test]
fn many_frames_pass_the_routers_own_limits() {
    const FRAMES: u32 = 1000;
    let mut pair = Pair::new();
    for number in 0..FRAMES {
        pair.push(&number.to_be_bytes());
        assert_eq!(pair.outbox.flush(), Flushed::All);
    }
    for number in 0..FRAMES {
        assert_eq!(pair.read(), vec![number.to_be_bytes().to_vec()]);
    }
}

#[test]
fn bytes_under_way_are_bounded_and_nothing_is_lost() {
    let mut pair = Pair::new();
    let payload = vec![7; 1024 * 1024];
    let sent = 20;
    for _ in 0..sent {
        pair.push(&payload);
    }
    assert_eq!(pair.outbox.flush(), Flushed::Blocked);
    assert!(pair.outbox.is_congested());
    let mut read = 0;
    while read < sent {
        read += pair.read().len();
        pair.outbox.flush();
    }
    assert!(!pair.outbox.is_congested());
    assert_eq!(pair.outbox.flush(), Flushed::All);
}

#[test]
fn missing_frames_are_noticed_and_a_repeat_is_ignored() {
    let pair = Pair::new();
    let mut inbox = pair.inbox;
    let mut frame = |sequence| {
        let mut writer = Writer::new(ShardId(0), sequence);
        writer.push(&message("t", b"x"), &[], Instant::now());
        let bytes = writer.finish();
        inbox.handle_frame(&mut &bytes[..])
    };
    let new = Arrival::New { messages: 1 };
    assert_eq!(frame(1), new);
    assert_eq!(frame(4), Arrival::Gap { missing: 2 });
    assert_eq!([frame(2), frame(3), frame(4)], [new; 3]);
    assert_eq!(frame(4), Arrival::Ignored);
    assert_eq!(inbox.handle_frame(&mut &b"short"[..]), Arrival::Ignored);
    let from_nowhere = Writer::new(ShardId(9), 1).finish();
    assert_eq!(inbox.handle_frame(&mut &from_nowhere[..]), Arrival::Ignored);
}

/// A wake-up for a link that the Router has forgotten is more than it can take.
pub(super) fn panic_router(mut tx: LinkTx, mut rx: LinkRx) {
    let goodbye = rumqttd::protocol::Disconnect {
        reason_code: rumqttd::protocol::DisconnectReasonCode::NormalDisconnection,
    };
    tx.buffer()
        .push_back(rumqttd::protocol::Packet::Disconnect(goodbye, None));
    tx.try_publish("nudge", "").unwrap();
    while rx.recv().is_ok() {}
    rx.ready().unwrap();
}

/// What has no lane is dropped by the Router, which then waits for this to be possible.
struct Stone(std::sync::mpsc::Receiver<()>);

impl AsRef<[u8]> for Stone {
    fn as_ref(&self) -> &[u8] {
        b"stone"
    }
}

impl Drop for Stone {
    fn drop(&mut self) {
        // Nothing is sent: the other end goes.
        let _ = self.0.recv();
    }
}

pub(super) fn hang_router(mut tx: LinkTx) -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel();
    let stone = Bytes::from_owner(Stone(released));
    tx.try_publish("nowhere", stone).unwrap();
    release
}

#[test]
fn a_dead_router_is_replaced_and_its_frames_are_sent_again() {
    let mut pair = Pair::new();
    pair.push(b"before");
    pair.outbox.flush();
    assert_eq!(pair.read(), vec![b"before".to_vec()]);
    pair.lanes.kill_router();
    while pair.rx.recv().is_ok() {}
    pair.push(b"into the void");
    pair.outbox.flush();

    pair.rejoin();
    assert_eq!(pair.read(), vec![b"into the void".to_vec()]);
    pair.push(b"after");
    pair.outbox.flush();
    assert_eq!(pair.read(), vec![b"after".to_vec()]);
}

/// Reads a frame as soon as there is one, over as many Routers as it takes.
async fn read_over_routers(pair: &mut Pair) -> Vec<Vec<u8>> {
    let mut generations = pair.lanes.generations();
    loop {
        let next = tokio::select! {
            () = replaced(&mut generations, pair.generation) => Err(()),
            next = pair.rx.next() => next.map_err(drop),
        };
        match next {
            Ok(Some(Notification::Forward(forward))) => {
                let mut rest = &forward.publish.payload[..];
                if let Arrival::New { .. } = pair.inbox.handle_frame(&mut rest) {
                    pair.inbox.finish_frame();
                    let read = || frame::read_message(&mut rest, Instant::now());
                    let messages = std::iter::from_fn(read);
                    return messages
                        .map(|(message, _)| message.payload.to_vec())
                        .collect();
                }
            }
            Ok(_) => {}
            Err(()) => {
                replaced(&mut generations, pair.generation).await;
                let failed = Some(pair.generation);
                let ends = pair.lanes.join(ShardId(1), failed).unwrap();
                (pair.generation, pair.rx) = (ends.generation, ends.rx);
                let again = pair.lanes.join(ShardId(0), failed).unwrap();
                pair.outbox.rejoin(again.tx);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn router_that_hangs_is_replaced_like_one_that_dies() {
    let mut pair = Pair::new();
    let lanes = Arc::clone(&pair.lanes);
    let supervisor = tokio::spawn(supervise(Arc::clone(&lanes), Duration::from_millis(50)));
    let mut hanging = Vec::new();
    for round in 0..4_u8 {
        pair.push(&[round]);
        pair.outbox.flush();
        let read = tokio::time::timeout(JOIN_TIMEOUT * 4, read_over_routers(&mut pair));
        assert_eq!(read.await.unwrap(), [[round]]);
        if round % 2 == 0 {
            hanging.push(lanes.hang_router());
        } else {
            lanes.kill_router();
        }
    }
    pair.push(b"last");
    pair.outbox.flush();
    let read = tokio::time::timeout(JOIN_TIMEOUT * 4, read_over_routers(&mut pair));
    assert_eq!(read.await.unwrap(), [b"last"]);
    let health = lanes.health();
    assert!(health.hung >= 2 && health.died >= 2, "{health:?}");
    assert!(!health.is_silent(Instant::now()));
    supervisor.abort();
}

#[test]
fn failure_is_counted_once_and_only_of_the_router_in_use() {
    let pair = Pair::new();
    for _ in 0..2 {
        assert_eq!(pair.lanes.report(1, Failure::Gap), Duration::ZERO);
    }
    pair.lanes.join(ShardId(0), Some(1)).unwrap();
    assert_eq!(pair.lanes.report(1, Failure::Died), Duration::ZERO);
    assert!(pair.lanes.report(2, Failure::Died) > Duration::ZERO);
    let Health {
        died, hung, gaps, ..
    } = pair.lanes.health();
    assert_eq!((died, hung, gaps), (1, 0, 1));
    assert!(!pair.lanes.health().is_silent(Instant::now()));
    let later = Instant::now() + Duration::from_secs(7);
    assert!(pair.lanes.health().is_silent(later));
}

#[test]
fn frames_that_the_router_lost_are_sent_again() {
    let mut pair = Pair::new();
    for number in 0..3 {
        pair.push(&[number]);
        pair.outbox.flush();
    }
    assert_eq!(pair.read(), [[0]]);
    let _lost = pair.next().unwrap();
    let third = pair.next().unwrap();
    let arrival = pair.inbox.handle_frame(&mut &third[..]);
    assert_eq!(arrival, Arrival::Gap { missing: 1 });
    pair.rejoin();
    assert_eq!([pair.read(), pair.read()], [[[1]], [[2]]]);
    // The lane has all of its room again.
    let in_flight = &pair.lanes.flows[1].in_flight;
    assert_eq!(in_flight.load(Ordering::Acquire), 0);
}

#[test]
fn what_is_to_be_acknowledged_is_found_behind_messages_of_an_origin() {
    let origin = Origin {
        session: SessionId(7),
        id: PacketId::MIN,
    };
    let mark = frame::Mark {
        source: Some(frame::Source {
            origin,
            is_repeat: true,
        }),
        ..frame::Mark::default()
    };
    let mut unanswered = message("t", b"x");
    unanswered.qos = Qos::AtMostOnce;
    let now = Instant::now();
    for is_awaited in [false, true] {
        let mut writer = Writer::new(ShardId(0), 1);
        writer.push_marked(mark, &unanswered, &[], now);
        if is_awaited {
            writer.push_marked(mark, &message("t", b"y"), &[], now);
        }
        let bytes = writer.finish();
        assert_eq!(frame::is_awaited(&bytes[frame::HEADER..]), is_awaited);
    }
}

#[test]
fn only_what_is_retained_says_since_when() {
    let now = Instant::now();
    let mark = frame::Mark {
        source: None,
        retained_at: 77,
    };
    let retained = message("t", b"x");
    let mut other = message("t", b"y");
    other.retain = false;
    let mut writer = Writer::new(ShardId(0), 1);
    writer.push_marked(mark, &retained, &[], now);
    writer.push_marked(mark, &other, &[], now);
    let bytes = writer.finish();
    let mut rest = &bytes[frame::HEADER..];
    assert_eq!(frame::count_messages(rest), 2);
    let mut read = || frame::read_item(&mut rest, now).unwrap();
    let first = read();
    assert_eq!((&first.message, first.mark), (&retained, mark));
    assert_eq!(read().mark, frame::Mark::default());
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn frames_hold_any_message(
        messages in vec(("\\PC{0,20}", vec(any::<u8>(), 0..50), vec(any::<u8>(), 0..9), 0..3_u8), 0..9),
        id in (any::<u64>(), any::<u64>()),
        lifetime in proptest::option::of(0..100_000_u64),
        seats in vec((any::<u64>(), any::<u32>(), any::<u8>()), 0..5),
    ) {
        let now = Instant::now();
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(topic, payload, properties, qos)| Message {
                topic: topic.into(),
                payload: payload.into(),
                properties: properties.into(),
                qos: Qos::from_bits(qos).unwrap(),
                retain: qos == 1,
                expires: lifetime.map(|millis| now + Duration::from_millis(millis)),
                id: MessageId { run: id.0 * u64::from(qos > 0), number: id.1 },
            })
            .collect();
        let seats: Vec<_> = seats
            .into_iter()
            .map(|(share, session, hops)| Seat { share: ShareId(share), session, hops })
            .collect();
        let mut writer = Writer::new(ShardId(3), 42);
        messages.iter().for_each(|message| writer.push(message, &seats, now));
        let bytes = writer.finish();
        let mut rest = &bytes[..];
        let header = frame::read_header(&mut rest).unwrap();
        prop_assert_eq!((header.from, header.sequence), (ShardId(3), 42));
        let is_awaited = messages.iter().any(|message| message.qos > Qos::AtMostOnce);
        prop_assert_eq!(frame::is_awaited(rest), is_awaited);
        let is_any = !messages.is_empty();
        prop_assert_eq!(frame::has_seats(rest), is_awaited && !seats.is_empty());
        let others = frame::without_seats(&bytes.slice(frame::HEADER..));
        let left = |message: &&Message| seats.is_empty() || message.qos == Qos::AtMostOnce;
        let left = messages.iter().filter(left).count();
        prop_assert_eq!(frame::count_messages(&others), left);
        prop_assert!(!frame::has_seats(&others));
        let is_handed_on = is_any && seats.iter().any(|seat| seat.hops > 1);
        prop_assert_eq!(frame::is_handed_on(rest), is_handed_on);
        let read: Vec<_> = std::iter::from_fn(|| frame::read_message(&mut rest, now)).collect();
        let sent: Vec<_> = messages.into_iter().map(|message| (message, seats.clone())).collect();
        prop_assert_eq!(read, sent);
    }

    #[test]
    fn words_are_read_between_messages(words in vec((vec(any::<u8>(), 0..50), any::<bool>()), 0..9)) {
        let now = Instant::now();
        let mut between = message("t", b"x");
        between.qos = Qos::AtMostOnce;
        let mut writer = Writer::new(ShardId(3), 42);
        for (word, is_awaited) in &words {
            writer.push_word(word, *is_awaited);
            writer.push(&between, &[], now);
        }
        let bytes = writer.finish();
        let mut rest = &bytes[frame::HEADER..];
        let is_awaited = words.iter().any(|(_word, is_awaited)| *is_awaited);
        prop_assert_eq!(frame::is_awaited(rest), is_awaited);
        prop_assert_eq!(frame::count_messages(rest), words.len());
        for (word, is_awaited) in &words {
            let (bytes, is_awaited) = (&word[..], *is_awaited);
            let expected = Some(frame::Content::Word { bytes, is_awaited });
            prop_assert_eq!(frame::read_content(&mut rest, now), expected);
            let Some(frame::Content::Message(item)) = frame::read_content(&mut rest, now) else {
                panic!("no message");
            };
            prop_assert_eq!(&item.message, &between);
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn arbitrary_frames_never_panic(bytes in vec(any::<u8>(), 0..100)) {
        let mut rest = &bytes[..];
        let _ = frame::is_handed_on(rest) && frame::has_seats(rest);
        let others = frame::without_seats(&Bytes::copy_from_slice(rest));
        prop_assert!(others.len() <= rest.len());
        if frame::read_header(&mut rest).is_some() {
            frame::is_awaited(rest);
            while frame::read_content(&mut rest, Instant::now()).is_some() {}
        }
    }
}
