//! What is longer than may be on its way between two nodes, and more than may wait for one.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Duration,
};

use super::{
    PATIENCE, Scene,
    client::line::{Hello, Line, Message, Start, Version, answer, unexpected},
};

const LONG: usize = 5 * 1024 * 1024;

/// So many are three times what may wait: a busy node reads some of them before it sees that it may not.
const COUNT: u16 = 40;

fn connect(address: SocketAddr, client_id: &str) -> Line {
    let hello = Hello {
        start: Start::Clean,
        ..Hello::again(Version::V311, client_id)
    };
    let (line, _is_present) = Line::connect(address, &hello, PATIENCE).unwrap();
    line
}

fn publish(line: &mut Line, id: u16) {
    let message = Message {
        topic: "t",
        payload: &vec![id as u8; LONG],
        qos: 1,
        is_repeated: false,
        id,
    };
    let packet = line.encode(&message);
    line.send(&packet).unwrap();
}

fn receive(line: &mut Line, expected: u16) {
    let packet = line.expect(0x32, PATIENCE, unexpected).unwrap();
    let message = line.decode(&packet).unwrap();
    assert_eq!(message.payload.len(), LONG);
    assert!(message.payload.iter().all(|byte| *byte == expected as u8));
    let taken = answer(0x40, message.id);
    line.send(&taken).unwrap();
}

#[test]
fn long_messages_come_whole_and_in_order_after_a_node_has_taken_none_for_a_while() {
    let scene = Scene::new("bounds");
    let nodes = scene.start(
        "lease = \"30s\"\n",
        "packet_bytes = 8388608\nqueue_bytes = 536870912\n",
    );
    nodes[0].wait_for_peer(true);
    nodes[1].wait_for_peer(true);
    let mut subscriber = connect(nodes[1].clients, "subscriber");
    subscriber.subscribe(1, [("t", 1)]).unwrap();
    subscriber.expect(0x90, PATIENCE, unexpected).unwrap();
    let mut publisher = connect(nodes[0].clients, "publisher");
    publish(&mut publisher, 1);
    receive(&mut subscriber, 1);
    publisher.expect(0x40, PATIENCE, unexpected).unwrap();
    nodes[1].freeze();
    let sent = AtomicU16::new(1);
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for id in 2..=COUNT {
                publish(&mut publisher, id);
                sent.store(id, Ordering::Relaxed);
            }
            publisher
        });
        // Until the publisher is read no further.
        let mut before = 1;
        loop {
            thread::sleep(Duration::from_secs(1));
            let count = sent.load(Ordering::Relaxed);
            if count > 1 && count == before {
                break;
            }
            before = count;
        }
        assert!(before < COUNT, "what waits for a node has no end");
        nodes[1].thaw();
        for id in 2..=COUNT {
            receive(&mut subscriber, id);
        }
        let mut publisher = sending.join().unwrap();
        for _ in 2..=COUNT {
            publisher.expect(0x40, PATIENCE, unexpected).unwrap();
        }
    });
}
