//! Clients that a server is asked about, and keys of tokens that a server has.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ALL, Broker,
    access::{alice, set},
    client::{Client, Hello},
    config, front,
    front::secure,
};
use crate::{
    access::{
        jwt::tests::{Issuer, claims},
        web::tests::{Reply, TestServer},
    },
    codec::packet::Version,
    control::view::AuthenticatorStatus,
    metrics::Metric,
    testing::Dir,
    tls::tests::Authority,
};

fn settings(server: &TestServer, more: &str) -> String {
    format!(
        "[[access.authenticator]]\ntype = \"http\"\nurl = {:?}\n{more}",
        server.url
    )
}

async fn start(server: &TestServer, more: &str) -> Broker {
    Broker::start_with(&format!("[access]\n{}", settings(server, more))).await
}

fn json(value: &Value) -> Reply {
    Reply::Json(value.to_string())
}

async fn connect(broker: &Broker, hello: &Hello) -> (Client, u8) {
    let (client, welcome) = Client::connect(broker.address, hello).await;
    (client, welcome.code)
}

fn status(broker: &Broker) -> AuthenticatorStatus {
    broker.node.status().view().authenticators.remove(0)
}

#[tokio::test]
async fn server_says_who_is_let_in_and_as_whom() {
    let mut server = TestServer::start(json(&json!({"result": "allow"}))).await;
    let broker = start(&server, "").await;
    for version in ALL {
        server.answer(json(&json!({"result": "allow"})));
        let (client, code) = connect(&broker, &alice(version)).await;
        assert_eq!(code, 0);
        assert_eq!(front::view(&broker).await.user.as_deref(), Some("alice"));
        client.leave().await;
        let asked = server.asked.recv().await.unwrap();
        let mut asked: Value = serde_json::from_str(&asked.body).unwrap();
        let address = asked["address"].take();
        assert!(address.as_str().unwrap().starts_with("127.0.0.1:"));
        let expected = json!({
            "client_id": "c", "username": "alice", "password": "sesame",
            "address": null, "listener": "127.0.0.1:0",
        });
        assert_eq!(asked, expected);
        let known = json!({
            "result": "allow", "user": "device-7", "acl": {"publish": ["dev/%u"]},
        });
        server.answer(json(&known));
        let (mut client, code) = connect(&broker, &Hello::new(version, "c")).await;
        assert_eq!(code, 0);
        assert_eq!(front::view(&broker).await.user.as_deref(), Some("device-7"));
        let denied = if version.is_v5() { 0x87 } else { 0x80 };
        assert_eq!(client.subscribe("dev/device-7", 0).await, denied);
        client.deliver("dev/device-7", "x", 1).await;
        client.leave().await;
        server.asked.recv().await.unwrap();
        server.answer(json(&json!({"result": "deny"})));
        let (mut client, code) = connect(&broker, &alice(version)).await;
        assert_eq!(code, if version.is_v5() { 0x86 } else { 4 });
        client.expect_close().await;
        server.asked.recv().await.unwrap();
        server.answer(json(&json!({"result": "ignore"})));
        let (_client, code) = connect(&broker, &alice(version)).await;
        assert_eq!(code, if version.is_v5() { 0x86 } else { 4 });
        server.asked.recv().await.unwrap();
    }
    assert_eq!(broker.count(Metric::DeniedPublish), 0);
    let expected = AuthenticatorStatus {
        name: "http".to_owned(),
        allowed: 6,
        denied: 3,
        ignored: 3,
        unavailable: 0,
        keys: None,
        problem: None,
    };
    assert_eq!(status(&broker), expected);
    broker.stop().await;
}

