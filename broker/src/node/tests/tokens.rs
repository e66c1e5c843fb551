//! Clients that log in with signed tokens.

use serde_json::{Value, json};

use super::{
    ALL, Broker,
    access::{alice, set},
    client::{Client, Hello, Testament},
    config, front, persist,
};
use crate::{
    access::jwt::tests::{ALGORITHMS, Issuer, claims, seconds_from_now},
    codec::packet::Version,
    metrics::Metric,
    testing::Dir,
};

/// A broker that goes by tokens.
struct Scene {
    dir: Dir,
    issuer: Issuer,
    broker: Broker,
}

impl Scene {
    async fn new(algorithm: &'static str, more: &str) -> Self {
        let dir = Dir::new();
        let issuer = Issuer::new(algorithm);
        let settings = format!("[access]\n{}{more}", issuer.settings(&dir));
        let broker = Broker::start_with(&settings).await;
        Self {
            dir,
            issuer,
            broker,
        }
    }

    async fn connect(&self, hello: &Hello, claims: &Value) -> (Client, u8) {
        let mut hello = hello.clone();
        hello.username.get_or_insert_default();
        hello.password = Some(self.issuer.token(claims));
        let (client, welcome) = Client::connect(self.broker.address, &hello).await;
        (client, welcome.code)
    }

    fn reload(&self, more: &str) {
        let settings = format!("[access]\n{}{more}", self.issuer.settings(&self.dir));
        self.broker.node.reload(&config(&settings)).unwrap();
    }
}

#[tokio::test]
async fn token_of_every_algorithm_is_the_user() {
    for algorithm in ALGORITHMS {
        let scene = Scene::new(algorithm, "").await;
        for version in ALL {
            let hello = Hello::new(version, "c");
            let (client, code) = scene.connect(&hello, &claims()).await;
            assert_eq!(code, 0, "{algorithm}");
            let view = front::view(&scene.broker).await;
            assert_eq!(view.user.as_deref(), Some("alice"));
            client.leave().await;
            let expired = json!({"sub": "alice", "exp": seconds_from_now(-3600)});
            let (mut client, code) = scene.connect(&hello, &expired).await;
            assert_eq!(code, if version.is_v5() { 0x86 } else { 4 });
            client.expect_close().await;
            let signed = scene.issuer.token_with(&json!({"alg": "none"}), &claims());
            let unsigned = signed.rsplit_once('.').unwrap().0.to_owned() + ".";
            let forged = hello.clone().with_login("alice", &unsigned);
            let (_client, welcome) = Client::connect(scene.broker.address, &forged).await;
            assert_eq!(welcome.code, if version.is_v5() { 0x86 } else { 4 });
        }
        let mut text = String::new();
        scene.broker.node.status().render(&mut text);
        for counted in [
            "{authenticator=\"jwt\",answer=\"allowed\"} 3\n",
            "{authenticator=\"jwt\",answer=\"denied\"} 3\n",
            "{authenticator=\"jwt\",answer=\"ignored\"} 3\n",
        ] {
            assert!(text.contains(&format!("access_total{counted}")), "{text}");
        }
        scene.broker.stop().await;
    }
}

#[tokio::test]
async fn connection_ends_with_its_token_and_the_session_stays() {
    let scene = Scene::new("ES256", "leeway = \"0s\"\n").await;
    let (mut witness, _) = scene
        .connect(&Hello::new(Version::V5, "w"), &claims())
        .await;
    witness.subscribe("will", 1).await;
    for version in ALL {
        let mut hello = Hello::persistent(version, "c");
        hello.will = Some(Testament {
            topic: "will",
            payload: "token over",
            retain: false,
            properties: Vec::new(),
        });
        let short = json!({"sub": "alice", "exp": seconds_from_now(3)});
        let (mut client, code) = scene.connect(&hello, &short).await;
        assert_eq!(code, 0);
        client.subscribe("t", 1).await;
        if version.is_v5() {
            client.expect(0xe0, &[0xa0]).await;
        }
        client.expect_close().await;
        assert_eq!(witness.receive().await.payload, "token over");
        hello.username = Some(String::new());
        hello.password = Some(scene.issuer.token(&claims()));
        let (client, welcome) = Client::connect(scene.broker.address, &hello).await;
        // MQTT 3.1 has no way to say it.
        assert_eq!(welcome.session_present, version != Version::V31);
        client.leave().await;
    }
    assert_eq!(scene.broker.count(Metric::ClosedLoginExpired), 3);
    let kept = Scene::new("ES256", "leeway = \"0s\"\ndisconnect_expired = false\n").await;
    let short = json!({"sub": "alice", "exp": seconds_from_now(3)});
    let hello = Hello::new(Version::V5, "c");
    let (mut stays, code) = kept.connect(&hello, &short).await;
    assert_eq!(code, 0);
    // Until a token of the same time is refused.
    let refused = async {
        while kept.connect(&Hello::new(Version::V5, "d"), &short).await.1 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), refused)
        .await
        .unwrap();
    stays.ping().await;
    scene.broker.stop().await;
    kept.broker.stop().await;
}

