//! When publishers are answered: not before every shard that a message is for has taken it.

use std::sync::mpsc;

use super::{
    ALL, Broker,
    client::{Client, Hello, packet},
};
use crate::{codec::packet::Version, metrics::Metric, routes::ShardId, shard::Request};

/// A shard that does nothing for as long as this is held.
pub(super) struct Hung(#[expect(dead_code, reason = "its end is what counts")] mpsc::Sender<()>);

impl Broker {
    pub(super) async fn hang(&self, shard: u16) -> Hung {
        let (hold, held) = mpsc::channel();
        let shards = self.node.status().shards();
        let order = |answer| Request::Hang(answer, held);
        shards.ask(ShardId(shard), order).await.unwrap();
        Hung(hold)
    }

    async fn join_on(&self, shard: u16, version: Version, name: &str) -> Client {
        self.join(version, &self.id_on(shard, name)).await
    }
}

impl Client {
    /// The next packet answers a PUBLISH.
    async fn expect_answer(&mut self, kind: u8, id: u16) {
        let (first, body) = self.recv().await;
        assert_eq!((first, &body[..2]), (kind, &id.to_be_bytes()[..]));
    }

    async fn complete(&mut self, id: u16) {
        let [high, low] = id.to_be_bytes();
        self.send(&[0x62, 2, high, low]).await;
        self.expect_answer(0x70, id).await;
    }
}

#[tokio::test]
async fn publisher_hears_nothing_before_other_shards_have_its_message() {
    let broker = Broker::start_sharded(2, "").await;
    for version in ALL {
        let mut sender = broker.join_on(0, version, "sender").await;
        let mut receiver = broker.join_on(1, version, "receiver").await;
        receiver.subscribe("t", 2).await;
        for (qos, answer) in [(1, 0x40), (2, 0x50)] {
            let hung = broker.hang(1).await;
            sender.publish("t", "x", qos << 1, 5).await;
            sender.ping().await;
            assert_eq!(broker.count(Metric::Unconfirmed), 1);
            drop(hung);
            sender.expect_answer(answer, 5).await;
            if qos == 2 {
                sender.complete(5).await;
            }
            assert_eq!(receiver.receive().await.qos, qos);
        }
    }
    broker.stop().await;
}

#[tokio::test]
async fn publishers_are_answered_in_the_order_of_their_messages() {
    let broker = Broker::start_sharded(3, "").await;
    let mut sender = broker.join_on(0, Version::V5, "sender").await;
    sender.subscribe("own", 0).await;
    let mut receivers = Vec::new();
    for (shard, filter) in [(1, "one"), (2, "two")] {
        let mut receiver = broker.join_on(shard, Version::V311, "receiver").await;
        receiver.subscribe(filter, 1).await;
        receivers.push(receiver);
    }
    let one = broker.hang(1).await;
    let two = broker.hang(2).await;
    let topics = ["one", "nobody's", "two", "own", "one", "$SYS/refused"];
    for (topic, id) in topics.into_iter().zip(1..) {
        // QoS 1 and 2 in turn.
        let flags = if id % 2 == 1 { 0b0010 } else { 0b0100 };
        sender.publish(topic, "x", flags, id).await;
    }
    assert_eq!(sender.receive().await.topic, "own");
    drop(two);
    receivers[1].receive().await;
    sender.ping().await;
    drop(one);
    for id in 1..=6 {
        let kind = if id % 2 == 1 { 0x40 } else { 0x50 };
        sender.expect_answer(kind, id).await;
    }
    assert_eq!(broker.count(Metric::Unconfirmed), 0);
    broker.stop().await;
}

#[tokio::test]
async fn qos2_message_that_is_sent_again_waits_for_what_the_first_one_did() {
    let broker = Broker::start_sharded(2, "").await;
    for version in ALL {
        let hello = Hello::persistent(version, &broker.id_on(0, "sender"));
        let (mut sender, _) = Client::connect(broker.address, &hello).await;
        let mut receiver = broker.join_on(1, version, "receiver").await;
        receiver.subscribe("t", 2).await;
        let hung = broker.hang(1).await;
        sender.publish("t", "once", 0b0100, 5).await;
        sender.ping().await;
        drop(sender);
        let (mut sender, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(
            (welcome.session_present, welcome.code),
            (version != Version::V31, 0)
        );
        sender.publish("t", "once", 0b1100, 5).await;
        sender.ping().await;
        drop(hung);
        sender.expect_answer(0x50, 5).await;
        // Confirmed by now: once more is answered at once.
        sender.publish("t", "once", 0b1100, 5).await;
        sender.expect_answer(0x50, 5).await;
        sender.complete(5).await;
        assert_eq!(receiver.receive().await.payload, "once");
        receiver.ping().await;
        sender.leave().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn message_that_is_handed_on_is_answered_when_its_last_member_has_it() {
    let broker = Broker::start_sharded(3, "[limits]\nqueue_messages = 1\n").await;
    // Takes one message into its window and one into its queue.
    let mut hello = Hello::new(Version::V5, &broker.id_on(1, "narrow"));
    hello.properties = vec![0x21, 0, 1];
    let (mut narrow, _) = Client::connect(broker.address, &hello).await;
    narrow.subscribe("$share/g/t", 1).await;
    let mut wide = broker.join_on(2, Version::V5, "wide").await;
    wide.subscribe("$share/g/t", 1).await;

    let one = broker.hang(1).await;
    let two = broker.hang(2).await;
    // In turn, as nobody says that anyone is full: three for each. Every one leaves in its own frame.
    let mut senders = Vec::new();
    for _ in 0..6 {
        let name = format!("sender {}", senders.len());
        let mut sender = broker.join_on(0, Version::V5, &name).await;
        sender.publish("t", "x", 0b0010, 5).await;
        sender.ping().await;
        senders.push(sender);
    }
    assert_eq!(broker.count(Metric::Unconfirmed), 6);
    drop(one);
    for taken in [0, 2] {
        senders[taken].expect_answer(0x40, 5).await;
    }
    // The third one is handed on, and its frame waits for the other shard.
    broker.wait_for(Metric::LaneFrames, 3).await;
    for _ in 0..10 {
        narrow.send(&[0xc0, 0]).await;
        senders[4].ping().await;
    }
    assert_eq!(broker.count(Metric::Unconfirmed), 4);
    drop(two);
    for later in [1, 3, 4, 5] {
        senders[later].expect_answer(0x40, 5).await;
    }
    for _ in 0..4 {
        wide.receive().await;
    }
    wide.ping().await;
    assert_eq!(broker.count(Metric::DroppedShared), 0);
    broker.stop().await;
}

#[tokio::test]
async fn dead_router_takes_no_confirmation_with_it() {
    let broker = Broker::start_sharded(2, "").await;
    let mut sender = broker.join_on(0, Version::V311, "sender").await;
    let mut receiver = broker.join_on(1, Version::V311, "receiver").await;
    receiver.subscribe("t", 2).await;
    for id in 1..=10 {
        let hung = broker.hang(1).await;
        sender.publish("t", &id.to_string(), 0b0100, id).await;
        sender.ping().await;
        broker.node.status().shared.lanes.kill_router();
        drop(hung);
        sender.expect_answer(0x50, id).await;
        assert_eq!(receiver.receive().await.payload, id.to_string());
        broker
            .wait_for(Metric::LaneRestarts, 2 * u64::from(id))
            .await;
    }
    receiver.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn client_is_read_no_further_while_its_messages_wait_for_a_shard_that_hangs() {
    const MESSAGES: u16 = 1000;
    let broker = Broker::start_sharded(2, "[limits]\ninflight = 10\n").await;
    for version in ALL {
        let before = broker.count(Metric::MessagesIn);
        let mut sender = broker.join_on(0, version, "sender").await;
        let mut other = broker.join_on(0, version, "other").await;
        let mut receiver = broker.join_on(1, version, "receiver").await;
        receiver.subscribe("t", 0).await;
        let hung = broker.hang(1).await;
        let mut packets = Vec::new();
        for id in 1..=MESSAGES {
            let mut body = b"\0\x01t".to_vec();
            body.extend(id.to_be_bytes());
            body.extend(version.is_v5().then_some(0));
            packets.extend(packet(0x32, &body));
        }
        sender.send(&packets).await;
        broker.wait_for(Metric::Unconfirmed, 10).await;
        for _ in 0..10 {
            other.ping().await;
        }
        assert_eq!(broker.count(Metric::MessagesIn) - before, 10);
        drop(hung);
        for id in 1..=MESSAGES {
            sender.expect_answer(0x40, id).await;
        }
        for _ in 0..MESSAGES {
            receiver.receive().await;
        }
        sender.ping().await;
    }
    broker.stop().await;
}

#[tokio::test]
async fn who_leaves_waits_for_no_answer() {
    let broker = Broker::start_sharded(2, "").await;
    let mut receiver = broker.join_on(1, Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let hung = broker.hang(1).await;
    for _ in 0..3 {
        let mut sender = broker.join_on(0, Version::V311, "sender").await;
        sender.publish("t", "x", 0b0010, 5).await;
        sender.ping().await;
        drop(sender);
        broker.wait_for(Metric::Unconfirmed, 0).await;
    }
    // One who comes after that is not answered what others have asked.
    let mut next = broker.join_on(0, Version::V311, "sender").await;
    drop(hung);
    for _ in 0..3 {
        receiver.receive().await;
    }
    next.deliver("t", "mine", 1).await;
    assert_eq!(receiver.receive().await.payload, "mine");
    broker.stop().await;
}

#[tokio::test]
async fn node_that_stops_answers_for_what_it_has_taken() {
    let broker = Broker::start_sharded(2, "").await;
    let mut sender = broker.join_on(0, Version::V311, "sender").await;
    let mut receiver = broker.join_on(1, Version::V311, "receiver").await;
    receiver.subscribe("t", 1).await;
    let hung = broker.hang(1).await;
    sender.publish("t", "x", 0b0010, 5).await;
    sender.ping().await;
    let stopping = tokio::spawn(broker.stop());
    drop(hung);
    sender.expect_answer(0x40, 5).await;
    sender.expect_close().await;
    assert_eq!(receiver.receive().await.payload, "x");
    stopping.await.unwrap();
}

#[tokio::test]
async fn message_is_not_released_before_its_sender_hears_that_it_was_received() {
    let broker = Broker::start_sharded(2, "").await;
    let mut receiver = broker.join_on(1, Version::V5, "receiver").await;
    receiver.subscribe("t", 2).await;
    let hello = Hello::persistent(Version::V5, &broker.id_on(0, "sender"));
    let (mut sender, _) = Client::connect(broker.address, &hello).await;
    let hung = broker.hang(1).await;
    sender.publish("t", "once", 0b0100, 5).await;
    sender.send(&[0x62, 2, 0, 5]).await;
    sender.expect(0xe0, &[0x82]).await;
    sender.expect_close().await;
    drop(hung);
    let (mut sender, welcome) = Client::connect(broker.address, &hello).await;
    assert!(welcome.session_present);
    sender.publish("t", "once", 0b1100, 5).await;
    sender.expect_answer(0x50, 5).await;
    sender.complete(5).await;
    assert_eq!(receiver.receive().await.payload, "once");
    receiver.ping().await;
    broker.stop().await;
}
