//! One connection for each client id in the whole cluster, and a session that goes where its client is.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::{
    ALL, Broker,
    access::set,
    client::{Client, Hello, Testament, packet},
    cluster::Cluster,
    persist,
};
use crate::{codec::packet::Version, metrics::Metric, node::Node, testing::Dir};

const TAKEN_OVER: u8 = 0x8e;

impl Broker {
    pub(super) async fn resume(&self, version: Version, id: &str) -> (Client, bool) {
        let hello = Hello::persistent(version, id);
        let (client, welcome) = Client::connect(self.address, &hello).await;
        assert_eq!(welcome.code, 0);
        (client, welcome.session_present)
    }

    /// Connects until it is let in, and subscribes, in case the session has begun anew meanwhile.
    async fn insist(&self, id: &str) -> Client {
        loop {
            let mut client = Client::open(self.address).await;
            let hello = Hello::persistent(Version::V5, id);
            client.send(&hello.encode()).await;
            if let Some((0x20, _connack)) = client.try_recv().await {
                let subscribe = packet(0x82, b"\0\x09\0\0\x01t\x01");
                client.send(&subscribe).await;
                return client;
            }
        }
    }

    /// Waits until nothing is on its way to another node, or from one.
    pub(super) async fn wait_for_rest(&self, sessions: u64) {
        self.wait_until(|node| node.status().metrics().get(Metric::Sessions) == sessions)
            .await;
    }
}

