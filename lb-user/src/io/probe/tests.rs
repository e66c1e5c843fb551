//! Probes against servers of one connection each, over loopback.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Http, Mqtt, MqttVersion, Probe, ProbeFailure, Stage, run};

/// Long enough for a busy machine; only probes that should time out wait as long as they may.
const PATIENCE: Duration = Duration::from_secs(20);
const IMPATIENCE: Duration = Duration::from_millis(50);

const CONNACK_V311: &[u8] = &[0x20, 2, 0, 0];
/// With a property: receive maximum 10.
const CONNACK_V5: &[u8] = &[0x20, 6, 0, 0, 3, 0x21, 0, 10];
const PINGRESP: &[u8] = &[0xd0, 0];
const DISCONNECT: &[u8] = &[0xe0, 0];

/// One step of a server: to read until it has seen so many bytes, or to write.
enum Step {
    Read(usize),
    Write(&'static [u8]),
    /// Says no more until the client goes.
    Hang,
}

/// Serves one connection step by step; gives back all that was read, the client's goodbye included.
async fn serve(steps: Vec<Step>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        for step in steps {
            match step {
                Step::Read(count) => {
                    let mut bytes = vec![0; count];
                    stream.read_exact(&mut bytes).await.unwrap();
                    seen.extend(bytes);
                }
                Step::Write(bytes) => stream.write_all(bytes).await.unwrap(),
                Step::Hang => rest(&mut stream, &mut seen).await,
            }
        }
        rest(&mut stream, &mut seen).await;
        seen
    });
    (address, server)
}

async fn rest(stream: &mut TcpStream, seen: &mut Vec<u8>) {
    // A client that gave up may reset the connection.
    let _ = stream.read_to_end(seen).await;
}

fn mqtt(version: MqttVersion) -> Mqtt {
    Mqtt {
        version,
        client_id: "probe".to_owned(),
        username: None,
        password: None,
    }
}

/// Length of `mqtt(..)`'s CONNECT: fixed header, variable header, client id.
const fn connect_length(version: MqttVersion) -> usize {
    match version {
        MqttVersion::V311 => 2 + 10 + 7,
        MqttVersion::V5 => 2 + 11 + 7,
    }
}

fn http(expect: u16) -> Probe {
    Probe::Http(Http {
        path: "/health".to_owned(),
        host: None,
        expect,
        drain_on: Some(503),
    })
}

#[tokio::test]
async fn mqtt_broker_that_answers_is_healthy_and_gets_a_goodbye() {
    for (version, level, connack) in [
        (MqttVersion::V311, 4, CONNACK_V311),
        (MqttVersion::V5, 5, CONNACK_V5),
    ] {
        let length = connect_length(version);
        let steps = vec![
            Step::Read(length),
            Step::Write(connack),
            Step::Read(2),
            Step::Write(PINGRESP),
        ];
        let (address, server) = serve(steps).await;
        run(&Probe::Mqtt(mqtt(version)), address, PATIENCE)
            .await
            .unwrap();
        let seen = server.await.unwrap();
        assert_eq!(&seen[2..8], b"\0\x04MQTT");
        assert_eq!((seen[8], seen[9]), (level, 0x02), "level and clean start");
        assert!(seen[..length].ends_with(b"\0\x05probe"));
        assert!(seen.ends_with(DISCONNECT), "{seen:?}");
    }
}

#[tokio::test]
async fn mqtt_credentials_are_sent_in_their_order() {
    let probe = Mqtt {
        username: Some("user".to_owned()),
        password: Some("secret".to_owned()),
        ..mqtt(MqttVersion::V311)
    };
    assert!(!format!("{probe:?}").contains("secret"));
    let length = connect_length(MqttVersion::V311) + 6 + 8;
    let steps = vec![
        Step::Read(length),
        Step::Write(CONNACK_V311),
        Step::Read(2),
        Step::Write(PINGRESP),
    ];
    let (address, server) = serve(steps).await;
    run(&Probe::Mqtt(probe), address, PATIENCE).await.unwrap();
    let seen = server.await.unwrap();
    assert_eq!(seen[9], 0xc2);
    assert!(seen[..length].ends_with(b"\0\x04user\0\x06secret"));
}

#[tokio::test]
async fn mqtt_broker_that_refuses_the_client_is_not_healthy() {
    let steps = vec![
        Step::Read(connect_length(MqttVersion::V311)),
        Step::Write(&[0x20, 2, 0, 5]),
    ];
    let (address, _server) = serve(steps).await;
    let failure = run(&Probe::Mqtt(mqtt(MqttVersion::V311)), address, PATIENCE)
        .await
        .unwrap_err();
    assert_eq!(failure.to_string(), "CONNACK refused: 0x05");
}

