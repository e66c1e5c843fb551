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

#[tokio::test]
async fn websocket_that_says_nothing_is_refused_in_time() {
    let settings = format!("{SETTINGS}[limits]\nconnect_timeout = \"2s\"\n");
    let broker = Broker::start_with(&settings).await;
    let mut silent = client(TcpStream::connect(broker.address).await.unwrap()).await;
    silent.expect_close().await;
    broker.wait_for(Metric::RefusedTimeout, 1).await;
    broker.stop().await;
}