#[tokio::test]
async fn without_an_answer_that_can_be_used_nobody_is_let_in() {
    let server = TestServer::start(Reply::Status(500)).await;
    let broker = start(&server, "timeout = \"400ms\"\n").await;
    let replies = [
        Reply::Status(500),
        Reply::Status(404),
        Reply::Status(204),
        Reply::Raw(b"garbage".to_vec()),
        Reply::Raw(Vec::new()),
        Reply::Silence,
        Reply::Json(String::new()),
        Reply::Json("allow".to_owned()),
        json(&json!({"result": "yes"})),
        json(&json!(["allow"])),
        json(&json!({"result": "allow", "user": ""})),
        json(&json!({"result": "allow", "user": "a\nb"})),
        json(&json!({"result": "allow", "acl": []})),
        json(&json!({"result": "allow", "acl": null})),
        json(&json!({"result": "allow", "acl": {"publish": ["a/#/b"]}})),
    ];
    let count = replies.len() as u64;
    for reply in replies {
        server.answer(reply.clone());
        for version in [Version::V311, Version::V5] {
            let (mut client, code) = connect(&broker, &alice(version)).await;
            assert_eq!(code, if version.is_v5() { 0x88 } else { 3 }, "{reply:?}");
            client.expect_close().await;
        }
    }
    let told = status(&broker);
    assert_eq!(told.unavailable, 2 * count);
    assert!(
        told.problem
            .is_some_and(|problem| !problem.contains("sesame"))
    );
    broker.wait_for(Metric::RefusedAccess, 2 * count).await;
    server.answer(json(&json!({"result": "allow"})));
    assert_eq!(connect(&broker, &alice(Version::V5)).await.1, 0);
    assert_eq!(status(&broker).problem, None);
    // That this is no name is the client's fault.
    let odd = Hello::new(Version::V5, "c").with_login("a\nb", "sesame");
    assert_eq!(connect(&broker, &odd).await.1, 0x86);
    assert_eq!(status(&broker).problem, None);
    broker.stop().await;
}

#[tokio::test]
async fn server_that_hangs_holds_up_nobody_who_is_connected() {
    let server = TestServer::start(json(&json!({"result": "allow"}))).await;
    let settings = "connections = 2\nwaiting = 10\ntimeout = \"1s\"\n";
    let broker = start(&server, settings).await;
    let (mut client, _) = connect(&broker, &alice(Version::V5)).await;
    server.answer(Reply::Silence);
    let mut waiting = Vec::new();
    for number in 0..20 {
        let mut hello = alice(Version::V5);
        hello.id = format!("w{number}");
        let mut another = Client::open(broker.address).await;
        another.send(&hello.encode()).await;
        waiting.push(another);
    }
    for _ in 0..100 {
        client.ping().await;
    }
    for mut another in waiting {
        let (first, body) = another.recv().await;
        assert_eq!((first, body[1]), (0x20, 0x88));
    }
    client.ping().await;
    assert_eq!(status(&broker).unavailable, 20);
    broker.stop().await;
}

#[tokio::test]
async fn server_hears_of_the_certificate_and_shows_its_own() {
    let authority = Authority::new("oracle");
    let mut server =
        TestServer::secure(json(&json!({"result": "allow"})), &authority, "localhost").await;
    let listener = format!(
        "{}client_ca = {:?}\n",
        authority.server("localhost").settings(),
        authority.path()
    );
    let trusted = settings(&server, &format!("ca_file = {:?}\n", authority.path()));
    let broker = Broker::start_with(&format!("{listener}[access]\n{trusted}")).await;
    let connector = authority.connector(Some(authority.client("d1")));
    let mut client = secure(&broker, &connector).await;
    assert_eq!(client.greet(&Hello::new(Version::V5, "c")).await.code, 0);
    let asked = server.asked.recv().await.unwrap();
    let asked: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(asked["certificate"], json!({"common_name": "d1"}));
    assert_eq!(asked["username"], Value::Null);
    assert!(asked.get("password").is_none());
    assert_eq!(front::view(&broker).await.user, None);
    let other = Authority::new("oracle-other");
    let wrong = settings(&server, &format!("ca_file = {:?}\n", other.path()));
    let wrong = config(&format!("{listener}[access]\n{wrong}"));
    broker.node.reload(&wrong).unwrap();
    let mut client = secure(&broker, &connector).await;
    assert_eq!(client.greet(&Hello::new(Version::V5, "d")).await.code, 0x88);
    broker.stop().await;
}

#[tokio::test]
async fn servers_and_files_are_asked_in_their_order() {
    let server = TestServer::start(json(&json!({"result": "ignore"}))).await;
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "alice", "sesame");
    let file = format!("[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n");
    let broker = start(&server, &file).await;
    let (mut client, code) = connect(&broker, &alice(Version::V5)).await;
    assert_eq!(code, 0);
    server.answer(json(&json!({"result": "deny"})));
    assert_eq!(connect(&broker, &alice(Version::V5)).await.1, 0x86);
    let turned = format!("[access]\n{file}{}", settings(&server, ""));
    broker.node.reload(&config(&turned)).unwrap();
    client.ping().await;
    let mut hello = alice(Version::V5);
    hello.id = "d".to_owned();
    assert_eq!(connect(&broker, &hello).await.1, 0);
    hello.username = Some("bob".to_owned());
    server.answer(json(&json!({"result": "allow"})));
    let (mut bob, code) = connect(&broker, &hello).await;
    assert_eq!(code, 0);
    broker.node.reload(&config(&turned)).unwrap();
    bob.ping().await;
    let alone = format!("[access]\n{file}");
    broker.node.reload(&config(&alone)).unwrap();
    bob.expect(0xe0, &[0x87]).await;
    bob.expect_close().await;
    client.ping().await;
    broker.stop().await;
}

