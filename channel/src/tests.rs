//! Channels on the loopback interface, with good and bad company.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time,
};

use super::{ChannelError, FRAME, Key, REKEY, Reader, Writer, answer, call, key};

type Ends = (Writer, Reader);
type Outcome = Result<Ends, ChannelError>;

const LIMIT: usize = 300_000;
/// How long anything may take that happens at once on an idle machine.
const SOON: Duration = Duration::from_secs(30);

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let called = TcpStream::connect(listener.local_addr().unwrap());
    let (called, accepted) = tokio::join!(called, listener.accept());
    (called.unwrap(), accepted.unwrap().0)
}

async fn shake(ours: &Key, theirs: &Key) -> (Outcome, Outcome) {
    let (called, accepted) = sockets().await;
    let both = async { tokio::join!(call(called, ours, LIMIT), answer(accepted, theirs, LIMIT)) };
    time::timeout(SOON, both).await.unwrap()
}

async fn connected() -> (Ends, Ends) {
    let (one, other) = shake(&key::of(1), &key::of(1)).await;
    (one.unwrap(), other.unwrap())
}

async fn receive(reader: &mut Reader) -> Result<Vec<u8>, ChannelError> {
    time::timeout(SOON, reader.receive()).await.unwrap()
}

#[tokio::test]
async fn messages_of_any_length_arrive_in_both_directions() {
    let ((mut writer, _), (mut answers, mut reader)) = connected().await;
    drop(answers.send(b"unread").await);
    for length in [0, 1, FRAME - 18, FRAME - 17, FRAME - 16, FRAME, LIMIT] {
        let message: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
        let (sent, received) = tokio::join!(writer.send(&message), receive(&mut reader));
        sent.unwrap();
        assert!(received.unwrap() == message, "of {length} bytes");
    }
}

#[tokio::test]
async fn keys_change_on_both_ends_at_the_same_frame() {
    let ((mut writer, _), (_, mut reader)) = connected().await;
    for number in 0..2 * REKEY + 10 {
        let message = number.to_be_bytes();
        writer.send(&message).await.unwrap();
        assert_eq!(receive(&mut reader).await.unwrap(), message);
    }
}

#[tokio::test]
async fn another_key_is_an_error_on_both_ends() {
    let (caller, callee) = shake(&key::of(1), &key::of(2)).await;
    assert!(matches!(caller, Err(ChannelError::Refused)));
    assert!(matches!(callee, Err(ChannelError::OtherKey)));
}

#[tokio::test]
async fn a_longer_message_than_agreed_is_not_taken() {
    let ((mut writer, _), (_, mut reader)) = connected().await;
    let message = vec![0; LIMIT + 1];
    let (_, received) = tokio::join!(writer.send(&message), receive(&mut reader));
    assert!(matches!(
        received,
        Err(ChannelError::TooLong { limit: LIMIT })
    ));
}

#[tokio::test]
async fn garbage_is_no_handshake() {
    let long = [0xff; 200];
    let short: [u8; 50] = std::array::from_fn(|at| if at < 2 { [0, 48][at] } else { 7 });
    for garbage in [&long[..], &short, b"GET / HTTP/1.1\r\n\r\n", &[0, 0]] {
        let (mut called, accepted) = sockets().await;
        called.write_all(garbage).await.unwrap();
        let outcome = time::timeout(SOON, answer(accepted, &key::of(1), LIMIT)).await;
        assert!(matches!(outcome.unwrap(), Err(ChannelError::OtherKey)));
    }
    let (mut called, accepted) = sockets().await;
    called.write_all(&[0, 48, 1, 2, 3]).await.unwrap();
    drop(called);
    let outcome = time::timeout(SOON, answer(accepted, &key::of(1), LIMIT)).await;
    assert!(matches!(outcome.unwrap(), Err(ChannelError::Refused)));
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let (_called, accepted) = sockets().await;
    let outcome = answer(accepted, &key::of(1), LIMIT).await;
    assert!(matches!(outcome, Err(ChannelError::Slow)));
}

/// What somebody between two ends does with the bytes from one to the other.
#[derive(Clone, Copy)]
enum Meddling {
    Damage,
    Repeat,
    LeaveOut,
    CutOff,
}

/// Passes the handshake on, and meddles with the second frame after it.
async fn meddle(caller: &mut TcpStream, callee: &mut TcpStream, how: Meddling) {
    async fn frame(stream: &mut TcpStream) -> Vec<u8> {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        [&length.to_be_bytes()[..], &bytes].concat()
    }
    let first = frame(caller).await;
    callee.write_all(&first).await.unwrap();
    let second = frame(callee).await;
    caller.write_all(&second).await.unwrap();
    let (one, mut two, three) = (
        frame(caller).await,
        frame(caller).await,
        frame(caller).await,
    );
    callee.write_all(&one).await.unwrap();
    match how {
        Meddling::Damage => {
            *two.last_mut().unwrap() ^= 1;
            callee.write_all(&two).await.unwrap();
        }
        Meddling::Repeat => callee.write_all(&one).await.unwrap(),
        Meddling::LeaveOut => callee.write_all(&three).await.unwrap(),
        Meddling::CutOff => {
            callee.write_all(&two[..two.len() - 1]).await.unwrap();
            callee.shutdown().await.unwrap();
        }
    }
}

