//! What a crash leaves between two shards: one has stored its part of a message, another has not.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Broker,
    client::{Client, Hello},
    config,
    persist::settings,
};
use crate::{
    codec::packet::{PacketId, Version},
    message::Qos,
    routes::ShardId,
    session::{
        Subscription,
        journal::{Change, Profile, SessionId, Since, Spread, State},
    },
    store::{Parcel, Store},
    testing::Dir,
};

const ID: PacketId = PacketId::new(5).unwrap();

fn session(client_id: &str) -> Change {
    let profile = Profile {
        client_id: client_id.into(),
        user: None,
        is_assigned: false,
        grants: None,
        since: Since::default(),
    };
    Change::State(State {
        profile: Arc::new(profile),
        expiry: Duration::from_secs(3600),
        ends: Some(Instant::now() + Duration::from_secs(3600)),
        will: None,
        will_due: None,
    })
}

/// How a broker has ended, and what it had stored.
#[derive(Clone, Copy, Default)]
struct Scene {
    /// The other shard has taken the message.
    is_taken_elsewhere: bool,
    /// There were so many shards more.
    more_shards: u16,
    /// Starts of the broker before the message is repeated.
    starts: usize,
}

const SHARDS: u16 = 2;

/// Stores a sender whose message was received and is not known to be everywhere, and a reader on
/// each shard.
fn prepare(dir: &Dir, readers: &[String], shards: u16, taken_by: Option<ShardId>) {
    let config = config(&settings(dir));
    let persistence = config.persistence().unwrap();
    let opened = Store::open(persistence, "test", shards, Arc::default(), ()).unwrap();
    let sender = SessionId(1);
    let mut changes = vec![
        (sender, session("sender")),
        (sender, Change::Received(ID, Spread::Begun)),
    ];
    let subscription = Subscription {
        qos: Qos::ExactlyOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    for (number, reader) in (2..).zip(readers) {
        changes.push((SessionId(number), session(reader)));
        let filter = if reader.starts_with("member") {
            "$share/g/t"
        } else {
            "t"
        };
        let subscribed = Change::Subscribed(filter.into(), subscription);
        changes.push((SessionId(number), subscribed));
    }
    if let Some(shard) = taken_by {
        changes.push((sender, Change::Spread(ID, shard)));
    }
    let parcel = Parcel {
        shard: ShardId(0),
        number: 1,
        changes,
    };
    opened.parcels.send(parcel).unwrap();
    drop(opened.parcels);
    opened.thread.join().unwrap();
}

/// Whether readers on the sender's shard and on another one are sent the message when the sender
/// repeats it.
async fn repeat(scene: Scene) -> [bool; 2] {
    let [beside, apart, _member] = repeat_to_all(scene).await;
    [beside, apart]
}

/// As [`repeat`], and whether a group got it whose only member is on the other shard.
async fn repeat_to_all(scene: Scene) -> [bool; 3] {
    let dir = Dir::new();
    let probe = Broker::start_sharded(SHARDS, "").await;
    let shared = Arc::clone(&probe.node.status().shared);
    probe.stop().await;
    let here = shared.shard_of("sender");
    let mut names = (0..).map(|number| format!("reader-{number}"));
    let beside = names.find(|name| shared.shard_of(name) == here).unwrap();
    let mut names = (0..).map(|number| format!("reader-{number}"));
    let apart = names.find(|name| shared.shard_of(name) != here).unwrap();
    let mut names = (0..).map(|number| format!("member-{number}"));
    let member = names.find(|name| shared.shard_of(name) != here).unwrap();
    let readers = [beside, apart, member];
    let taken_by = scene
        .is_taken_elsewhere
        .then(|| shared.shard_of(&readers[1]));
    let shards = SHARDS + scene.more_shards;
    prepare(&dir, &readers, shards, taken_by);

    for _ in 0..scene.starts {
        let broker = Broker::start_sharded(SHARDS, &settings(&dir)).await;
        broker.stop().await;
    }
    let broker = Broker::start_sharded(SHARDS, &settings(&dir)).await;
    let hello = Hello::persistent(Version::V311, "sender");
    let (mut sender, welcome) = Client::connect(broker.address, &hello).await;
    assert!(welcome.session_present);
    sender.publish("t", "repeated", 0b1100, ID.get()).await;
    sender.expect(0x50, &[0, 5]).await;
    // Once it is everywhere it is known to be.
    sender.publish("t", "repeated", 0b1100, ID.get()).await;
    sender.expect(0x50, &[0, 5]).await;
    sender.send(&[0x62, 2, 0, 5]).await;
    sender.expect(0x70, &[0, 5]).await;
    sender.publish("t", "last", 0b0100, ID.get()).await;
    sender.expect(0x50, &[0, 5]).await;
    let mut got = [false; 3];
    for (reader, got) in readers.iter().zip(&mut got) {
        let hello = Hello::persistent(Version::V311, reader);
        let (mut client, _) = Client::connect(broker.address, &hello).await;
        let mut received = client.receive_silently().await;
        if received.payload == "repeated" {
            *got = true;
            received = client.receive_silently().await;
        }
        assert_eq!(received.payload, "last");
    }
    broker.stop().await;
    got
}

#[tokio::test]
async fn message_that_one_shard_has_stored_goes_to_the_others_alone() {
    let mut scene = Scene::default();
    // The sender's own shard stores the message with its identifier, so it has it.
    assert_eq!(repeat(scene).await, [false, true]);
    scene.is_taken_elsewhere = true;
    assert_eq!(repeat(scene).await, [false, false]);
}

#[tokio::test]
async fn shard_that_has_a_message_for_its_subscribers_may_not_have_it_for_its_groups() {
    let scene = Scene {
        is_taken_elsewhere: true,
        ..Scene::default()
    };
    assert_eq!(repeat_to_all(scene).await, [false, false, true]);
}

#[tokio::test]
async fn message_of_which_other_shards_are_known_to_have_it_goes_to_all() {
    for starts in 0..2 {
        let scene = Scene {
            is_taken_elsewhere: true,
            more_shards: 1,
            starts,
        };
        assert_eq!(repeat(scene).await, [true, true]);
    }
}
