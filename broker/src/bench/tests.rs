//! Whole runs in one process, against a server that does as little as it can.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::BytesMut;
use clap::Parser;
use rumqttd::protocol::{
    ConnAck, ConnectReturnCode, Packet, PingResp, Protocol, PubAck, PubAckReason, Publish, SubAck,
    SubscribeReasonCode, v4::V4,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
};

use super::{
    Args, moves,
    plan::Plan,
    run_here,
    swarm::{self, Swarm},
};

/// How the server misbehaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    refuse: bool,
    /// Every so manieth message is not delivered.
    lose: Option<u64>,
    /// Every so manieth message is delivered twice.
    repeat: Option<u64>,
    /// The connection that brings this message is closed before it is acknowledged.
    cut: Option<u64>,
}

/// Delivers every message to every subscriber at QoS 0, whatever the topic.
#[derive(Default)]
struct Server {
    faults: Faults,
    subscribers: Mutex<Vec<UnboundedSender<Publish>>>,
    messages: AtomicU64,
    client_ids: Mutex<Vec<String>>,
    peers: Mutex<Vec<SocketAddr>>,
    topics: Mutex<Vec<String>>,
}

impl Server {
    async fn start(address: &str, faults: Faults) -> (Arc<Self>, u16) {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Arc::new(Self {
            faults,
            ..Self::default()
        });
        let shared = Arc::clone(&server);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                shared.peers.lock().unwrap().push(peer);
                tokio::spawn(Arc::clone(&shared).serve(stream));
            }
        });
        (server, port)
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> io::Result<()> {
        let (sender, mut deliveries) = unbounded_channel();
        let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
        loop {
            tokio::select! {
                read = stream.read_buf(&mut input) => if read? == 0 {
                    return Ok(());
                },
                Some(message) = deliveries.recv() => {
                    V4.write(Packet::Publish(message, None), &mut output).unwrap();
                }
            }
            while let Ok(packet) = V4.read_mut(&mut input, 1_000_000) {
                match self.answer(packet, &sender) {
                    Some(Some(answer)) => {
                        V4.write(answer, &mut output).unwrap();
                    }
                    Some(None) => {}
                    None => return Ok(()),
                }
            }
            stream.write_all_buf(&mut output).await?;
        }
    }

    /// The answer if there is one; nothing at all ends the connection.
    fn answer(&self, packet: Packet, sender: &UnboundedSender<Publish>) -> Option<Option<Packet>> {
        Some(match packet {
            Packet::Connect(connect, ..) => {
                self.client_ids.lock().unwrap().push(connect.client_id);
                let code = if self.faults.refuse {
                    ConnectReturnCode::NotAuthorized
                } else {
                    ConnectReturnCode::Success
                };
                Some(Packet::ConnAck(
                    ConnAck {
                        session_present: false,
                        code,
                    },
                    None,
                ))
            }
            Packet::Subscribe(subscribe, _) => {
                self.subscribers.lock().unwrap().push(sender.clone());
                let return_codes = subscribe
                    .filters
                    .iter()
                    .map(|filter| SubscribeReasonCode::Success(filter.qos))
                    .collect();
                Some(Packet::SubAck(
                    SubAck {
                        pkid: subscribe.pkid,
                        return_codes,
                    },
                    None,
                ))
            }
            Packet::Publish(publish, _) => {
                let number = self.messages.fetch_add(1, Relaxed) + 1;
                if self.faults.cut == Some(number) {
                    return None;
                }
                self.deliver(&publish, number);
                let pkid = packet_id(&publish);
                let ack = PubAck {
                    pkid,
                    reason: PubAckReason::Success,
                };
                (pkid != 0).then_some(Packet::PubAck(ack, None))
            }
            Packet::PingReq(_) => Some(Packet::PingResp(PingResp)),
            Packet::Disconnect(..) => return None,
            Packet::PubRec(..)
            | Packet::PubRel(..)
            | Packet::PubComp(..)
            | Packet::PubAck(..)
            | Packet::ConnAck(..)
            | Packet::SubAck(..)
            | Packet::Unsubscribe(..)
            | Packet::UnsubAck(..)
            | Packet::PingResp(_) => panic!("no client of these tests sends {packet:?}"),
        })
    }

    fn deliver(&self, publish: &Publish, number: u64) {
        self.topics
            .lock()
            .unwrap()
            .push(String::from_utf8(publish.topic.to_vec()).unwrap());
        let each = |every: Option<u64>| every.is_some_and(|every| number.is_multiple_of(every));
        let times = usize::from(!each(self.faults.lose)) + usize::from(each(self.faults.repeat));
        for subscriber in self.subscribers.lock().unwrap().iter() {
            for _ in 0..times {
                let copy = Publish::new(publish.topic.clone(), publish.payload.clone(), false);
                // The subscriber may be gone.
                let _ = subscriber.send(copy);
            }
        }
    }
}