async fn meddled(how: Meddling) -> (Vec<u8>, ChannelError) {
    let ((called, mut left), (mut right, accepted)) = (sockets().await, sockets().await);
    let caller = async {
        let (mut writer, reader) = call(called, &key::of(1), LIMIT).await.unwrap();
        for message in [b"one", b"two", b"six"] {
            writer.send(message).await.unwrap();
        }
        (writer, reader)
    };
    let callee = async {
        let (writer, mut reader) = answer(accepted, &key::of(1), LIMIT).await.unwrap();
        let first = receive(&mut reader).await.unwrap();
        (first, receive(&mut reader).await.unwrap_err(), writer)
    };
    let between = meddle(&mut left, &mut right, how);
    let (_, (first, error, _), ()) = tokio::join!(caller, callee, between);
    (first, error)
}

#[tokio::test]
async fn what_somebody_does_to_a_frame_ends_the_channel() {
    for how in [Meddling::Damage, Meddling::Repeat, Meddling::LeaveOut] {
        let (first, error) = meddled(how).await;
        assert_eq!(first, b"one");
        assert!(matches!(error, ChannelError::Forged), "{error}");
    }
    let (first, error) = meddled(Meddling::CutOff).await;
    assert_eq!(first, b"one");
    assert!(matches!(error, ChannelError::Closed), "{error}");
}

#[tokio::test]
async fn a_replayed_handshake_gives_nobody_a_channel() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    // What a true peer said first, and later.
    let record = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; 2 + 48];
        stream.read_exact(&mut said).await.unwrap();
        said
    };
    let key = key::of(1);
    let caller = async {
        let stream = TcpStream::connect(address).await.unwrap();
        drop(call(stream, &key, LIMIT).await);
    };
    let (said, ()) = tokio::join!(record, caller);
    let (mut called, accepted) = sockets().await;
    called.write_all(&said).await.unwrap();
    let (_, mut reader) = answer(accepted, &key, LIMIT).await.unwrap();
    // It cannot know the secrets, whatever it says.
    called.write_all(&said).await.unwrap();
    assert!(matches!(
        receive(&mut reader).await,
        Err(ChannelError::Forged)
    ));
}

/// The next frame, as it is on the wire.
async fn raw_frame(reader: &mut Reader) -> Vec<u8> {
    while reader.whole_frame().is_none() {
        let read = reader.stream.read_buf(&mut reader.raw);
        assert!(time::timeout(SOON, read).await.unwrap().unwrap() > 0);
    }
    let length = reader.whole_frame().unwrap();
    reader.raw.drain(..2 + length).collect()
}

#[tokio::test]
async fn a_million_forged_and_replayed_frames_change_nothing() {
    const FORGED: usize = 1_000_000;
    let ((mut writer, _), (_, mut reader)) = connected().await;
    let mut frames = Vec::new();
    for number in 0..4_u8 {
        writer.send(&[number; 20]).await.unwrap();
        frames.push(raw_frame(&mut reader).await);
    }
    reader.raw.extend_from_slice(&frames[0]);
    assert!(reader.decrypt(frames[0].len() - 2).unwrap());
    reader.message.clear();
    let before = reader.frames;
    let room = |reader: &Reader| (reader.raw.capacity(), reader.message.capacity());
    let memory = room(&reader);
    // The first is a replay now, the third and fourth come too soon, the second is damaged.
    for number in 0..FORGED {
        let at = number % frames.len();
        let mut frame = frames[at].clone();
        if at == 1 {
            let bit = number / frames.len() % ((frame.len() - 2) * 8);
            frame[2 + bit / 8] ^= 1 << (bit % 8);
        }
        reader.raw.clear();
        reader.raw.extend_from_slice(&frame);
        let outcome = reader.decrypt(frame.len() - 2);
        assert!(matches!(outcome, Err(ChannelError::Forged)), "frame {at}");
    }
    assert_eq!((reader.frames, reader.message.len()), (before, 0));
    assert_eq!(room(&reader), memory);
    for (number, frame) in (0..).zip(&frames).skip(1) {
        reader.raw.clear();
        reader.raw.extend_from_slice(frame);
        assert!(reader.decrypt(frame.len() - 2).unwrap());
        assert_eq!(std::mem::take(&mut reader.message), [number; 20]);
    }
}