#[tokio::test]
async fn newest_connection_in_the_cluster_closes_the_other_one() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for version in ALL {
        let mut older = one.join(version, "c").await;
        let mut newer = two.join(version, "c").await;
        if version.is_v5() {
            older.expect(0xe0, &[TAKEN_OVER]).await;
        }
        older.expect_close().await;
        let mut newest = one.join(version, "c").await;
        if version.is_v5() {
            newer.expect(0xe0, &[TAKEN_OVER]).await;
        }
        newer.expect_close().await;
        newest.ping().await;
        newest.leave().await;
    }
    one.wait_for(Metric::SessionsConnected, 0).await;
    two.wait_for(Metric::SessionsConnected, 0).await;
    assert_eq!(one.count(Metric::Sessions) + two.count(Metric::Sessions), 0);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn session_follows_its_client_with_what_is_queued_and_in_flight() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for version in ALL {
        let id = format!("{version:?}");
        let topic = format!("t/{id}");
        let (mut client, _new) = one.resume(version, &id).await;
        client.subscribe(&topic, 2).await;
        let mut publisher = two.join(Version::V311, "publisher").await;
        publisher.deliver(&topic, "in flight", 1).await;
        assert_eq!(client.receive_silently().await.payload, "in flight");
        publisher.deliver(&topic, "half", 2).await;
        let half = client.receive_silently().await;
        let [high, low] = half.id.to_be_bytes();
        client.send(&[0x50, 2, high, low]).await;
        client.expect(0x62, &[high, low]).await;
        client.leave().await;
        publisher.deliver(&topic, "queued", 1).await;

        let (mut client, is_present) = two.resume(version, &id).await;
        // MQTT 3.1 does not say.
        assert_eq!(is_present, version > Version::V31, "{version:?}");
        let again = client.receive().await;
        assert_eq!((&*again.payload, again.dup), ("in flight", true));
        client.expect(0x62, &[high, low]).await;
        client.send(&[0x70, 2, high, low]).await;
        let queued = client.receive().await;
        assert_eq!((&*queued.payload, queued.dup), ("queued", false));
        for broker in [&one, &two] {
            let mut publisher = broker.join(Version::V311, "another").await;
            publisher.deliver(&topic, "new", 2).await;
            assert_eq!(client.receive().await.payload, "new");
        }
        // Nothing is left where it was, and all goes back with the client.
        one.wait_for_rest(0).await;
        client.leave().await;
        publisher.deliver(&topic, "back", 1).await;
        let (mut client, _present) = one.resume(version, &id).await;
        assert_eq!(client.receive().await.payload, "back");
        client.ping().await;
        drop(client);
        let (client, _welcome) = Client::connect(one.address, &Hello::new(version, &id)).await;
        client.leave().await;
        publisher.leave().await;
        one.wait_for_rest(0).await;
        two.wait_for_rest(0).await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn member_of_a_group_that_moves_is_counted_once() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut stays = one.join(Version::V311, "stays").await;
    let (mut moves, _new) = one.resume(Version::V311, "moves").await;
    for member in [&mut stays, &mut moves] {
        member.subscribe("$share/g/t", 1).await;
    }
    assert_eq!(one.count(Metric::SharedSubscriptions), 2);
    moves.leave().await;
    let (moves, is_present) = two.resume(Version::V311, "moves").await;
    assert!(is_present);
    one.wait_for_rest(1).await;
    stays.ping().await;
    one.wait_for(Metric::SharedSubscriptions, 1).await;
    two.wait_for(Metric::SharedSubscriptions, 1).await;
    drop((stays, moves));
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn clean_start_elsewhere_ends_the_session() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (mut client, _new) = one.resume(Version::V311, "c").await;
    client.subscribe("t", 1).await;
    drop(client);
    two.join(Version::V311, "c").await.leave().await;
    one.wait_for_rest(0).await;
    two.wait_for_rest(0).await;
    let (client, is_present) = one.resume(Version::V311, "c").await;
    assert!(!is_present);
    drop(client);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn session_that_moves_is_stored_where_it_goes_and_not_where_it_was() {
    let cluster = Cluster::new();
    let dirs = [Dir::new(), Dir::new()];
    let settings = cluster.settings(&[], "") + &persist::settings(&dirs[0]);
    let one = Broker::start_named("one", &settings).await;
    let settings = cluster.settings(&[&one], "") + &persist::settings(&dirs[1]);
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let (mut client, _new) = one.resume(Version::V311, "c").await;
    client.subscribe("t", 2).await;
    client.leave().await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    for (number, qos) in [(1, 1), (2, 2), (3, 1)] {
        publisher.deliver("t", &number.to_string(), qos).await;
    }
    let (mut client, is_present) = two.resume(Version::V311, "c").await;
    assert!(is_present);
    // The first one stays in flight.
    let first = client.receive_silently().await;
    assert_eq!(first.payload, "1");
    one.wait_for_rest(1).await;
    drop(client);
    drop(publisher);
    one.stop().await;
    two.stop().await;
    let one = Broker::start_named("one", &persist::settings(&dirs[0])).await;
    let (_client, is_present) = one.resume(Version::V311, "c").await;
    assert!(!is_present, "it is left where it was");
    let two = Broker::start_named("two", &persist::settings(&dirs[1])).await;
    let (mut client, is_present) = two.resume(Version::V311, "c").await;
    assert!(is_present);
    for number in 1..=3 {
        assert_eq!(client.receive_silently().await.payload, number.to_string());
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn will_of_a_client_that_moves_is_published_by_the_rules() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut watcher = one.join(Version::V5, "watcher").await;
    watcher.subscribe("wills/#", 1).await;
    let delayed = vec![0x18, 0, 0, 1, 0];
    for (topic, properties) in [("wills/now", Vec::new()), ("wills/later", delayed)] {
        let mut hello = Hello::persistent(Version::V5, "mortal");
        hello.will = Some(Testament {
            topic,
            payload: "gone",
            retain: false,
            properties,
        });
        let (mut mortal, _welcome) = Client::connect(one.address, &hello).await;
        let (again, is_present) = two.resume(Version::V5, "mortal").await;
        assert!(is_present);
        mortal.expect(0xe0, &[TAKEN_OVER]).await;
        if topic == "wills/now" {
            assert_eq!(watcher.receive().await.topic, topic);
        }
        // Its delay is over with the next connection.
        again.leave().await;
    }
    watcher.ping().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn one_of_three_that_connect_at_once_stays() {
    let cluster = Cluster::new();
    let brokers = cluster.three(["2s"; 3]).await;
    for round in 0..30 {
        let id = format!("c{round}");
        let mut clients = Vec::new();
        for broker in &brokers {
            let mut client = Client::open(broker.address).await;
            client
                .send(&Hello::persistent(Version::V5, &id).encode())
                .await;
            clients.push(client);
        }
        let mut alive = 0;
        for client in &mut clients {
            // Whoever is beaten before it was let in is told nothing.
            let Some((0x20, _connack)) = client.try_recv().await else {
                continue;
            };
            alive += 1;
        }
        assert!(alive > 0, "nobody was let in");
        let connected = || {
            let counts = brokers
                .iter()
                .map(|broker| broker.count(Metric::SessionsConnected));
            counts.sum::<u64>()
        };
        let begun = Instant::now();
        while connected() != 1 {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "{} are there",
                connected()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(clients);
        while connected() != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test]
async fn long_queue_goes_in_pieces_and_in_order() {
    const MESSAGES: usize = 120;
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (mut client, _new) = one.resume(Version::V311, "c").await;
    client.subscribe("t", 1).await;
    for number in 0..500 {
        client.subscribe(&format!("other/{number}/+"), 1).await;
    }
    client.leave().await;
    let mut publisher = one.join(Version::V311, "publisher").await;
    for number in 0..MESSAGES {
        let payload = format!("{number:06}{}", "x".repeat(10_000));
        publisher.deliver("t", &payload, 1).await;
    }
    let (mut client, is_present) = two.resume(Version::V311, "c").await;
    assert!(is_present);
    for number in 0..MESSAGES {
        let payload = client.receive().await.payload;
        assert_eq!(payload[..6], format!("{number:06}"));
        assert_eq!(payload.len(), 10_006);
    }
    publisher.deliver("other/499/x", "last", 1).await;
    assert_eq!(client.receive().await.payload, "last");
    one.stop().await;
    two.stop().await;
}

/// Wherever the session is when its new node hangs, nothing of it is lost.
#[tokio::test]
async fn node_that_hangs_while_it_claims_takes_nothing_along() {
    const MESSAGES: usize = 40;
    for delay in [0, 2, 5] {
        let cluster = Cluster::new();
        let (one, two) = cluster.pair().await;
        let (mut client, _new) = one.resume(Version::V5, "c").await;
        client.subscribe("t", 1).await;
        client.leave().await;
        let mut publisher = one.join(Version::V311, "publisher").await;
        for number in 0..MESSAGES {
            let payload = format!("{number:03}{}", "x".repeat(8_000));
            publisher.deliver("t", &payload, 1).await;
        }
        let mut beaten = Client::open(two.address).await;
        let hello = Hello::persistent(Version::V5, "c");
        beaten.send(&hello.encode()).await;
        // A moment that is not known.
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let hung = two.hang_cluster().await;
        let mut client = one.insist("c").await;
        drop(hung);
        let mut seen = BTreeSet::new();
        while seen.len() < MESSAGES {
            match client.try_recv().await {
                Some((0x30..=0x3f, body)) => {
                    let id = &body[3..5];
                    client.send(&[0x40, 2, id[0], id[1]]).await;
                    seen.insert(String::from_utf8(body[6..9].to_vec()).unwrap());
                }
                Some(_) => {}
                // On a slow machine the other client may have come last.
                None => client = one.insist("c").await,
            }
        }
        one.wait_for_members(&["two"]).await;
        two.wait_for_members(&["one"]).await;
        // One of them has it, as does the publisher's session one.
        let sessions = |node: &Node| node.status().metrics().get(Metric::Sessions);
        let is_once = |node: &Node| sessions(node) + sessions(&two.node) == 2;
        one.wait_until(is_once).await;
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test]
async fn session_of_a_user_is_not_to_be_had_by_nobody_from_another_node() {
    let cluster = Cluster::new();
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "alice", "sesame");
    set(&passwords, "bob", "sesame");
    let access = format!(
        "[access]\nanonymous = true\n[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n"
    );
    let settings = cluster.settings(&[], "") + &access;
    let one = Broker::start_named("one", &settings).await;
    let settings = cluster.settings(&[&one], "") + &access;
    let two = Broker::start_named("two", &settings).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let hello = |user| Hello::persistent(Version::V5, "c").with_login(user, "sesame");
    let (mut alice, _welcome) = Client::connect(one.address, &hello("alice")).await;
    alice.subscribe("t", 1).await;
    let nobody = Hello::persistent(Version::V5, "c");
    let (_nobody, welcome) = Client::connect(two.address, &nobody).await;
    assert_eq!(welcome.code, 0x85);
    alice.ping().await;
    // Another user may have the id, and nothing that was for her.
    let (_bob, welcome) = Client::connect(two.address, &hello("bob")).await;
    assert_eq!((welcome.code, welcome.session_present), (0, false));
    alice.expect(0xe0, &[TAKEN_OVER]).await;
    one.wait_for_rest(0).await;
    one.stop().await;
    two.stop().await;
}

/// Prints how long a client waits for its session from another node; asserts no time.
#[tokio::test]
async fn takeover_takes_a_while() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (mut client, _new) = one.resume(Version::V311, "c").await;
    client.subscribe("t", 1).await;
    let mut times = Vec::new();
    for broker in [&two, &one].into_iter().cycle().take(200) {
        let begun = Instant::now();
        let (again, is_present) = broker.resume(Version::V311, "c").await;
        times.push(begun.elapsed());
        assert!(is_present);
        client = again;
    }
    client.ping().await;
    times.sort();
    println!("takeover: median {:?}, p99 {:?}", times[100], times[197]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn node_that_hangs_holds_up_who_connects_elsewhere_for_the_lease() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let (mut older, _new) = two.resume(Version::V5, "c").await;
    let hung = two.hang_cluster().await;
    let begun = Instant::now();
    let (mut newer, is_present) = one.resume(Version::V5, "c").await;
    // It goes on from its copy.
    assert!(is_present);
    assert!(begun.elapsed() > Duration::from_millis(500));
    newer.ping().await;
    // There is one again when the two have met.
    drop(hung);
    older.expect(0xe0, &[TAKEN_OVER]).await;
    newer.ping().await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn client_that_hangs_up_while_it_waits_is_not_let_in_unless_it_has_said_something() {
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    let mut subscriber = one.join(Version::V311, "subscriber").await;
    subscriber.subscribe("t", 0).await;
    let hung = two.hang_cluster().await;
    let mut silent = Client::open(one.address).await;
    let hello = Hello::persistent(Version::V5, "silent");
    silent.send(&hello.encode()).await;
    let mut brief = Client::open(one.address).await;
    let hello = Hello::persistent(Version::V311, "brief");
    brief.send(&hello.encode()).await;
    brief.send(b"\x30\x04\0\x01tx\xe0\0").await;
    drop((silent, brief));
    assert_eq!(subscriber.receive().await.payload, "x");
    drop(hung);
    for (id, was_let_in) in [("silent", false), ("brief", true)] {
        let (_client, is_present) = one.resume(Version::V5, id).await;
        assert_eq!(is_present, was_let_in, "{id}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn clean_start_that_a_full_node_refuses_ends_no_session_elsewhere() {
    let cluster = Cluster::new();
    let settings = cluster.settings(&[], "") + "[limits]\nsessions = 1\n";
    let one = Broker::start_named("one", &settings).await;
    let two = Broker::start_named("two", &cluster.settings(&[&one], "")).await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let (client, _new) = two.resume(Version::V5, "c").await;
    client.leave().await;
    let _first = one.join(Version::V5, "first").await;
    let hello = Hello::new(Version::V5, "c");
    let (_client, welcome) = Client::connect(one.address, &hello).await;
    assert_eq!(welcome.code, 0x97);
    let (_client, is_present) = two.resume(Version::V5, "c").await;
    assert!(is_present);
    one.stop().await;
    two.stop().await;
}