#[tokio::test]
async fn token_may_say_what_its_client_may_do() {
    let scene = Scene::new("EdDSA", "acl_claim = \"acl\"\n").await;
    let mut own = claims();
    own["acl"] = json!({"publish": ["dev/%c/#"], "subscribe": ["user/%u/+"]});
    for version in ALL {
        let hello = Hello::new(version, "c");
        let (mut client, code) = scene.connect(&hello, &own).await;
        assert_eq!(code, 0);
        let denied = if version.is_v5() { 0x87 } else { 0x80 };
        assert_eq!(client.subscribe("user/alice/+", 1).await, 1);
        assert_eq!(client.subscribe("user/#", 1).await, denied);
        assert_eq!(client.subscribe("dev/c/x", 1).await, denied);
        client.deliver("user/alice/a", "denied", 1).await;
        client.deliver("dev/c/a", "allowed", 1).await;
        client.leave().await;
    }
    assert_eq!(scene.broker.count(Metric::DeniedPublish), 3);
    let (mut bare, _) = scene
        .connect(&Hello::new(Version::V5, "c"), &claims())
        .await;
    let told = bare.subscribe("t", 1).await;
    assert_eq!(told, 0x87, "neither the token nor a file allows it");
    // A reload leaves the token's own rules in force.
    let (mut client, _) = scene.connect(&Hello::new(Version::V5, "d"), &own).await;
    scene.reload("acl_claim = \"acl\"\n");
    assert_eq!(client.subscribe("user/alice/+", 1).await, 1);
    assert_eq!(client.subscribe("user/#", 1).await, 0x87);
    scene.broker.stop().await;
}

#[tokio::test]
async fn session_loses_what_the_next_token_does_not_allow() {
    let scene = Scene::new("ES256", "acl_claim = \"acl\"\n").await;
    let mut wide = claims();
    wide["acl"] = json!({"subscribe": ["a/#", "b/#"], "publish": ["a/#", "b/#"]});
    let hello = Hello::persistent(Version::V5, "c");
    let (mut client, _) = scene.connect(&hello, &wide).await;
    for filter in ["a/x", "b/x"] {
        assert_eq!(client.subscribe(filter, 1).await, 1);
    }
    client.leave().await;
    let (client, _) = scene.connect(&hello, &wide).await;
    assert_eq!(scene.broker.count(Metric::Subscriptions), 2);
    client.leave().await;
    let mut narrow = claims();
    narrow["acl"] = json!({"subscribe": ["b/#"], "publish": ["b/#"]});
    let (mut client, _) = scene.connect(&hello, &narrow).await;
    assert_eq!(scene.broker.count(Metric::Subscriptions), 1);
    let (mut publisher, _) = scene.connect(&Hello::new(Version::V5, "p"), &narrow).await;
    publisher.deliver("b/x", "kept", 1).await;
    assert_eq!(client.receive().await.payload, "kept");
    scene.broker.stop().await;
}

#[tokio::test]
async fn session_loses_all_when_tokens_are_to_say_what_they_allow_and_do_not() {
    let scene = Scene::new("ES256", "").await;
    let hello = Hello::persistent(Version::V5, "c");
    let (mut client, _) = scene.connect(&hello, &claims()).await;
    assert_eq!(client.subscribe("a/x", 1).await, 1);
    client.leave().await;
    scene.reload("acl_claim = \"acl\"\n");
    let (_client, code) = scene.connect(&hello, &claims()).await;
    assert_eq!(code, 0);
    assert_eq!(scene.broker.count(Metric::Subscriptions), 0);
    scene.broker.stop().await;
}