/// rumqttd keeps it private, but writes it first of all when it serializes: QoS, id, ...
fn packet_id(publish: &Publish) -> u16 {
    let mut bytes = BytesMut::new();
    V4.write(Packet::Publish(publish.clone(), None), &mut bytes)
        .unwrap();
    let (frame, _) = super::codec::split(&bytes).unwrap().unwrap();
    let packet = super::codec::decode(frame, super::codec::Version::V311).unwrap();
    let super::codec::Packet::Publish(publish) = packet else {
        panic!("not PUBLISH")
    };
    publish.packet_id
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Runs one command line; its exit code and its summary.
pub(crate) async fn bench(line: String) -> (u8, Value) {
    let args = Cli::try_parse_from(format!("bench {line} --json --quiet").split(' '))
        .unwrap()
        .args;
    let mut out = Vec::new();
    let code = run_here(args, &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    (code, serde_json::from_str(&text).unwrap())
}

/// A subscriber that ends after `received` messages, up before this returns.
async fn subscriber(
    port: u16,
    received: u64,
    server: &Server,
) -> tokio::task::JoinHandle<(u8, Value)> {
    let task = tokio::spawn(bench(format!(
        "sub -h 127.0.0.1 -p {port} -c 1 -t # -L {received}"
    )));
    while server.subscribers.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn conn_holds_all_clients_and_measures_pings() {
    let (server, port) = Server::start("127.0.0.1", Faults::default()).await;
    let line = format!(
        "conn -h 127.0.0.1 -p {port} -c 20 -n 5 -i 0 --ping-interval 5ms --hold 50ms --client-id c%i"
    );
    let (code, summary) = bench(line).await;
    assert_eq!(code, 0);
    assert_eq!(
        (&summary["kind"], &summary["clients"]),
        (&"conn".into(), &20.into())
    );
    assert_eq!(
        (&summary["connected"], &summary["up"]),
        (&20.into(), &20.into())
    );
    assert_eq!(
        (&summary["failed"], &summary["lost"]),
        (&0.into(), &0.into())
    );
    assert!(summary["rtt_ms"]["p50"].is_f64() && summary["connect_ms"]["p99"].is_f64());
    let mut ids = server.client_ids.lock().unwrap().clone();
    ids.sort_by_key(|id| (id.len(), id.clone()));
    assert_eq!(
        (ids.len(), ids[0].as_str(), ids[19].as_str()),
        (20, "c5", "c24")
    );
}

#[tokio::test]
async fn a_client_that_is_told_to_move_connects_anew_and_is_not_lost() {
    let (server, port) = Server::start("127.0.0.1", Faults::default()).await;
    let line = format!("bench conn -h 127.0.0.1 -p {port} -c 3 -n 5 -i 0 --reconnect --moves");
    let line = line + " --quiet --client-id c%i";
    let args = Cli::try_parse_from(line.split(' ')).unwrap().args;
    let swarm = Swarm::new(Plan::new(*args.kind, 0).await.unwrap());
    let running = Arc::clone(&swarm);
    let run = tokio::spawn(async move { swarm::run(&running).await.unwrap() });
    let is = |up: u64, moved: u64| {
        let tally = Arc::clone(&swarm.tally);
        async move {
            while (tally.up.get(), tally.moved.get()) != (up, moved) {
                tokio::task::yield_now().await;
            }
        }
    };
    is(3, 0).await;
    moves::listen(&swarm, io::Cursor::new("6\nnobody\n4\n8\n"));
    is(3, 1).await;
    swarm.stop.cancel();
    run.await.unwrap();
    assert_eq!(
        (swarm.tally.lost.get(), swarm.tally.reconnected.get()),
        (0, 0)
    );
    let ids = server.client_ids.lock().unwrap();
    assert_eq!(ids.iter().filter(|id| *id == "c6").count(), 2, "{ids:?}");
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn published_messages_arrive_without_gaps() {
    for qos in [0, 1] {
        let (server, port) = Server::start("127.0.0.1", Faults::default()).await;
        let received = subscriber(port, 300, &server).await;
        let line = format!("pub -h 127.0.0.1 -p {port} -c 3 -i 0 -I 0 -t t/%i -L 300 -q {qos}");
        let (code, summary) = bench(line).await;
        assert_eq!((code, &summary["published"]), (0, &300.into()));
        assert_eq!(summary["acked"], 300 * qos);
        let (code, summary) = received.await.unwrap();
        assert_eq!((code, &summary["received"]), (0, &300.into()));
        assert_eq!(
            (&summary["gaps"], &summary["duplicates"]),
            (&0.into(), &0.into())
        );
        assert_eq!(summary["latency_ms"]["count"], 300);
        assert!(
            server
                .topics
                .lock()
                .unwrap()
                .iter()
                .all(|topic| topic.starts_with("t/"))
        );
    }
}

#[tokio::test]
async fn lost_and_repeated_messages_are_counted() {
    let faults = Faults {
        lose: Some(10),
        repeat: Some(7),
        ..Faults::default()
    };
    let (server, port) = Server::start("127.0.0.1", faults).await;
    // Of 99 messages 9 are lost (10, 20, .. 90), 14 come twice (7, 14, .. 98), but 70 only once.
    let received = subscriber(port, 99 - 9 + 14, &server).await;
    bench(format!("pub -h 127.0.0.1 -p {port} -c 1 -I 0 -t t -L 99")).await;
    let (_, summary) = received.await.unwrap();
    // Number 70 is lost and repeated: it comes once.
    assert_eq!(
        (&summary["gaps"], &summary["duplicates"]),
        (&8.into(), &13.into())
    );
    let missing = &summary["missing"];
    assert_eq!(missing["streams"], 1);
    let lack = &missing["worst"][0];
    assert_eq!(
        (&lack["subscriber"], &lack["publisher"]),
        (&0.into(), &0.into())
    );
    assert_eq!((&lack["messages"], &lack["ranges"]), (&8.into(), &8.into()));
    // Messages are numbered from zero.
    assert_eq!(
        lack["first"].to_string(),
        "[[9,9],[19,19],[29,29],[39,39],[49,49]]"
    );
}

#[tokio::test]
async fn subscribers_end_when_nothing_comes_any_more() {
    let (server, port) = Server::start("127.0.0.1", Faults::default()).await;
    let line = format!("sub -h 127.0.0.1 -p {port} -c 2 -i 0 -t # --idle 300ms");
    let receiving = tokio::spawn(bench(line));
    while server.subscribers.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let line = format!("pub -h 127.0.0.1 -p {port} -c 1 -I 0 -t t -L 50 -q 1 -m hello");
    let (code, summary) = bench(line).await;
    assert_eq!((code, &summary["acked"]), (0, &50.into()));
    let (code, summary) = receiving.await.unwrap();
    assert_eq!((code, &summary["received"]), (0, &100.into()));
    // A text of the user's own has neither a number nor a time.
    assert_eq!(summary["latency_ms"], Value::Null);
}

#[tokio::test]
async fn messages_with_an_interval_are_published_too() {
    let (_server, port) = Server::start("127.0.0.1", Faults::default()).await;
    let line = format!("pub -h 127.0.0.1 -p {port} -c 4 -i 0 -I 5 -q 1 -L 40 --wait-all");
    let (code, summary) = bench(line).await;
    assert_eq!(
        (code, &summary["published"], &summary["acked"]),
        (0, &40.into(), &40.into())
    );
}

#[tokio::test]
async fn refused_clients_fail_the_run() {
    let (_server, port) = Server::start(
        "127.0.0.1",
        Faults {
            refuse: true,
            ..Faults::default()
        },
    )
    .await;
    let line = format!("conn -h 127.0.0.1 -p {port} -c 3 -i 0");
    let (code, summary) = bench(line.clone()).await;
    assert_eq!(
        (code, &summary["failed"], &summary["connected"]),
        (1, &3.into(), &0.into())
    );
    assert_eq!(summary["errors"]["connection refused with code 0x05"], 3);
    assert_eq!(bench(format!("{line} --allow-loss")).await.0, 0);
}

#[tokio::test]
async fn a_lost_client_is_counted_and_ends_the_run_when_it_was_the_last() {
    let (_server, port) = Server::start(
        "127.0.0.1",
        Faults {
            cut: Some(5),
            ..Faults::default()
        },
    )
    .await;
    let line = format!("pub -h 127.0.0.1 -p {port} -c 1 -I 0 -q 1 -L 100 --inflight 1");
    let (code, summary) = bench(line).await;
    assert_eq!(
        (code, &summary["lost"], &summary["up"]),
        (1, &1.into(), &0.into())
    );
    assert_eq!(
        (&summary["published"], &summary["acked"]),
        (&5.into(), &4.into())
    );
}

#[tokio::test]
async fn a_client_that_comes_back_repeats_what_was_not_acknowledged() {
    let (server, port) = Server::start(
        "127.0.0.1",
        Faults {
            cut: Some(5),
            ..Faults::default()
        },
    )
    .await;
    let received = subscriber(port, 100, &server).await;
    let line = format!("pub -h 127.0.0.1 -p {port} -c 1 -I 0 -q 1 -L 100 --inflight 1 --reconnect");
    let (code, summary) = bench(line).await;
    assert_eq!(
        (code, &summary["lost"], &summary["reconnected"]),
        (1, &1.into(), &1.into())
    );
    assert_eq!(
        (&summary["failed"], &summary["acked"]),
        (&0.into(), &100.into())
    );
    let (_, summary) = received.await.unwrap();
    assert_eq!(
        (&summary["gaps"], &summary["received"]),
        (&0.into(), &100.into())
    );
}

#[tokio::test]
async fn clients_take_turns_over_hosts_and_source_addresses() {
    let (server, port) = Server::start("::", Faults::default()).await;
    let line = format!(
        "conn -h 127.0.0.1,[::1] -p {port} -c 8 -i 0 --hold 1ms --ifaddr 127.0.0.2,::1,127.0.0.3"
    );
    let (code, summary) = bench(line).await;
    assert_eq!((code, &summary["connected"]), (0, &8.into()));
    let from = |text: &str| {
        let address: std::net::IpAddr = text.parse().unwrap();
        let peers = server.peers.lock().unwrap();
        peers
            .iter()
            .filter(|peer| peer.ip().to_canonical() == address)
            .count()
    };
    assert_eq!(
        (from("127.0.0.2"), from("127.0.0.3"), from("::1")),
        (2, 2, 4)
    );
}

#[tokio::test]
async fn the_ready_file_tells_that_all_clients_are_up() {
    let (_server, port) = Server::start("127.0.0.1", Faults::default()).await;
    let path = std::env::temp_dir().join(format!("tidegate-ready-{}", std::process::id()));
    let line = format!(
        "conn -h 127.0.0.1 -p {port} -c 3 -i 0 --hold 1ms --ready-file {}",
        path.display()
    );
    bench(line).await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    assert_eq!(text, "{\"event\":\"up\",\"connected\":3,\"failed\":0}\n");
}

#[tokio::test]
async fn arguments_that_cannot_work_are_a_usage_error() {
    for line in [
        "pub -h 127.0.0.1 -t a/#",
        "conn -h 127.0.0.1 --ifaddr ::1",
        "pub -h 127.0.0.1 -s 268435455",
        "conn -h 127.0.0.1 -n 4294967295 -c 2",
        "conn -h 127.0.0.1 --insecure",
        "conn -h 127.0.0.1 --tls --ca-file /nowhere",
        "conn -h 127.0.0.1 --tls --ca-file /dev/null",
        "conn -h 127.0.0.1 --tls --insecure --server-name a..b",
        "conn -h 127.0.0.1 --ws --ws-path mqtt",
    ] {
        let args = Cli::try_parse_from(format!("bench {line}").split(' '))
            .unwrap()
            .args;
        assert_eq!(run_here(args, &mut Vec::new()).await.unwrap(), 64, "{line}");
    }
}
