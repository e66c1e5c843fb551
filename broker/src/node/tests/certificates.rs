//! Listeners where a client's certificate tells who the client is.

use rcgen::SanType;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::{
    ALL, Broker, access,
    client::{Client, Hello},
    config, front,
    front::secure,
    websocket,
};
use crate::{
    codec::packet::Version,
    metrics::Metric,
    testing::Dir,
    tls::tests::{Authority, Credentials},
};

/// A listener that asks for certificates, and goes by a name in them.
fn settings(authority: &Authority, demand: &str, identity: &str) -> String {
    format!(
        "{}client_ca = \"{}\"\nclient_certificates = \"{demand}\"\nidentity = \"{identity}\"\n",
        authority.server("localhost").settings(),
        authority.path(),
    )
}

fn with_name(authority: &Authority, name: SanType) -> Credentials {
    authority.client_with("cn", vec![name])
}

#[tokio::test]
async fn certificate_is_the_user_and_takes_no_password() {
    let authority = Authority::new("identity");
    let dir = Dir::new();
    let acl = dir.write("acl", "allow all all dev/%u/#\n");
    let settings = format!(
        "{}[access]\nclient_id = \"%u\"\n[access.acl]\npath = {acl:?}\n",
        settings(&authority, "required", "common_name")
    );
    let broker = Broker::start_with(&settings).await;
    let connector = authority.connector(Some(authority.client("d1")));
    for version in ALL {
        let mut client = secure(&broker, &connector).await;
        assert_eq!(client.greet(&Hello::new(version, "d1")).await.code, 0);
        let view = front::view(&broker).await;
        assert_eq!(view.user.as_deref(), Some("d1"));
        assert_eq!(client.subscribe("dev/d1/#", 1).await, 1);
        let denied = if version.is_v5() { 0x87 } else { 0x80 };
        assert_eq!(client.subscribe("dev/d2/#", 1).await, denied);
        client.leave().await;
        let mut same = Hello::new(version, "d1");
        same.username = Some("d1".to_owned());
        let mut client = secure(&broker, &connector).await;
        assert_eq!(client.greet(&same).await.code, 0);
        client.leave().await;
        let other = Hello::new(version, "d1").with_login("d2", "sesame");
        let mut client = secure(&broker, &connector).await;
        let refused = if version.is_v5() { 0x86 } else { 4 };
        assert_eq!(client.greet(&other).await.code, refused);
        let mut client = secure(&broker, &connector).await;
        let refused = if version.is_v5() { 0x85 } else { 2 };
        assert_eq!(client.greet(&Hello::new(version, "d2")).await.code, refused);
    }
    let mut text = String::new();
    broker.node.status().render(&mut text);
    assert!(text.contains("access_total{authenticator=\"certificate\",answer=\"allowed\"} 9\n"));
    assert!(text.contains("access_total{authenticator=\"certificate\",answer=\"denied\"} 3\n"));
    broker.stop().await;
}

#[tokio::test]
async fn user_is_the_name_that_the_listener_says() {
    let authority = Authority::new("names");
    let name = |text: &str| text.try_into().unwrap();
    for (identity, alternative, user) in [
        ("email", SanType::Rfc822Name(name("jo@a.org")), "jo@a.org"),
        ("dns", SanType::DnsName(name("d1.a.org")), "d1.a.org"),
        ("uri", SanType::URI(name("urn:dev:1")), "urn:dev:1"),
    ] {
        let settings = settings(&authority, "required", identity);
        let broker = Broker::start_with(&settings).await;
        let connector = authority.connector(Some(with_name(&authority, alternative)));
        let mut client = secure(&broker, &connector).await;
        assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0);
        assert_eq!(front::view(&broker).await.user.as_deref(), Some(user));
        let nameless = authority.connector(Some(authority.client("cn")));
        for version in ALL {
            let mut client = secure(&broker, &nameless).await;
            let refused = if version.is_v5() { 0x87 } else { 5 };
            assert_eq!(client.greet(&Hello::new(version, "n")).await.code, refused);
        }
        broker.stop().await;
    }
}