/// `[access]` with tokens by keys that a server has.
fn by_set(server: &TestServer) -> String {
    format!(
        "[access]\n[[access.authenticator]]\ntype = \"jwt\"\njwks_url = {:?}\n\
         algorithms = [\"ES256\"]\ntimeout = \"500ms\"\n",
        server.url
    )
}

fn set_of(issuers: &[(&str, &Issuer)]) -> Reply {
    let keys: Vec<_> = issuers.iter().map(|(name, it)| it.jwk(name)).collect();
    json(&json!({ "keys": keys }))
}

fn token(name: &str, issuer: &Issuer) -> Hello {
    let header = json!({"alg": "ES256", "kid": name});
    let token = issuer.token_with(&header, &claims());
    Hello::new(Version::V5, name).with_login("", &token)
}

#[tokio::test]
async fn keys_of_a_server_are_kept_while_it_fails_and_change_when_it_says_so() {
    let (first, second) = (Issuer::new("ES256"), Issuer::new("ES256"));
    let mut server = TestServer::start(set_of(&[("a", &first)])).await;
    let broker = Broker::start_with(&by_set(&server)).await;
    assert!(server.asked.recv().await.unwrap().head.starts_with("GET "));
    broker
        .wait_until(|node| node.status().view().authenticators[0].keys == Some(1))
        .await;
    let (mut a, code) = connect(&broker, &token("a", &first)).await;
    assert_eq!(code, 0);
    // The server was asked a moment ago, so a token of an unknown key does not have it asked again.
    assert_eq!(connect(&broker, &token("b", &second)).await.1, 0x86);
    assert!(server.asked.try_recv().is_err());
    server.answer(Reply::Status(503));
    let reload = || broker.node.reload(&config(&by_set(&server))).unwrap();
    reload();
    broker
        .wait_until(|node| node.status().view().authenticators[0].problem.is_some())
        .await;
    a.ping().await;
    let told = status(&broker);
    assert_eq!((told.keys, told.unavailable), (Some(1), 0));
    let (mut again, code) = connect(&broker, &token("a", &first)).await;
    assert_eq!(code, 0);
    server.answer(set_of(&[("b", &second)]));
    reload();
    broker
        .wait_until(|node| node.status().view().authenticators[0].problem.is_none())
        .await;
    let rotated = async {
        loop {
            let (client, code) = connect(&broker, &token("b", &second)).await;
            if code == 0 {
                break client;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let rotated = tokio::time::timeout(Duration::from_secs(20), rotated).await;
    let mut rotated = rotated.unwrap();
    assert_eq!(connect(&broker, &token("a", &first)).await.1, 0x86);
    // Who is there by the key that is gone has to go.
    again.expect(0xe0, &[0x87]).await;
    again.expect_close().await;
    server.answer(set_of(&[]));
    reload();
    broker
        .wait_until(|node| node.status().view().authenticators[0].keys == Some(0))
        .await;
    rotated.expect(0xe0, &[0x87]).await;
    rotated.expect_close().await;
    assert_eq!(connect(&broker, &token("b", &second)).await.1, 0x86);
    broker.stop().await;
}

#[tokio::test]
async fn without_keys_nobody_can_tell_whether_a_token_is_good() {
    let server = TestServer::start(Reply::Status(500)).await;
    let broker = Broker::start_with(&by_set(&server)).await;
    let issuer = Issuer::new("ES256");
    assert_eq!(connect(&broker, &token("a", &issuer)).await.1, 0x88);
    let plain = Hello::new(Version::V5, "c").with_login("alice", "sesame");
    assert_eq!(connect(&broker, &plain).await.1, 0x86, "it is no token");
    let told = status(&broker);
    assert_eq!((told.keys, told.unavailable), (Some(0), 1));
    broker.stop().await;
}