#[tokio::test]
async fn what_a_token_has_allowed_a_session_may_do_after_a_restart() {
    let dir = Dir::new();
    let issuer = Issuer::new("ES256");
    let acl = dir.write("acl", "allow all all file/%u\n");
    let settings = format!(
        "{}[access]\n{}acl_claim = \"acl\"\n[access.acl]\npath = {acl:?}\n",
        persist::settings(&dir),
        issuer.settings(&dir)
    );
    let mut own = claims();
    own["acl"] = json!({"subscribe": ["user/%u/+"], "publish": ["user/%u/100%%"]});
    let hello = Hello::persistent(Version::V5, "c").with_login("", &issuer.token(&own));
    let broker = Broker::start_with(&settings).await;
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    assert_eq!(welcome.code, 0);
    for filter in ["file/alice", "user/alice/+"] {
        assert_eq!(client.subscribe(filter, 1).await, 1);
    }
    client.leave().await;
    broker.stop().await;

    let broker = Broker::start_with(&settings).await;
    assert_eq!(broker.count(Metric::Subscriptions), 2);
    let sender = Hello::new(Version::V5, "s").with_login("", &issuer.token(&own));
    let (mut sender, _) = Client::connect(broker.address, &sender).await;
    sender.deliver("user/alice/100%", "kept", 1).await;
    let (mut client, welcome) = Client::connect(broker.address, &hello).await;
    assert!(welcome.session_present);
    assert_eq!(client.receive().await.payload, "kept");
    client.leave().await;
    // The next token says less.
    own["acl"] = json!({"publish": []});
    let less = Hello::persistent(Version::V5, "c").with_login("", &issuer.token(&own));
    let (client, _) = Client::connect(broker.address, &less).await;
    assert_eq!(broker.count(Metric::Subscriptions), 1);
    client.leave().await;
    broker.stop().await;
    let broker = Broker::start_with(&settings).await;
    assert_eq!(broker.count(Metric::Subscriptions), 1);
    broker.stop().await;
}

#[tokio::test]
async fn users_of_a_file_and_of_tokens_get_in_side_by_side() {
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "alice", "sesame");
    let file = format!("[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n");
    let scene = Scene::new("RS256", &file).await;
    let (by_file, welcome) = Client::connect(scene.broker.address, &alice(Version::V5)).await;
    assert_eq!(welcome.code, 0);
    let (_by_token, code) = scene
        .connect(&Hello::new(Version::V5, "d"), &claims())
        .await;
    assert_eq!(code, 0);
    let wrong = Hello::new(Version::V5, "e").with_login("alice", "x.y.z");
    let (_nobody, welcome) = Client::connect(scene.broker.address, &wrong).await;
    assert_eq!(welcome.code, 0x86);
    by_file.leave().await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn reload_with_another_key_has_tokens_shown_anew() {
    let scene = Scene::new("ES256", "").await;
    let hello = Hello::persistent(Version::V5, "c");
    let (mut client, _) = scene.connect(&hello, &claims()).await;
    scene.reload("");
    client.ping().await;
    let next = Issuer::new("ES256");
    next.write(&scene.dir, "key");
    client.ping().await;
    scene
        .broker
        .node
        .reload(&config(&format!("[access]\n{}", next.settings(&scene.dir))))
        .unwrap();
    client.expect(0xe0, &[0x87]).await;
    client.expect_close().await;
    let (_client, code) = scene.connect(&hello, &claims()).await;
    assert_eq!(code, 0x86);
    let mut hello = hello.with_login("", &next.token(&claims()));
    hello.clean = false;
    let (_client, welcome) = Client::connect(scene.broker.address, &hello).await;
    assert_eq!((welcome.code, welcome.session_present), (0, true));
    // A key that cannot be used changes nothing.
    let settings = format!("[access]\n{}", next.settings(&scene.dir));
    scene.dir.write("key", "no key");
    let unusable = scene.broker.node.reload(&config(&settings)).unwrap_err();
    assert_eq!(unusable.len(), 1, "{unusable:?}");
    let (_client, welcome) = Client::connect(scene.broker.address, &hello).await;
    assert_eq!(welcome.code, 0);
    scene.broker.stop().await;
}

#[tokio::test]
async fn token_whose_user_a_file_has_meanwhile_does_not_outlive_that() {
    let dir = Dir::new();
    let passwords = dir.path("passwords");
    set(&passwords, "bob", "sesame");
    let scene = Scene::new("ES256", "").await;
    let (mut client, _) = scene
        .connect(&Hello::new(Version::V5, "c"), &claims())
        .await;
    let file = format!("[[access.authenticator]]\ntype = \"file\"\npath = {passwords:?}\n");
    let both = format!("[access]\n{file}{}", scene.issuer.settings(&scene.dir));
    scene.broker.node.reload(&config(&both)).unwrap();
    client.ping().await;
    set(&passwords, "alice", "sesame");
    scene.broker.node.reload(&config(&both)).unwrap();
    client.expect(0xe0, &[0x87]).await;
    client.expect_close().await;
    scene.broker.stop().await;
}
