//! What others were to have of a session when the broker crashed: members of its groups what it left
//! behind, subscribers its will.

use std::fs;

use super::{
    Broker,
    client::{Client, Hello, Testament},
    persist::settings,
};
use crate::{
    codec::packet::Version,
    metrics::Metric,
    routes::ShardId,
    shard::{Kick, Request},
    testing::Dir,
};

/// What a crash would leave of a broker that has its store in `dir`.
fn crash(dir: &Dir) -> Dir {
    const FILE: &str = "store/store.redb";
    let left = Dir::new();
    fs::create_dir(left.path("store")).unwrap();
    fs::copy(dir.path(FILE), left.path(FILE)).unwrap();
    left
}

impl Broker {
    /// A client on a shard whose session is kept.
    async fn keep_on(&self, shard: u16, name: &str) -> (Client, Hello) {
        let hello = Hello::persistent(Version::V5, &self.id_on(shard, name));
        let (client, welcome) = Client::connect(self.address, &hello).await;
        assert_eq!(welcome.code, 0);
        (client, hello)
    }

    /// Waits until all is stored that a shard has noted by now.
    async fn store_noted(&self, shard: u16) {
        let (witness, _) = self.keep_on(shard, "witness").await;
        drop(witness);
    }
}

async fn start(dir: &Dir, shards: u16) -> Broker {
    let settings = format!("{}[limits]\ninflight = 1\n", settings(dir));
    Broker::start_sharded(shards, &settings).await
}

/// How a member's session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With another one of the same client that is kept.
    CleanStart,
    /// It leaves before, and what was not sent is under way by then.
    CleanStartLater,
    Goodbye,
    Kick,
}

async fn end(broker: &Broker, mut client: Client, hello: &Hello, way: End) {
    match way {
        End::CleanStart => {
            let again = Hello {
                clean: true,
                ..hello.clone()
            };
            let (_client, welcome) = Client::connect(broker.address, &again).await;
            assert!(!welcome.session_present);
        }
        End::CleanStartLater => {
            client.leave().await;
            broker.join(Version::V5, &hello.id).await;
        }
        End::Goodbye => {
            client.send(&[0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0]).await;
            client.expect_close().await;
        }
        End::Kick => {
            let kick = Kick {
                client_id: hello.id.as_str().into(),
                end_session: true,
            };
            let shards = broker.node.status().shards();
            let order = |answer| Request::Kick(kick, answer);
            let kicked = shards.ask(ShardId(0), order).await.unwrap();
            assert!(kicked.unwrap().session_ended);
        }
    }
}

#[tokio::test]
async fn what_a_session_leaves_to_another_shard_outlives_a_crash_in_between() {
    let ways = [
        End::CleanStart,
        End::CleanStartLater,
        End::Goodbye,
        End::Kick,
    ];
    for way in ways {
        let dir = Dir::new();
        let broker = start(&dir, 2).await;
        let (mut leaver, hello) = broker.keep_on(0, "leaver").await;
        assert_eq!(leaver.subscribe("$share/g/t", 1).await, 1);
        let mut sender = broker.join(Version::V5, "sender").await;
        for payload in ["one", "two", "three"] {
            sender.deliver("t", payload, 1).await;
        }
        assert_eq!(leaver.receive_silently().await.payload, "one");
        let (mut heir, heirs) = broker.keep_on(1, "heir").await;
        assert_eq!(heir.subscribe("$share/g/t", 1).await, 1);
        let hung = broker.hang(1).await;
        end(&broker, leaver, &hello, way).await;
        broker.store_noted(0).await;
        let left = crash(&dir);
        drop(hung);
        broker.stop().await;

        let broker = start(&left, 2).await;
        let (mut leaver, welcome) = Client::connect(broker.address, &hello).await;
        assert_eq!(welcome.session_present, way == End::CleanStart, "{way:?}");
        leaver.ping().await;
        let (mut heir, welcome) = Client::connect(broker.address, &heirs).await;
        assert!(welcome.session_present);
        let mut payloads = Vec::new();
        for _ in 0..3 {
            payloads.push(heir.receive().await.payload);
        }
        payloads.sort_unstable();
        assert_eq!(payloads, ["one", "three", "two"], "{way:?}");
        heir.leave().await;
        broker.stop().await;

        // It is the heir's alone by then.
        let broker = start(&left, 2).await;
        let (mut heir, _) = Client::connect(broker.address, &heirs).await;
        let mut sender = broker.join(Version::V5, &broker.id_on(0, "sender")).await;
        sender.deliver("t", "last", 1).await;
        assert_eq!(heir.receive().await.payload, "last");
        broker.stop().await;
    }
}