#[tokio::test]
async fn broker_that_sends_clients_elsewhere_is_well() {
    for (version, code, is_farewell) in [
        (MqttVersion::V5, 0x9c, true),
        (MqttVersion::V5, 0x9d, true),
        (MqttVersion::V5, 0x89, false),
    ] {
        let connack: &[u8] = match code {
            0x9c => &[0x20, 3, 0, 0x9c, 0],
            0x9d => &[0x20, 3, 0, 0x9d, 0],
            _ => &[0x20, 3, 0, 0x89, 0],
        };
        let steps = vec![Step::Read(connect_length(version)), Step::Write(connack)];
        let (address, _server) = serve(steps).await;
        let probe = Probe::Mqtt(mqtt(version));
        let failure = run(&probe, address, PATIENCE).await.unwrap_err();
        assert_eq!(failure.is_farewell(), is_farewell, "{failure}");
    }
    for (status, is_farewell) in [("503", true), ("500", false)] {
        let answer = format!("HTTP/1.1 {status} No\r\n\r\n").leak().as_bytes();
        let (address, _server) = serve(vec![Step::Write(answer)]).await;
        let failure = run(&http(200), address, PATIENCE).await.unwrap_err();
        assert_eq!(failure.is_farewell(), is_farewell, "{failure}");
        assert!(failure.was_answered());
    }
}

#[tokio::test]
async fn mqtt_broker_that_hangs_is_told_by_the_step_it_hangs_in() {
    let hang = vec![Step::Hang];
    let (address, _server) = serve(hang).await;
    let probe = Probe::Mqtt(mqtt(MqttVersion::V311));
    let failure = run(&probe, address, IMPATIENCE).await.unwrap_err();
    assert_eq!(failure.to_string(), "timed out after 0.05s in CONNACK");

    let steps = vec![
        Step::Read(connect_length(MqttVersion::V311)),
        Step::Write(CONNACK_V311),
        Step::Hang,
    ];
    let (address, _server) = serve(steps).await;
    let failure = run(&probe, address, Duration::from_millis(500))
        .await
        .unwrap_err();
    assert!(
        matches!(
            failure,
            ProbeFailure::TimedOut {
                stage: Stage::Pingresp,
                ..
            }
        ),
        "{failure}"
    );
}

#[tokio::test]
async fn mqtt_nonsense_is_not_an_answer() {
    for nonsense in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        &[0x20, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x20, 0xff, 0xff, 0xff, 0x7f],
        &[0x20, 0],
        &[0x20, 1, 0],
    ] {
        let length = connect_length(MqttVersion::V5);
        let steps = vec![Step::Read(length), Step::Write(nonsense)];
        let (address, _server) = serve(steps).await;
        let probe = Probe::Mqtt(mqtt(MqttVersion::V5));
        let failure = run(&probe, address, Duration::from_secs(2))
            .await
            .unwrap_err();
        let stage = Stage::Connack;
        assert!(
            matches!(&failure, ProbeFailure::Unexpected { stage: s } if *s == stage)
                || matches!(&failure, ProbeFailure::TimedOut { stage: s, .. } if *s == stage),
            "{nonsense:?}: {failure}"
        );
    }
}

#[tokio::test]
async fn tcp_probe_only_connects() {
    let (address, server) = serve(Vec::new()).await;
    run(&Probe::Tcp, address, PATIENCE).await.unwrap();
    assert_eq!(server.await.unwrap(), b"");
}

#[tokio::test]
async fn closed_port_is_a_refusal() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = run(&Probe::Tcp, address, PATIENCE).await.unwrap_err();
    assert_eq!(failure.to_string(), "connection refused");
    assert!(failure.was_answered());
}

#[test]
fn failure_without_a_packet_from_the_host_is_no_answer() {
    for kind in [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable] {
        assert!(!ProbeFailure::Connect(kind.into()).was_answered());
    }
    let timed_out = |stage| ProbeFailure::TimedOut {
        after: IMPATIENCE,
        stage,
    };
    assert!(!timed_out(Stage::Connect).was_answered());
    assert!(
        timed_out(Stage::Connack).was_answered(),
        "its kernel took the connection"
    );
    assert!(ProbeFailure::Connect(ErrorKind::ConnectionReset.into()).was_answered());
}

#[tokio::test]
async fn http_status_decides() {
    for (expect, healthy) in [(503, true), (200, false)] {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        let (address, server) = serve(vec![Step::Read(30), Step::Write(answer)]).await;
        let outcome = run(&http(expect), address, PATIENCE).await;
        assert_eq!(outcome.is_ok(), healthy, "{outcome:?}");
        let seen = String::from_utf8(server.await.unwrap()).unwrap();
        assert!(seen.starts_with("GET /health HTTP/1.1\r\n"), "{seen}");
        assert!(seen.contains(&format!("\r\nHost: {address}\r\n")), "{seen}");
        assert!(seen.ends_with("\r\n\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn http_answer_of_another_protocol_is_not_one() {
    let (address, _server) = serve(vec![
        Step::Read(30),
        Step::Write(b"SSH-2.0-OpenSSH_9.2\r\n"),
    ])
    .await;
    let failure = run(&http(200), address, PATIENCE).await.unwrap_err();
    assert_eq!(failure.to_string(), "unexpected answer in HTTP response");
}
