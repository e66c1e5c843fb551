//! What comes before MQTT: TLS, certificates of clients, and PROXY headers.

use std::fs;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    ALL, Broker,
    client::{Client, Hello},
    config, mosquitto, operate,
};
use crate::{
    codec::packet::Version,
    control::view::{ClientView, Page},
    metrics::Metric,
    testing::Dir,
    tls::tests::{Authority, Files},
};

/// A TLS client; its handshake may be over before the broker has refused it.
pub(super) async fn secure(
    broker: &Broker,
    connector: &TlsConnector,
) -> Client<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(broker.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    Client::over(connector.connect(name, stream).await.unwrap())
}

/// What the node says of its only client.
pub(super) async fn view(broker: &Broker) -> ClientView {
    let (socket, _serving) = operate::serve(broker).await;
    let page: Page<ClientView> = operate::get(&socket, "/v1/clients").await.unwrap();
    let [client] = &page.rows[..] else {
        panic!("one client, not {page:?}");
    };
    client.clone()
}

async fn is_shown(broker: &Broker, connector: &TlsConnector, files: &Files) -> bool {
    let client = secure(broker, connector).await;
    let (_stream, session) = client.stream.get_ref();
    session.peer_certificates().unwrap()[0] == files.certificate
}

#[tokio::test]
async fn clients_of_every_version_talk_over_tls() {
    let authority = Authority::new("talk");
    let broker = Broker::start_with(&authority.server("localhost").settings()).await;
    let connector = authority.connector(None);
    let payload = "x".repeat(100_000);
    for version in ALL {
        let mut client = secure(&broker, &connector).await;
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
    broker.stop().await;
}

#[tokio::test]
async fn mosquitto_talks_over_tls() {
    let authority = Authority::new("mosquitto");
    let broker = Broker::start_with(&authority.server("localhost").settings()).await;
    mosquitto::talk(&broker, &["--cafile", &authority.path()]).await;
    broker.stop().await;
}

#[tokio::test]
async fn new_certificates_are_shown_after_a_reload() {
    let authority = Authority::new("reload");
    let (files, next) = (authority.server("localhost"), authority.server("localhost"));
    let broker = Broker::start_with(&files.settings()).await;
    // Without tickets of earlier connections, so that each handshake is a whole one.
    let connector = || authority.connector(None);
    assert!(is_shown(&broker, &connector(), &files).await);
    let mut witness = secure(&broker, &connector()).await;
    assert_eq!(witness.greet(&Hello::new(Version::V5, "w")).await.code, 0);

    files.replace_with(&next);
    assert!(is_shown(&broker, &connector(), &files).await);
    let config = config(&files.settings());
    broker.node.reload(&config).unwrap();
    assert!(is_shown(&broker, &connector(), &next).await);

    fs::write(files.key_path(), "not a key").unwrap();
    let unusable = broker.node.reload(&config).unwrap_err();
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    assert!(is_shown(&broker, &connector(), &next).await);
    for other in [
        authority.expired("localhost"),
        authority.future("localhost"),
    ] {
        files.replace_with(&other);
        let unusable = broker.node.reload(&config).unwrap_err();
        assert_eq!(unusable.len(), 1, "{unusable:?}");
        assert!(is_shown(&broker, &connector(), &next).await);
    }
    witness.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn who_may_connect_is_not_opened_where_the_listener_cannot_be_closed() {
    let authority = Authority::new("both");
    let dir = Dir::new();
    let passwords = dir.write("passwords", "");
    let server = authority.server("localhost").settings();
    let before = format!(
        "{server}[limits]\nqueue_messages = 10\n[access]\n\
         [[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n"
    );
    let broker = Broker::start_with(&before).await;
    let authorities = dir.write("clients.pem", "none yet");
    let after = format!(
        "{server}client_ca = {authorities:?}\nclient_certificates = \"required\"\n\
         [limits]\nqueue_messages = 20\n[access]\nanonymous = true\n"
    );
    let unusable = broker.node.reload(&config(&after)).unwrap_err();
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    let mut nobody = secure(&broker, &authority.connector(None)).await;
    assert_eq!(nobody.greet(&Hello::new(Version::V5, "c")).await.code, 0x87);
    let limits = broker.node.status().shared.limits();
    assert_eq!(limits.queue_messages, 10);

    fs::copy(authority.path(), &authorities).unwrap();
    broker.node.reload(&config(&after)).unwrap();
    let mut nobody = secure(&broker, &authority.connector(None)).await;
    nobody.expect_close().await;
    let mut known = secure(&broker, &authority.connector(Some(authority.client("d1")))).await;
    assert_eq!(known.greet(&Hello::new(Version::V5, "d1")).await.code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_and_checked() {
    let (authority, stranger) = (Authority::new("clients"), Authority::new("stranger"));
    for (demand, without) in [("required", false), ("optional", true)] {
        let settings = format!(
            "{}client_ca = \"{}\"\nclient_certificates = \"{demand}\"\n",
            authority.server("localhost").settings(),
            authority.path(),
        );
        let broker = Broker::start_with(&settings).await;
        let mut known = secure(&broker, &authority.connector(Some(authority.client("d1")))).await;
        assert_eq!(known.greet(&Hello::new(Version::V5, "d1")).await.code, 0);
        assert_eq!(view(&broker).await.certificate.as_deref(), Some("d1"));
        let foreign = authority.connector(Some(stranger.client("d1")));
        secure(&broker, &foreign).await.expect_close().await;
        broker.wait_for(Metric::RefusedTls, 1).await;
        let mut nameless = secure(&broker, &authority.connector(None)).await;
        if without {
            assert_eq!(nameless.greet(&Hello::new(Version::V5, "d2")).await.code, 0);
        } else {
            nameless.expect_close().await;
            broker.wait_for(Metric::RefusedTls, 2).await;
        }
        known.ping().await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn revoked_certificates_are_refused_from_the_next_reload_on() {
    let authority = Authority::new("revoked");
    let (good, stolen) = (authority.client("good"), authority.client("stolen"));
    let settings = format!(
        "{}client_ca = \"{}\"\nclient_crl = \"{}\"\n",
        authority.server("localhost").settings(),
        authority.path(),
        authority.revoke(&[]),
    );
    let broker = Broker::start_with(&settings).await;
    authority.revoke(&[&stolen]);
    let (good, stolen) = (
        authority.connector(Some(good)),
        authority.connector(Some(stolen)),
    );
    let mut thief = secure(&broker, &stolen).await;
    assert_eq!(thief.greet(&Hello::new(Version::V5, "t")).await.code, 0);
    broker.node.reload(&config(&settings)).unwrap();
    thief.expect(0xe0, &[0x87]).await;
    thief.expect_close().await;
    secure(&broker, &stolen).await.expect_close().await;
    broker.wait_for(Metric::RefusedTls, 1).await;
    let mut client = secure(&broker, &good).await;
    assert_eq!(client.greet(&Hello::new(Version::V5, "g")).await.code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn other_protocols_on_a_tls_port_are_refused_and_counted() {
    let authority = Authority::new("others");
    let settings = authority.server("localhost").settings();
    let broker =
        Broker::start_with(&format!("{settings}[limits]\nconnect_timeout = \"3s\"\n")).await;
    let mut plain = Client::open(broker.address).await;
    plain.send(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c").await;
    // What comes back is TLS's own goodbye.
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut plain.stream, &mut answer).await;
    broker.wait_for(Metric::RefusedTls, 1).await;
    let mut silent = Client::open(broker.address).await;
    silent.expect_close().await;
    // The time is for everything together: this one is silent behind its handshake.
    let mut late = secure(&broker, &authority.connector(None)).await;
    late.expect_close().await;
    broker.wait_for(Metric::RefusedTimeout, 2).await;
    drop(Client::open(broker.address).await);
    broker.wait_for(Metric::RefusedClosed, 1).await;
    broker.wait_for(Metric::Connections, 0).await;
    broker.stop().await;
}

#[tokio::test]
async fn proxies_tell_whom_they_connect_for() {
    let broker = Broker::start_with("proxy_protocol = [\"127.0.0.0/8\"]\n").await;
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x09\xc3\x50\x07\x5b";
    for (header, address) in [
        (
            &b"PROXY TCP4 192.0.2.1 192.0.2.9 50000 1883\r\n"[..],
            "192.0.2.1:50000",
        ),
        (v2, "192.0.2.1:50000"),
        (b"PROXY TCP6 fd00::1 fd00::2 80 1883\r\n", "[fd00::1]:80"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1:"),
    ] {
        let mut client = Client::open(broker.address).await;
        client.send(header).await;
        assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0);
        let told = view(&broker).await.address;
        assert!(told.starts_with(address), "{told}");
        client.leave().await;
    }
    let mut bare = Client::open(broker.address).await;
    bare.send(b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c").await;
    bare.expect_close().await;
    let mut wrong = Client::open(broker.address).await;
    wrong.send(b"PROXY TCP9\r\n").await;
    wrong.expect_close().await;
    broker.wait_for(Metric::RefusedProxy, 2).await;
    broker.stop().await;
}

#[tokio::test]
async fn headers_of_strangers_are_not_taken() {
    let broker = Broker::start_with("proxy_protocol = [\"192.0.2.0/24\"]\n").await;
    let mut client = Client::open(broker.address).await;
    assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0);
    let mut liar = Client::open(broker.address).await;
    liar.send(b"PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n").await;
    liar.expect_close().await;
    broker.wait_for(Metric::RefusedProtocol, 1).await;
    client.ping().await;
    broker.stop().await;
}

#[tokio::test]
async fn proxy_header_comes_before_tls() {
    let authority = Authority::new("proxied");
    let settings = authority.server("localhost").settings();
    let broker = Broker::start_with(&format!("proxy_protocol = [\"127.0.0.1\"]\n{settings}")).await;
    let mut proxy = Client::open(broker.address).await;
    proxy.send(b"PROXY TCP6 fd00::1 fd00::2 1 2\r\n").await;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = authority.connector(None);
    let stream = connector.connect(name, proxy.stream).await.unwrap();
    let mut client = Client::over(stream);
    assert_eq!(client.greet(&Hello::new(Version::V311, "c")).await.code, 0);
    client.leave().await;
    broker.stop().await;
}

#[tokio::test]
async fn several_listeners_serve_one_node() {
    let authority = Authority::new("several");
    let settings = format!(
        "[[listener]]\naddress = \"[::1]:0\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n{}",
        authority.server("localhost").settings()
    );
    let broker = Broker::start_with(&settings).await;
    let [plain, v6, tls] = broker.node.addresses() else {
        panic!("three listeners");
    };
    let mut subscriber = Client::join(*v6, Version::V5, "subscriber").await;
    subscriber.subscribe("t", 0).await;
    let mut publisher = Client::join(*plain, Version::V311, "publisher").await;
    publisher.deliver("t", "plain", 1).await;
    assert_eq!(subscriber.receive().await.payload, "plain");
    let stream = TcpStream::connect(*tls).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = authority
        .connector(None)
        .connect(name, stream)
        .await
        .unwrap();
    let mut publisher = Client::over(stream);
    publisher.greet(&Hello::new(Version::V31, "secure")).await;
    publisher.deliver("t", "secure", 1).await;
    assert_eq!(subscriber.receive().await.payload, "secure");
    broker.stop().await;
}