#[tokio::test]
async fn what_is_left_to_a_group_that_is_gone_goes_with_it() {
    let dir = Dir::new();
    let broker = start(&dir, 2).await;
    let (mut leaver, hello) = broker.keep_on(0, "leaver").await;
    leaver.subscribe("$share/g/t", 1).await;
    let mut sender = broker.join(Version::V5, "sender").await;
    sender.deliver("t", "nobody's", 1).await;
    // It is there when the session ends, and not after the crash.
    let mut heir = broker.join(Version::V5, &broker.id_on(1, "heir")).await;
    heir.subscribe("$share/g/t", 1).await;
    let hung = broker.hang(1).await;
    end(&broker, leaver, &hello, End::CleanStart).await;
    broker.store_noted(0).await;
    let left = crash(&dir);
    drop(hung);
    broker.stop().await;

    for dropped in [1, 0] {
        let broker = start(&left, 2).await;
        broker.store_noted(0).await;
        assert_eq!(broker.count(Metric::DroppedShared), dropped);
        broker.stop().await;
    }
}

/// Connects a client whose will of QoS 1 is for `w`.
async fn connect_mortal(broker: &Broker) -> Client {
    let mut hello = Hello::persistent(Version::V5, &broker.id_on(0, "mortal"));
    hello.will = Some(Testament {
        topic: "w",
        payload: "gone",
        retain: false,
        properties: Vec::new(),
    });
    let mut connect = hello.encode();
    // Behind the header, the protocol's name and its level.
    connect[2 + 6 + 1] |= 1 << 3;
    let mut client = Client::open(broker.address).await;
    client.send(&connect).await;
    assert_eq!(client.recv().await.0, 0x20);
    client
}

#[tokio::test]
async fn will_that_one_shard_has_published_outlives_a_crash_before_another_has_it() {
    for (ends_session, shards) in [(false, 2), (true, 2), (false, 3)] {
        let dir = Dir::new();
        let broker = start(&dir, 2).await;
        let mut readers = Vec::new();
        for shard in 0..2 {
            let (mut reader, hello) = broker.keep_on(shard, "reader").await;
            assert_eq!(reader.subscribe("w", 1).await, 1);
            reader.leave().await;
            readers.push(hello);
        }
        let mut mortal = connect_mortal(&broker).await;
        let hung = broker.hang(1).await;
        if ends_session {
            mortal.send(&[0xe0, 7, 4, 5, 0x11, 0, 0, 0, 0]).await;
        } else {
            mortal.send(&[0xe0, 1, 4]).await;
        }
        mortal.expect_close().await;
        broker.store_noted(0).await;
        let left = crash(&dir);
        drop(hung);
        broker.stop().await;

        for _life in 0..2 {
            let broker = start(&left, shards).await;
            broker.store_noted(0).await;
            broker.stop().await;
        }
        let broker = start(&left, shards).await;
        let mut sender = broker.join(Version::V5, "sender").await;
        sender.deliver("w", "last", 1).await;
        for hello in &readers {
            let (mut reader, welcome) = Client::connect(broker.address, hello).await;
            assert!(welcome.session_present);
            assert_eq!(reader.receive().await.payload, "gone");
            let mut next = reader.receive().await.payload;
            if shards != 2 && next == "gone" {
                // Whose sessions had it was not known any more.
                next = reader.receive().await.payload;
            }
            assert_eq!(next, "last");
        }
        broker.stop().await;
    }
}
