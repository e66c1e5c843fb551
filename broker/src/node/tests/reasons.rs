//! Failures in words (MQTT 5, 3.1.2.11.7).

use super::{
    Broker,
    client::{Client, Hello, packet},
};
use crate::codec::packet::Version;

const SETTINGS: &str = "[limits]\nretained = 0\nsessions = 1\n";

fn hello(properties: &[u8]) -> Hello {
    let mut hello = Hello::new(Version::V5, "client");
    hello.properties = properties.to_vec();
    hello
}

/// Makes a broker refuse a subscription, an unsubscription and messages of QoS 1 and 2; the result is
/// what it answers.
async fn refusals(broker: &Broker, hello: &Hello) -> Vec<Vec<u8>> {
    let (mut client, welcome) = Client::connect(broker.address, hello).await;
    assert_eq!(welcome.code, 0);
    for bytes in [
        packet(0x82, b"\0\x01\0\0\x02a#\0"),
        packet(0xa2, b"\0\x02\0\0\x02a#"),
        packet(0x33, b"\0\x01t\0\x03\0x"),
        packet(0x35, b"\0\x01t\0\x04\0x"),
    ] {
        client.send(&bytes).await;
    }
    let mut answers = Vec::new();
    for first in [0x90, 0xb0, 0x40, 0x50] {
        let (got, body) = client.recv().await;
        assert_eq!(got, first, "{body:?}");
        answers.push(body);
    }
    client.leave().await;
    answers
}

#[tokio::test]
async fn failures_are_told_in_words_to_clients_that_want_them() {
    let broker = Broker::start_with(SETTINGS).await;
    let bare: [&[u8]; 4] = [
        b"\0\x01\0\x8f",
        b"\0\x02\0\x8f",
        b"\0\x03\x97",
        b"\0\x04\x97",
    ];
    let words = [
        "topic filter not valid",
        "more than the broker has room for",
    ];
    for told in [&[][..], &[0x17, 1], &[0x27, 0, 0, 0, 200]] {
        let answers = refusals(&broker, &hello(told)).await;
        for (answer, words) in answers.iter().zip([words[0], words[0], words[1], words[1]]) {
            let text = String::from_utf8_lossy(answer);
            assert!(text.contains(words), "{told:?}: {text:?}");
        }
    }
    for not_told in [&[0x17, 0][..], &[0x27, 0, 0, 0, 25]] {
        assert_eq!(refusals(&broker, &hello(not_told)).await, bare);
    }
    broker.stop().await;
}

#[tokio::test]
async fn refused_connect_is_told_why_in_words_if_they_fit() {
    let broker = Broker::start_with(SETTINGS).await;
    let _only = broker.join(Version::V5, "only").await;
    for (properties, is_told) in [
        (&[][..], true),
        (&[0x17, 0], true),
        (&[0x27, 0, 0, 0, 41], true),
        (&[0x27, 0, 0, 0, 40], false),
        (&[0x27, 0, 0, 0, 5], false),
    ] {
        let (mut client, welcome) = Client::connect(broker.address, &hello(properties)).await;
        assert_eq!(welcome.code, 0x97);
        let words = b"more than the broker has room for";
        assert_eq!(
            welcome.properties.ends_with(words),
            is_told,
            "{properties:?}"
        );
        client.expect_close().await;
    }
    // No CONNACK at all fits.
    let mut client = Client::open(broker.address).await;
    client.send(&hello(&[0x27, 0, 0, 0, 4]).encode()).await;
    client.expect_close().await;
    broker.stop().await;
}
