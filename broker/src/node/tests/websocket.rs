//! MQTT over WebSocket, by a client that others wrote.

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::{
    ALL, Broker,
    client::{Client, Hello},
    front::secure,
};
use crate::{metrics::Metric, tls::tests::Authority};

const SETTINGS: &str = "protocol = \"ws\"\n";

/// Bytes of one message: MQTT packets cross them.
const MESSAGE: usize = 1000;

/// Asks for a WebSocket; the result is the head of the answer.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    path: &str,
    subprotocol: &str,
) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A client over a WebSocket over `stream`.
pub(super) async fn client<S>(mut stream: S) -> Client<DuplexStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = ask(&mut stream, "/mqtt", "mqtt").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(
        answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"),
        "{answer}"
    );
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let (near, far) = duplex(MESSAGE);
    tokio::spawn(pump(socket, far));
    Client::over(near)
}

/// Carries bytes between a WebSocket's messages and a stream until either ends.
async fn pump<S: AsyncRead + AsyncWrite + Unpin>(socket: WebSocketStream<S>, far: DuplexStream) {
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(far);
    let up = async {
        let mut bytes = [0; MESSAGE];
        while let Ok(read @ 1..) = reader.read(&mut bytes).await {
            let message = Message::binary(bytes[..read].to_vec());
            if sink.send(message).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        while let Some(Ok(Message::Binary(bytes))) = source.next().await {
            if writer.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[tokio::test]
async fn clients_of_every_version_talk_over_websocket() {
    let authority = Authority::new("websocket");
    let plain = Broker::start_with(SETTINGS).await;
    let tls = authority.server("localhost").settings();
    let secured = Broker::start_with(&format!("{SETTINGS}{tls}")).await;
    let connector = authority.connector(None);
    let payload = "x".repeat(100_000);
    for version in ALL {
        let tcp = TcpStream::connect(plain.address).await.unwrap();
        let clients = [
            client(tcp).await,
            client(secure(&secured, &connector).await.stream).await,
        ];
        for mut client in clients {
            assert_eq!(client.greet(&Hello::new(version, "c")).await.code, 0);
            client.subscribe("t", 0).await;
            for _ in 0..10 {
                client.publish("t", &payload, 0, 0).await;
            }
            for _ in 0..10 {
                assert_eq!(client.receive().await.payload, payload);
            }
            client.leave().await;
        }
    }
    plain.stop().await;
    secured.stop().await;
}

#[tokio::test]
async fn other_requests_are_told_what_is_wrong() {
    let broker = Broker::start_with(SETTINGS).await;
    for (path, subprotocol, sentence) in [
        ("/", "mqtt", "there is nothing at this path"),
        ("/mqtt", "chat", "offer the subprotocol mqtt"),
    ] {
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        let head = ask(&mut stream, path, subprotocol).await;
        assert!(head.starts_with("HTTP/1.1 4"), "{head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert!(body.contains(sentence), "{body}");
    }
    let mut plain = Client::open(broker.address).await;
    plain.send(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c").await;
    plain.expect_close().await;
    broker.wait_for(Metric::RefusedWebSocket, 3).await;
    broker.stop().await;
}

/// A frame from a client; the mask is zero.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn broken_rules_are_counted_by_reason_and_not_as_lost_connections() {
    let broker = Broker::start_with(SETTINGS).await;
    let connect = frame(0x82, b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c");
    let ping = frame(0x82, b"\xc0\0");
    let violations = [
        (frame(0x81, b"text"), Metric::WebSocketText),
        (vec![0x82, 1, b'a'], Metric::WebSocketUnmasked),
        (frame(0xc2, b"a"), Metric::WebSocketExtension),
        (frame(0x83, b"a"), Metric::WebSocketOpcode),
        (frame(0x80, b"a"), Metric::WebSocketSequence),
        (frame(0x09, b"a"), Metric::WebSocketControl),
        (
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            Metric::WebSocketLength,
        ),
        (frame(0x88, &[3]), Metric::WebSocketClose),
    ];
    for ((violation, metric), before) in violations.iter().zip(0..) {
        // Before a CONNECT, behind one, and behind a packet that is still to be answered.
        for (said, ended, count) in [
            (Vec::new(), Metric::RefusedWebSocket, before + 1),
            (connect.clone(), Metric::ClosedProtocol, 2 * before + 1),
            (
                [&connect[..], &ping].concat(),
                Metric::ClosedProtocol,
                2 * before + 2,
            ),
        ] {
            let mut stream = TcpStream::connect(broker.address).await.unwrap();
            ask(&mut stream, "/mqtt", "mqtt").await;
            let bytes = [&said[..], violation].concat();
            stream.write_all(&bytes).await.unwrap();
            let mut answers = Vec::new();
            stream.read_to_end(&mut answers).await.unwrap();
            let close = answers.len() - 4;
            assert_eq!(answers[close..close + 2], [0x88, 2], "{answers:?}");
            broker.wait_for(ended, count).await;
        }
        broker.wait_for(*metric, 3).await;
    }
    // Who closes in order is lost to MQTT, and breaks no rule.
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    ask(&mut stream, "/mqtt", "mqtt").await;
    let goodbye = [&connect[..], &frame(0x88, &1001_u16.to_be_bytes())].concat();
    stream.write_all(&goodbye).await.unwrap();
    broker.wait_for(Metric::ClosedLost, 1).await;
    assert_eq!(broker.count(Metric::WebSocketClose), 3);
    broker.stop().await;
}

#[tokio::test]
async fn websocket_that_says_nothing_is_refused_in_time() {
    let settings = format!("{SETTINGS}[limits]\nconnect_timeout = \"2s\"\n");
    let broker = Broker::start_with(&settings).await;
    let mut silent = client(TcpStream::connect(broker.address).await.unwrap()).await;
    silent.expect_close().await;
    broker.wait_for(Metric::RefusedTimeout, 1).await;
    broker.stop().await;
}
