use proptest::{collection::vec, prelude::any, prop_assert, proptest};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use super::*;

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// Every header here, with the source that it tells.
fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let v4 = [192, 0, 2, 1, 192, 0, 2, 9, 0xc3, 0x50, 7, 91];
    let extended = [&v4[..], &[4, 0, 3, 1, 2, 3]].concat();
    let mut v6 = [0; 36];
    v6[..2].copy_from_slice(&[0xfd, 0]);
    v6[15] = 1;
    v6[33] = 80;
    let mut mapped = [0; 36];
    mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
    let line = |text: &str| text.as_bytes().to_vec();
    vec![
        (
            line("PROXY TCP4 192.0.2.1 192.0.2.9 50000 1883\r\n"),
            Some("192.0.2.1:50000"),
        ),
        (
            line("PROXY TCP6 fd00::1 fd00::2 80 1883\r\n"),
            Some("[fd00::1]:80"),
        ),
        (
            line("PROXY TCP6 ::ffff:192.0.2.1 ::1 80 1883\r\n"),
            Some("192.0.2.1:80"),
        ),
        (line("PROXY UNKNOWN\r\n"), None),
        (line("PROXY UNKNOWN whatever it is\r\n"), None),
        (binary(0x21, 0x11, &v4), Some("192.0.2.1:50000")),
        (binary(0x21, 0x11, &extended), Some("192.0.2.1:50000")),
        (binary(0x21, 0x21, &v6), Some("[fd00::1]:80")),
        (binary(0x21, 0x21, &mapped), Some("192.0.2.1:0")),
        (binary(0x20, 0, &[]), None),
        (binary(0x20, 0x11, &v4), None),
        (binary(0x21, 0x31, &[0; 216]), None),
    ]
}

#[test]
fn headers_of_both_versions_tell_the_client() {
    for (bytes, source) in headers() {
        let source = source.map(|text| text.parse().unwrap());
        let length = bytes.len();
        let header = parse(&[&bytes[..], b"\x10\x0e"].concat()).unwrap();
        assert_eq!(header, Some(Header { source, length }));
        for end in 0..length {
            assert_eq!(parse(&bytes[..end]).unwrap(), None, "{:?}", &bytes[..end]);
        }
    }
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.9 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.9 1 65536\r\n",
        "PROXY TCP4 fd00::1 fd00::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.9 1 2\r\n",
        "PROXY TCP4 \u{661}92.0.2.1 192.0.2.9 1 2\r\n",
    ] {
        let result = parse(line.as_bytes());
        assert!(
            matches!(result, Err(ProxyError::Malformed)),
            "{line:?} {result:?}"
        );
    }
    let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; LONGEST_LINE]].concat();
    assert!(matches!(parse(&endless), Err(ProxyError::Malformed)));
    for (command, family, rest) in [
        (0x11, 0x11, 12),
        (0x22, 0x11, 12),
        (0x21, 0x11, 11),
        (0x21, 0x21, 12),
        (0x21, 0x12, 12),
    ] {
        let result = parse(&binary(command, family, &vec![0; rest]));
        assert!(
            matches!(result, Err(ProxyError::Malformed)),
            "{command:#x} {family:#x}"
        );
    }
    let long = parse(&binary(0x21, 0x11, &vec![0; LONGEST]));
    assert!(matches!(long, Err(ProxyError::TooLong)));
    for other in [
        &b"\x10\x0e\0\x04MQTT"[..],
        b"GET / HTTP/1.1",
        b"\x16\x03\x01",
        b"PROXIES",
    ] {
        assert!(matches!(parse(other), Err(ProxyError::Absent)));
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(start in 0_usize..3, bytes in vec(any::<u8>(), 0..300)) {
        let starts = [&b""[..], b"PROXY TCP4 ", SIGNATURE];
        let bytes = [starts[start], &bytes].concat();
        if let Ok(Some(header)) = parse(&bytes) {
            prop_assert!(header.length <= bytes.len());
        }
    }
}

#[tokio::test]
async fn header_is_read_and_nothing_behind_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for (bytes, source) in headers() {
        let mut proxy = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut stream, _address) = listener.accept().await.unwrap();
        let sending = tokio::spawn(async move {
            // The header's parts come in segments of their own, as far as the system lets them.
            proxy.set_nodelay(true).unwrap();
            for part in bytes.chunks(7) {
                proxy.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            proxy.write_all(b"MQTT").await.unwrap();
            proxy
        });
        let read = read_header(&mut stream).await.unwrap();
        assert_eq!(read, source.map(|text| text.parse().unwrap()));
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"MQTT");
        drop(sending.await.unwrap());
    }
}

#[tokio::test]
async fn proxy_that_leaves_within_its_header_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut proxy = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut stream, _address) = listener.accept().await.unwrap();
    proxy.write_all(b"PROXY TCP4 ").await.unwrap();
    drop(proxy);
    let result = read_header(&mut stream).await;
    assert!(matches!(result, Err(ProxyError::Closed)), "{result:?}");
}