#[tokio::test]
async fn who_shows_no_certificate_is_known_otherwise_or_not_at_all() {
    let authority = Authority::new("otherwise");
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    access::set(&passwords, "alice", "sesame");
    let settings = format!(
        "{}[access]\n[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n",
        settings(&authority, "optional", "common_name")
    );
    let broker = Broker::start_with(&settings).await;
    let alice = Hello::new(Version::V5, "c").with_login("alice", "sesame");
    let mut bare = secure(&broker, &authority.connector(None)).await;
    assert_eq!(bare.greet(&alice).await.code, 0);
    let mut nobody = secure(&broker, &authority.connector(None)).await;
    let welcome = nobody.greet(&Hello::new(Version::V5, "n")).await;
    assert_eq!(welcome.code, 0x87);
    // A certificate decides, whatever else is known of that user.
    let certified = authority.connector(Some(authority.client("alice")));
    let mut client = secure(&broker, &certified).await;
    let wrong = Hello::new(Version::V5, "d").with_login("alice", "open");
    assert_eq!(client.greet(&wrong).await.code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn certificate_counts_behind_a_proxy_and_within_websocket() {
    let authority = Authority::new("wss");
    let settings = format!(
        "protocol = \"ws\"\nproxy_protocol = [\"127.0.0.1\"]\n{}[access]\n",
        settings(&authority, "required", "common_name")
    );
    let broker = Broker::start_with(&settings).await;
    let mut proxy = Client::open(broker.address).await;
    proxy.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await;
    let name = ServerName::try_from("localhost").unwrap();
    let connector = authority.connector(Some(authority.client("d1")));
    let stream = connector.connect(name, proxy.stream).await.unwrap();
    let mut client = websocket::client(stream).await;
    assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0);
    let view = front::view(&broker).await;
    assert_eq!(view.user.as_deref(), Some("d1"));
    assert!(view.address.starts_with("192.0.2.1:"), "{}", view.address);
    broker.stop().await;
}

#[tokio::test]
async fn reload_has_clients_say_anew_who_they_are_where_certificates_tell_it_no_more() {
    let authority = Authority::new("no-more");
    let (by_name, by_mail) = {
        let server = settings(&authority, "required", "common_name");
        let by_mail = server.replace("common_name", "email");
        (server, by_mail)
    };
    let access = "[access]\n";
    let broker = Broker::start_with(&format!("{by_name}{access}")).await;
    let name = "d1@a.org".try_into().unwrap();
    let credentials = authority.client_with("d1", vec![SanType::Rfc822Name(name)]);
    let connector = authority.connector(Some(credentials));
    let mut client = secure(&broker, &connector).await;
    let hello = Hello::persistent(Version::V5, "c");
    assert_eq!(client.greet(&hello).await.code, 0);
    broker
        .node
        .reload(&config(&format!("{by_name}{access}")))
        .unwrap();
    client.ping().await;
    broker
        .node
        .reload(&config(&format!("{by_mail}{access}")))
        .unwrap();
    client.expect(0xe0, &[0x87]).await;
    client.expect_close().await;
    let mut client = secure(&broker, &connector).await;
    let welcome = client.greet(&hello).await;
    assert_eq!((welcome.code, welcome.session_present), (0, false));
    assert_eq!(
        front::view(&broker).await.user.as_deref(),
        Some("d1@a.org"),
        "the session was another user's"
    );
    broker.stop().await;
}

#[tokio::test]
async fn reload_sends_away_whose_certificate_is_revoked() {
    let authority = Authority::new("revoked-later");
    let (good, stolen) = (authority.client("good"), authority.client("stolen"));
    let settings = format!(
        "{}client_crl = \"{}\"\n[access]\n",
        settings(&authority, "required", "common_name"),
        authority.revoke(&[]),
    );
    let broker = Broker::start_with(&settings).await;
    authority.revoke(&[&stolen]);
    let connectors = [good, stolen].map(|shown| authority.connector(Some(shown)));
    let mut clients = Vec::new();
    for (connector, id) in connectors.iter().zip(["g", "s"]) {
        let mut client = secure(&broker, connector).await;
        assert_eq!(client.greet(&Hello::new(Version::V5, id)).await.code, 0);
        clients.push(client);
    }
    broker.node.reload(&config(&settings)).unwrap();
    clients[1].expect(0xe0, &[0x87]).await;
    clients[1].expect_close().await;
    clients[0].ping().await;
    assert_eq!(broker.count(Metric::ClosedAccess), 1);
    broker.stop().await;
}

#[tokio::test]
async fn reload_sends_away_whom_nobody_vouches_for_any_more() {
    let (first, second) = (Authority::new("kept-ca"), Authority::new("lost-ca"));
    let dir = Dir::new();
    let both = [&first, &second].map(|it| std::fs::read_to_string(it.path()).unwrap());
    let authorities = dir.write("clients.pem", &both.concat());
    let server = first.server("localhost").settings();
    for (identity, required) in [("identity = \"common_name\"\n", false), ("", true)] {
        let settings = |demand: &str| {
            format!(
                "{server}client_ca = {authorities:?}\nclient_certificates = \"{demand}\"\n\
                 {identity}[access]\nanonymous = true\n"
            )
        };
        dir.write("clients.pem", &both.concat());
        let broker = Broker::start_with(&settings("optional")).await;
        let mut clients = Vec::new();
        for (id, shown) in [
            ("kept", Some(first.client("d1"))),
            ("lost", Some(second.client("d2"))),
            ("bare", None),
        ] {
            let mut client = secure(&broker, &first.connector(shown)).await;
            assert_eq!(client.greet(&Hello::new(Version::V5, id)).await.code, 0);
            clients.push(client);
        }
        let reload = |demand| broker.node.reload(&config(&settings(demand))).unwrap();
        reload("optional");
        for client in &mut clients {
            client.ping().await;
        }
        dir.write("clients.pem", &both[0]);
        reload(if required { "required" } else { "optional" });
        let [kept, lost, bare] = &mut clients[..] else {
            panic!("three clients");
        };
        lost.expect(0xe0, &[0x87]).await;
        lost.expect_close().await;
        if required {
            bare.expect(0xe0, &[0x87]).await;
            bare.expect_close().await;
        } else {
            bare.ping().await;
        }
        kept.ping().await;
        broker.stop().await;
    }
}

#[tokio::test]
async fn listener_without_tls_lets_nobody_in_by_certificates() {
    let authority = Authority::new("plain");
    let settings = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n{}[access]\n",
        settings(&authority, "required", "common_name")
    );
    let broker = Broker::start_with(&settings).await;
    let plain = TcpStream::connect(broker.node.addresses()[0]).await;
    let mut client = Client::over(plain.unwrap());
    assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0x87);
    broker.wait_for(Metric::RefusedAccess, 1).await;
    broker.stop().await;
}
