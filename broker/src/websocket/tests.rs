//! Against a client that others wrote.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use super::*;

type Client = WebSocketStream<DuplexStream>;

/// Both ends, with so many bytes between them in either direction.
async fn pair(bytes: usize) -> (Client, WebSocket<DuplexStream>) {
    let (client, server) = duplex(bytes);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    (client, WebSocket::new(server, Bytes::new()))
}

async fn closed_with(client: &mut Client) -> CloseCode {
    loop {
        match client.next().await {
            Some(Ok(Message::Close(Some(frame)))) => return frame.code,
            Some(Ok(_other)) => {}
            ended => panic!("no close frame but {ended:?}"),
        }
    }
}

#[tokio::test]
async fn bytes_cross_frames_of_every_length() {
    let sizes = [0, 1, 2, 125, 126, 127, 0, 65_535, 65_536, 200_000];
    let bytes: Vec<u8> = (0..sizes.iter().sum::<usize>())
        .map(|at| (at * 7) as u8)
        .collect();
    for between in [1, 7, 1024, 100_000] {
        let (mut client, server) = pair(between).await;
        let echo = tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(server);
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let (mut sink, mut source) = (&mut client).split();
        let sending = async {
            let mut rest = &bytes[..];
            for size in sizes {
                let (message, after) = rest.split_at(size);
                sink.send(Message::binary(message.to_vec())).await.unwrap();
                rest = after;
            }
        };
        let receiving = async {
            let mut received = Vec::new();
            while received.len() < bytes.len() {
                match source.next().await {
                    Some(Ok(Message::Binary(message))) => received.extend_from_slice(&message),
                    other => panic!("no binary message but {other:?}"),
                }
            }
            received
        };
        let ((), received) = tokio::join!(sending, receiving);
        assert!(received == bytes, "{between} bytes between");
        drop((sink, source));
        client.close(None).await.unwrap();
        assert_eq!(closed_with(&mut client).await, CloseCode::Normal);
        assert_eq!(echo.await.unwrap().unwrap(), bytes.len() as u64);
    }
}

#[tokio::test]
async fn pings_are_answered_while_the_server_only_reads() {
    let (mut client, mut server) = pair(1024).await;
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        byte
    });
    client
        .send(Message::Ping("are you there?".into()))
        .await
        .unwrap();
    let answer = client.next().await.unwrap().unwrap();
    assert_eq!(answer, Message::Pong("are you there?".into()));
    client.send(Message::binary(vec![7])).await.unwrap();
    assert_eq!(reading.await.unwrap(), [7]);
}

#[tokio::test]
async fn pings_whose_answers_are_not_read_are_not_held() {
    let (mut client, mut server) = pair(64).await;
    let reading = tokio::spawn(async move {
        let mut byte = [0];
        server.read_exact(&mut byte).await.unwrap();
        server
    });
    let (mut sink, source) = (&mut client).split();
    for _ in 0..1000 {
        sink.send(Message::Ping(vec![b'x'; 125].into()))
            .await
            .unwrap();
    }
    sink.send(Message::binary(vec![7])).await.unwrap();
    drop(source);
    let server = reading.await.unwrap();
    assert!(server.control.len() <= 127, "{}", server.control.len());
}

#[tokio::test]
async fn close_is_answered_and_ends_the_stream() {
    let (mut client, mut server) = pair(1024).await;
    let reading = tokio::spawn(async move {
        let mut received = Vec::new();
        server.read_to_end(&mut received).await.unwrap();
        assert_eq!(
            server.write(b"late").await.unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        received
    });
    client
        .send(Message::binary(b"last".to_vec()))
        .await
        .unwrap();
    let frame = CloseFrame {
        code: CloseCode::Away,
        reason: "page left".into(),
    };
    client.close(Some(frame)).await.unwrap();
    assert_eq!(closed_with(&mut client).await, CloseCode::Away);
    assert_eq!(reading.await.unwrap(), b"last");
}

#[tokio::test]
async fn text_is_refused() {
    let (mut client, mut server) = pair(1024).await;
    client.send(Message::text("text")).await.unwrap();
    let error = server.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(Violation::of(&error), Some(Violation::Text));
    assert_eq!(closed_with(&mut client).await, CloseCode::Unsupported);
    let error = server.write(b"late").await.unwrap_err();
    assert_eq!(Violation::of(&error), Some(Violation::Text));
}

#[tokio::test]
async fn shutdown_says_goodbye_after_what_was_written() {
    let (mut client, mut server) = pair(1024).await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let last = client.next().await.unwrap().unwrap();
    assert_eq!(last, Message::binary(b"bye".to_vec()));
    assert_eq!(closed_with(&mut client).await, CloseCode::Normal);
}

#[tokio::test]
async fn what_came_with_the_request_is_read_first() {
    let (client, server) = duplex(1024);
    let ahead = Bytes::from_static(&[0x82, 0x85, 0, 0, 0, 0, b'f', b'i']);
    let mut server = WebSocket::new(server, ahead);
    let mut client = client;
    client.write_all(b"rst").await.unwrap();
    let mut bytes = [0; 5];
    server.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"first");
}
