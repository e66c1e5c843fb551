//! One session at a time, with the server's packets and the time made by hand.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        codec::{Ack, Malformed, Publish, Qos, decode, split},
        plan::{Plan, Task, tests::plan},
        publisher::{Publisher, Tickets},
        subscriber::Subscriber,
        tally::Tally,
    },
    *,
};

const SECOND: Duration = Duration::from_secs(1);

/// A client between connections.
struct Fixture {
    plan: Plan,
    tally: Arc<Tally>,
    role: Role,
    out: Vec<u8>,
    start: Instant,
}

impl Fixture {
    async fn new(line: &str) -> Self {
        let plan = plan(line).await.unwrap();
        let start = Instant::now();
        let tally = Arc::new(Tally::new(start));
        let identity = plan.identity(0);
        let role = match &plan.task {
            Task::Hold => Role::Hold,
            Task::Publish(task) => {
                let tickets = Arc::new(Tickets::new(task.limit));
                let tally = Arc::clone(&tally);
                Role::Publish(Publisher::new(&plan, task, &identity, tally, tickets))
            }
            Task::Subscribe(task) => {
                let tally = Arc::clone(&tally);
                Role::Subscribe(Subscriber::new(
                    &plan,
                    task,
                    &identity,
                    tally,
                    &Arc::default(),
                ))
            }
        };
        Self {
            plan,
            tally,
            role,
            out: Vec::new(),
            start,
        }
    }

    /// Opens a connection and lets the server accept it.
    fn accept(&mut self, connack: ConnAck) -> (Session<'_>, &mut Vec<u8>) {
        let identity = self.plan.identity(0);
        let Self {
            plan,
            tally,
            role,
            out,
            start,
        } = self;
        let mut session = Session::open(plan, &identity, role, tally, out, *start);
        out.clear();
        session.start_publishing(*start);
        session
            .handle(&Packet::ConnAck(connack), out, *start)
            .unwrap();
        (session, out)
    }
}

const ACCEPTED: ConnAck = ConnAck {
    session_present: false,
    code: 0,
    receive_maximum: None,
    server_keep_alive: None,
};

/// The first bytes of the packets written, which name their kind and flags.
fn kinds(out: &mut Vec<u8>) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = &out[..];
    while let Ok(Ok((_, tail))) = split(rest) {
        kinds.push(rest[0]);
        rest = tail;
    }
    assert!(rest.is_empty());
    out.clear();
    kinds
}

fn publish_ids(out: &[u8]) -> Vec<(u16, bool)> {
    let mut ids = Vec::new();
    let mut rest = out;
    while let Ok(Ok((frame, tail))) = split(rest) {
        if let Ok(Packet::Publish(Publish { packet_id, dup, .. })) = decode(frame, Version::V311) {
            ids.push((packet_id, dup));
        }
        rest = tail;
    }
    ids
}

fn ack(packet_id: u16) -> Ack {
    Ack {
        packet_id,
        reason: 0,
    }
}

#[tokio::test]
async fn a_server_that_never_answers_connect_is_given_up() {
    let mut client = Fixture::new("conn -h ::1 --timeout 3s").await;
    let identity = client.plan.identity(0);
    let Fixture {
        plan,
        tally,
        role,
        out,
        start,
    } = &mut client;
    let mut session = Session::open(plan, &identity, role, tally, out, *start);
    assert_eq!(session.deadline(), Some(*start + 3 * SECOND));
    assert_eq!(session.poll(out, *start + 2 * SECOND), Ok(()));
    let error = session.poll(out, *start + 3 * SECOND);
    assert_eq!(error, Err(SessionError::Silent("CONNACK")));
}

#[tokio::test]
async fn a_refusal_ends_the_session_with_its_code() {
    let mut client = Fixture::new("conn -h ::1").await;
    let identity = client.plan.identity(0);
    let Fixture {
        plan,
        tally,
        role,
        out,
        start,
    } = &mut client;
    let mut session = Session::open(plan, &identity, role, tally, out, *start);
    let refusal = Packet::ConnAck(ConnAck {
        code: 5,
        ..ACCEPTED
    });
    assert_eq!(
        session.handle(&refusal, out, *start),
        Err(SessionError::Refused(5))
    );
    assert!(!session.is_up());
}

#[tokio::test]
async fn a_ping_without_answer_ends_the_session() {
    let mut client = Fixture::new("conn -h ::1 --ping-interval 1s --timeout 3s").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    let due = session.deadline().unwrap();
    assert!(due <= start + SECOND);
    session.poll(out, due).unwrap();
    assert_eq!(kinds(out), [0xc0]);
    assert_eq!(session.deadline(), Some(due + 3 * SECOND));
    let error = session.poll(out, due + 3 * SECOND);
    assert_eq!(error, Err(SessionError::Silent("PINGRESP")));
}

#[tokio::test]
async fn an_answered_ping_is_timed_and_followed_by_the_next() {
    let mut client = Fixture::new("conn -h ::1 --ping-interval 1s").await;
    let tally = Arc::clone(&client.tally);
    let (mut session, out) = client.accept(ACCEPTED);
    let due = session.deadline().unwrap();
    session.poll(out, due).unwrap();
    session
        .handle(&Packet::PingResp, out, due + SECOND / 4)
        .unwrap();
    assert_eq!(session.deadline(), Some(due + SECOND));
    let max = tally.round_trip.merged().unwrap().max();
    assert!((250_000_000..251_000_000).contains(&max), "{max}");
}

