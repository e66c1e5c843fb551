//! Clients that go from node to node while others publish, and count what they get.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Broker,
    client::{Client, Hello},
    cluster::Cluster,
    persist,
};
use crate::{codec::packet::Version, metrics::Metric, testing::Dir};

/// A client that knows which messages of QoS 2 it has, over all of its connections.
#[derive(Default)]
struct Ledger {
    half: BTreeSet<u16>,
    payloads: Vec<String>,
}

impl Ledger {
    /// Goes from node to node until it has so many messages; tells how often it went.
    async fn roam(
        &mut self,
        client: &mut Client,
        id: &str,
        nodes: &[SocketAddr],
        count: usize,
    ) -> usize {
        let mut moves = 0;
        while self.payloads.len() < count {
            for _ in 0..40 {
                if self.payloads.len() == count {
                    break;
                }
                let packet = client.recv().await;
                self.take(client, packet).await;
            }
            moves += 1;
            let hello = Hello::persistent(Version::V311, id);
            let (again, welcome) = Client::connect(nodes[moves % nodes.len()], &hello).await;
            assert!(welcome.session_present, "after {moves} moves");
            *client = again;
        }
        client.send(&[0xc0, 0]).await;
        loop {
            let packet = client.recv().await;
            if packet.0 == 0xd0 {
                break;
            }
            self.take(client, packet).await;
        }
        moves
    }

    /// Each message of each publisher once, and in its order.
    fn check(&self, messages: usize) {
        for number in 0..3 {
            let begin = format!("{number} ");
            let payloads = self.payloads.iter();
            let of = payloads.filter_map(|payload| payload.strip_prefix(&begin));
            let expected: Vec<_> = (0..messages).map(|message| message.to_string()).collect();
            assert_eq!(of.collect::<Vec<_>>(), expected);
        }
        assert_eq!(self.payloads.len(), 3 * messages);
    }

    async fn take(&mut self, client: &mut Client, packet: (u8, Vec<u8>)) {
        let (first, body) = packet;
        match first >> 4 {
            3 => {
                let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                let id = u16::from_be_bytes([body[topic], body[topic + 1]]);
                assert_eq!((first >> 1) & 3, 2, "QoS");
                if self.half.insert(id) {
                    let payload = body[topic + 2..].to_vec();
                    self.payloads.push(String::from_utf8(payload).unwrap());
                }
                client.send(&[0x50, 2, body[topic], body[topic + 1]]).await;
            }
            6 => {
                self.half.remove(&u16::from_be_bytes([body[0], body[1]]));
                client.send(&[0x70, 2, body[0], body[1]]).await;
            }
            other => panic!("packet {other}"),
        }
    }
}

/// Publishes so many messages of QoS 2 on each of the nodes.
fn publish_on(brokers: &[Broker; 3], messages: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let addresses = brokers.each_ref().map(|broker| broker.address);
    let publishers = addresses.into_iter().enumerate();
    let publishers = publishers.map(|(number, address)| {
        tokio::spawn(async move {
            let id = format!("publisher {number}");
            let mut publisher = Client::join(address, Version::V311, &id).await;
            for message in 0..messages {
                let payload = format!("{number} {message}");
                publisher.deliver(&format!("t/{number}"), &payload, 2).await;
            }
            publisher.leave().await;
        })
    });
    publishers.collect()
}

#[tokio::test]
async fn client_that_goes_to_and_fro_gets_each_message_once_and_in_order() {
    const MESSAGES: usize = 1_500;
    let cluster = Cluster::new();
    let brokers = cluster.three(["2s"; 3]).await;
    let (mut client, _new) = brokers[0].resume(Version::V311, "c").await;
    client.subscribe("t/+", 2).await;
    let publishers = publish_on(&brokers, MESSAGES);
    let nodes = brokers.each_ref().map(|broker| broker.address);
    let mut ledger = Ledger::default();
    let moves = ledger.roam(&mut client, "c", &nodes, 3 * MESSAGES).await;
    assert!(moves > 50);
    ledger.check(MESSAGES);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    drop(client);
    for broker in brokers {
        broker.stop().await;
    }
}

#[tokio::test]
async fn many_clients_that_pass_each_other_get_each_message_once_and_in_order() {
    const CLIENTS: usize = 24;
    const MESSAGES: usize = 150;
    let cluster = Cluster::new();
    let dirs = [Dir::new(), Dir::new(), Dir::new()];
    let settings = |seeds: &[&Broker], dir| cluster.settings(seeds, "") + &persist::settings(dir);
    let one = Broker::start_named("one", &settings(&[], &dirs[0])).await;
    let two = Broker::start_named("two", &settings(&[&one], &dirs[1])).await;
    let three = Broker::start_named("three", &settings(&[&one, &two], &dirs[2])).await;
    one.wait_for_members(&["three", "two"]).await;
    two.wait_for_members(&["one", "three"]).await;
    three.wait_for_members(&["one", "two"]).await;
    let brokers = [one, two, three];
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let id = format!("c{number}");
        let (mut client, _new) = brokers[number % 3].resume(Version::V311, &id).await;
        client.subscribe("t/+", 2).await;
        clients.push((id, client));
    }
    let publishers = publish_on(&brokers, MESSAGES);
    let nodes = brokers.each_ref().map(|broker| broker.address);
    let clients = clients
        .into_iter()
        .enumerate()
        .map(|(number, (id, mut client))| {
            // Not all the same way.
            let mut nodes = nodes.to_vec();
            nodes.rotate_left(number % 3);
            if number % 2 == 1 {
                nodes.reverse();
            }
            tokio::spawn(async move {
                let mut ledger = Ledger::default();
                let moves = ledger.roam(&mut client, &id, &nodes, 3 * MESSAGES).await;
                assert!(moves > 5);
                ledger.check(MESSAGES);
            })
        });
    let clients: Vec<_> = clients.collect();
    for task in clients.into_iter().chain(publishers) {
        task.await.unwrap();
    }
    for broker in brokers {
        broker.stop().await;
    }
}

/// As after the death of a balancer, or when a node is drained.
#[tokio::test]
async fn all_clients_of_a_node_move_at_once() {
    const CLIENTS: usize = 300;
    const MESSAGES: usize = 5;
    let cluster = Cluster::new();
    let (one, two) = cluster.pair().await;
    for number in 0..CLIENTS {
        let (mut client, _new) = one.resume(Version::V311, &format!("c{number}")).await;
        client.subscribe(&format!("t/{number}"), 1).await;
        client.subscribe("all", 1).await;
        client.leave().await;
    }
    let mut publisher = one.join(Version::V311, "publisher").await;
    for message in 0..MESSAGES {
        publisher.deliver("all", &message.to_string(), 1).await;
    }
    let address = two.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                let hello = Hello::persistent(Version::V311, &format!("c{number}"));
                let (mut client, welcome) = Client::connect(address, &hello).await;
                assert!(welcome.session_present, "{number}");
                for message in 0..MESSAGES {
                    assert_eq!(client.receive().await.payload, message.to_string());
                }
                (number, client)
            })
        })
        .collect();
    let mut moved = Vec::new();
    for client in clients {
        moved.push(client.await.unwrap());
    }
    publisher.deliver("all", "new", 1).await;
    for (number, client) in &mut moved {
        assert_eq!(client.receive().await.payload, "new", "{number}");
    }
    // Nothing of them is left but the publisher.
    one.wait_for_rest(1).await;
    assert_eq!(two.count(Metric::ClusterMovedIn), CLIENTS as u64);
    one.stop().await;
    two.stop().await;
}
