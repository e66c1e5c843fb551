//! Frames against those of another implementation, and against the rules.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use super::*;

/// Sends what there is to be sent.
async fn flush(frames: &mut Frames, stream: &mut DuplexStream) {
    stream.write_all(frames.outgoing()).await.unwrap();
    frames.advance(frames.outgoing().len());
}

#[tokio::test]
async fn another_implementation_is_understood_and_understands() {
    let (mut near, far) = duplex(1 << 20);
    let mut server = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
    let mut frames = Frames::default();
    for length in [1, 125, 126, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..length).map(|number| number as u8).collect();
        let mut rest = &payload[..];
        while !rest.is_empty() {
            rest = &rest[frames.push(rest).unwrap()..];
        }
        flush(&mut frames, &mut near).await;
        let mut heard: Vec<u8> = Vec::new();
        while heard.len() < length {
            heard.extend(server.next().await.unwrap().unwrap().into_data());
        }
        assert_eq!(heard, payload);

        let answer = Message::binary(payload.clone());
        server.send(answer).await.unwrap();
        server.send(Message::Ping("?".into())).await.unwrap();
        let mut heard: Vec<u8> = Vec::new();
        let mut room = [0; 1000];
        while frames.outgoing().is_empty() {
            let read = near.read(&mut room).await.unwrap();
            let payload = frames.decode(&mut room[..read]).unwrap();
            heard.extend(&room[..payload]);
        }
        assert_eq!(heard, payload);
        flush(&mut frames, &mut near).await;
        let pong = server.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong("?".into()));
    }
    frames.close().unwrap();
    flush(&mut frames, &mut near).await;
    let close = server.next().await.unwrap().unwrap();
    assert!(close.is_close(), "{close:?}");
}

/// Decodes one byte after the other.
fn decode(bytes: &[u8]) -> (Result<Vec<u8>, FrameError>, Frames) {
    let mut frames = Frames::default();
    let mut payload = Vec::new();
    for byte in bytes {
        let mut byte = [*byte];
        match frames.decode(&mut byte) {
            Ok(0) => {}
            Ok(_) => payload.push(byte[0]),
            Err(error) => return (Err(error), frames),
        }
    }
    (Ok(payload), frames)
}

#[test]
fn messages_may_come_in_parts_with_pings_between() {
    let (payload, frames) =
        decode(b"\x02\x02ab\x89\x01?\x00\x01c\x80\x00\x82\x7e\x00\x01d\x88\x00");
    assert_eq!(payload.unwrap(), b"abcd");
    assert_eq!(frames.outgoing()[..2], [PONG, MASKED | 1]);
    assert!(frames.is_closed());
}

#[test]
fn frames_against_the_rules_are_refused() {
    for (bytes, error) in [
        (&b"\x81\x01"[..], FrameError::Text),
        (b"\x82\x81", FrameError::Malformed),
        (b"\xc2\x01", FrameError::Malformed),
        (b"\x80\x01", FrameError::Malformed),
        (b"\x02\x01a\x82\x01", FrameError::Malformed),
        (b"\x09\x00", FrameError::Malformed),
        (b"\x89\x7e\x00\x7e", FrameError::Malformed),
        (b"\x8b\x00", FrameError::Malformed),
        (
            b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
            FrameError::Malformed,
        ),
    ] {
        assert_eq!(decode(bytes).0, Err(error), "{bytes:?}");
    }
}

#[tokio::test]
async fn server_that_grants_no_websocket_is_told_from_one_that_does() {
    let request = Request {
        authority: "host",
        path: "/mqtt",
        subprotocol: "mqtt",
    };
    let wrong_key = "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    for (answer, told) in [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "no WebSocket: the server answered with HTTP status 404",
        ),
        (
            wrong_key,
            "no WebSocket: the server's answer is none to a request for one",
        ),
        (
            "220 mail\r\n\r\n",
            "no WebSocket: the server's answer is none to a request for one",
        ),
        ("", "unexpected end of file"),
    ] {
        let (mut near, mut far) = duplex(10_000);
        far.write_all(answer.as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        let error = upgrade(&mut near, &request).await.unwrap_err();
        assert_eq!(error.to_string(), told);
    }
}