#[tokio::test]
async fn the_keep_alive_of_the_server_counts() {
    let mut client = Fixture::new("sub -h ::1 -V 5 -k 0").await;
    let start = client.start;
    let (mut session, out) = client.accept(ConnAck {
        server_keep_alive: Some(10),
        ..ACCEPTED
    });
    assert_eq!(kinds(out), [0x82]);
    assert!(!session.is_up());
    session
        .handle(
            &Packet::SubAck {
                packet_id: 1,
                codes: &[0],
            },
            out,
            start,
        )
        .unwrap();
    assert!(session.is_up());
    assert!(session.deadline().unwrap() <= start + 5 * SECOND);
}

#[tokio::test]
async fn a_refused_filter_ends_the_session() {
    let mut client = Fixture::new("sub -h ::1").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    let refusal = Packet::SubAck {
        packet_id: 1,
        codes: &[0, 0x80],
    };
    let error = session.handle(&refusal, out, start);
    assert_eq!(error, Err(SessionError::SubscriptionRefused(0x80)));
}

#[tokio::test]
async fn the_window_bounds_a_publisher_and_so_does_the_server() {
    for (maximum, expected) in [(None, 4), (Some(2), 2), (Some(100), 4)] {
        let mut client = Fixture::new("pub -h ::1 -V 5 -q 1 -I 0 --inflight 4 -s 8").await;
        let start = client.start;
        let (mut session, out) = client.accept(ConnAck {
            receive_maximum: maximum,
            ..ACCEPTED
        });
        session.poll(out, start).unwrap();
        assert_eq!(kinds(out).len(), expected);
        assert!(!session.is_eager());
        session.handle(&Packet::PubAck(ack(1)), out, start).unwrap();
        assert!(session.is_eager());
        session.poll(out, start).unwrap();
        assert_eq!(kinds(out).len(), 1);
    }
}

#[tokio::test]
async fn messages_that_are_late_are_made_up_for() {
    let mut client = Fixture::new("pub -h ::1 -I 100").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    session.poll(out, start).unwrap();
    assert_eq!(kinds(out).len(), 1);
    session.poll(out, start + SECOND / 20).unwrap();
    assert_eq!(kinds(out).len(), 0);
    session.poll(out, start + SECOND / 2).unwrap();
    assert_eq!(kinds(out).len(), 5);
    assert_eq!(session.deadline(), Some(start + 6 * SECOND / 10));
}

#[tokio::test]
async fn a_resumed_session_repeats_and_releases_what_was_in_flight() {
    let mut client = Fixture::new("pub -h ::1 -q 2 -I 0 --inflight 3 -s 8").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    session.poll(out, start).unwrap();
    session.handle(&Packet::PubRec(ack(1)), out, start).unwrap();
    assert_eq!(kinds(out), [0x34, 0x34, 0x34, 0x62]);
    let (_, out) = client.accept(ConnAck {
        session_present: true,
        ..ACCEPTED
    });
    assert_eq!(publish_ids(out), [(2, true), (3, true)]);
    assert_eq!(kinds(out), [0x62, 0x3c, 0x3c]);
    let (mut session, out) = client.accept(ACCEPTED);
    assert_eq!(publish_ids(out), [(1, false), (2, false), (3, false)]);
    out.clear();
    for packet_id in 1..=3 {
        session
            .handle(&Packet::PubRec(ack(packet_id)), out, start)
            .unwrap();
        session
            .handle(&Packet::PubComp(ack(packet_id)), out, start)
            .unwrap();
    }
    assert_eq!(client.tally.acked.get(), 3);
}

#[tokio::test]
async fn a_message_refused_by_the_server_is_no_success() {
    let mut client = Fixture::new("pub -h ::1 -q 1 -I 0 --inflight 1 -V 5").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    session.poll(out, start).unwrap();
    let refusal = Packet::PubAck(Ack {
        packet_id: 1,
        reason: 0x97,
    });
    session.handle(&refusal, out, start).unwrap();
    assert_eq!(
        (client.tally.acked.get(), client.tally.refused.get()),
        (0, 1)
    );
}

#[tokio::test]
async fn a_publisher_closes_when_drained_or_overdue() {
    let mut client = Fixture::new("pub -h ::1 -q 1 -I 0 --inflight 1").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    session.poll(out, start).unwrap();
    session.stop(start);
    assert!(!session.may_close(start));
    assert!(session.may_close(start + DRAIN));
    session.handle(&Packet::PubAck(ack(1)), out, start).unwrap();
    assert!(session.may_close(start));
    out.clear();
    session.poll(out, start).unwrap();
    assert_eq!(kinds(out).len(), 0);
}

#[tokio::test]
async fn an_exactly_once_message_sent_twice_counts_once() {
    let mut client = Fixture::new("sub -h ::1 -q 2").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    out.clear();
    let message = Packet::Publish(Publish {
        qos: Qos::Two,
        retain: false,
        dup: false,
        topic: b"t",
        packet_id: 9,
        payload: b"",
    });
    for packet in [&message, &message, &Packet::PubRel(ack(9)), &message] {
        session.handle(packet, out, start).unwrap();
    }
    assert_eq!(kinds(out), [0x50, 0x50, 0x70, 0x50]);
    assert_eq!(client.tally.received.get(), 2);
}

#[tokio::test]
async fn what_does_not_belong_to_the_role_ends_the_session() {
    let mut client = Fixture::new("conn -h ::1").await;
    let start = client.start;
    let (mut session, out) = client.accept(ACCEPTED);
    let error = session.handle(&Packet::PubAck(ack(1)), out, start);
    assert_eq!(error, Err(SessionError::Unexpected));
    let error = session.handle(&Packet::ConnAck(ACCEPTED), out, start);
    assert_eq!(error, Err(SessionError::Unexpected));
    let error = session.handle(&Packet::Disconnect { reason: 0x8e }, out, start);
    assert_eq!(error, Err(SessionError::Disconnected(0x8e)));
    assert_eq!(
        SessionError::from(Malformed).to_string(),
        "malformed packet from the server"
    );
}
