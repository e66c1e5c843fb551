use std::{future::poll_fn, sync::Arc};

use tokio::io::DuplexStream;

use super::*;
use crate::{
    access::Identity,
    codec::packet::{Connect, PacketId, RetainHandling, Subscribe, SubscribeFilter, Version, Will},
    message::{Message, MessageId, Qos},
    metrics::Counters,
    peer::Peer,
    routes::ShardId,
    shard::Shared,
};

/// A node's only shard, and what it shares with no others.
struct Scene {
    shard: Rc<RefCell<Shard>>,
    shared: Arc<Shared>,
}

impl Scene {
    fn new() -> Self {
        let shared = Shared::for_tests("", 1);
        let shard = Shard::new(
            ShardId(0),
            Arc::clone(&shared),
            Arc::new(Counters::default()),
        );
        Self {
            shard: Rc::new(RefCell::new(shard)),
            shared,
        }
    }

    /// Connects a client that has already sent `rest`.
    fn connect(
        &self,
        connect: Connect,
        stream: DuplexStream,
        rest: &[u8],
    ) -> Connection<DuplexStream> {
        let mut shard = self.shard.borrow_mut();
        let counters = Arc::clone(shard.counters());
        let link = Link::new(Peer::for_tests(), &connect, shard.limits(), counters);
        let key = shard
            .connect(connect, Identity::ANONYMOUS, None, &link, Instant::now())
            .unwrap();
        let limits = shard.limits();
        let rest = Bytes::copy_from_slice(rest);
        Connection::new(stream, Rc::clone(&self.shard), key, link, limits, 0, rest)
    }
}

fn hello(will: Option<Will>) -> Connect {
    Connect {
        will,
        ..Connect::for_tests(Version::V311, "c")
    }
}

fn retained_will() -> Will {
    let message = Message {
        topic: "will".into(),
        payload: b"x"[..].into(),
        properties: Box::default(),
        qos: Qos::AtMostOnce,
        retain: true,
        expires: None,
        id: MessageId::NONE,
    };
    Will {
        message: Arc::new(message),
        expiry: None,
        delay: 0,
    }
}

/// Polls once; tells whether the connection is over.
async fn turn(connection: &mut Connection<DuplexStream>) -> bool {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *connection).poll(context).is_ready())).await
}

#[tokio::test]
async fn goodbye_counts_even_when_the_client_is_back_before_its_old_socket_is_closed() {
    let scene = Scene::new();
    // The answers to the pings fill the stream, so the connection cannot end at once.
    let (_client, stream) = tokio::io::duplex(16);
    let packets = [[0xc0, 0].repeat(100), vec![0xe0, 0]].concat();
    let mut first = scene.connect(hello(Some(retained_will())), stream, &packets);
    assert!(!turn(&mut first).await);
    let (_client, stream) = tokio::io::duplex(16);
    let _second = scene.connect(hello(None), stream, &[]);
    assert_eq!(scene.shared.retained.read().unwrap().len(), 0);
}

#[tokio::test]
async fn connection_that_breaks_leaves_its_will() {
    let scene = Scene::new();
    let (client, stream) = tokio::io::duplex(16);
    let mut connection = scene.connect(hello(Some(retained_will())), stream, &[0xc0, 0]);
    assert!(!turn(&mut connection).await);
    drop(client);
    assert!(turn(&mut connection).await);
    assert_eq!(scene.shared.retained.read().unwrap().len(), 1);
}

#[tokio::test]
async fn packets_for_many_subscribers_are_handled_in_several_turns() {
    const SUBSCRIBERS: usize = 500;
    const MESSAGES: u64 = 200;
    let scene = Scene::new();
    let subscribe = ClientPacket::Subscribe(Subscribe {
        id: PacketId::MIN,
        subscription_id: None,
        filters: vec![SubscribeFilter {
            filter: "t".to_owned(),
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Never,
        }],
    });
    let mut subscribers = Vec::new();
    for number in 0..SUBSCRIBERS {
        let mut connect = hello(None);
        connect.client_id = number.to_string();
        let (_client, stream) = tokio::io::duplex(16);
        let subscriber = scene.connect(connect, stream, &[]);
        let packet = subscribe.clone();
        let mut shard = scene.shard.borrow_mut();
        let flow = shard.handle_packet(subscriber.key, &subscriber.link, packet, Instant::now());
        assert_eq!(flow, Ok(Flow::Continue));
        subscribers.push(subscriber);
    }
    let packets = b"\x30\x04\0\x01tx".repeat(MESSAGES as usize);
    let (_client, stream) = tokio::io::duplex(16);
    let mut publisher = scene.connect(hello(None), stream, &packets);
    let handled = |publisher: &Connection<_>| publisher.link.traffic().messages_in.get();
    let mut turns = 0;
    while handled(&publisher) < MESSAGES {
        let before = handled(&publisher);
        assert!(!turn(&mut publisher).await);
        let done = handled(&publisher) - before;
        assert!((1..50).contains(&done), "{done} in turn {turns}");
        turns += 1;
    }
    assert!(turns > 4);
    let sent = |subscriber: &Connection<_>| subscriber.link.traffic().messages_out.get();
    assert!(
        subscribers
            .iter()
            .all(|subscriber| sent(subscriber) == MESSAGES)
    );
}
