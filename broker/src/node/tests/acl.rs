//! What clients may publish and subscribe to.

use super::{
    ALL,
    access::{Scene, alice, set},
    client::{Hello, Testament},
};
use crate::{codec::packet::Version, metrics::Metric};

const RULES: &str = "\
deny  all         all        home/+/lock
allow user alice  all        home/#
allow all         publish    dev/%c/state
allow all         subscribe  dev/%c/#
";

fn testament(topic: &'static str) -> Testament {
    Testament {
        topic,
        payload: "gone",
        retain: false,
        properties: Vec::new(),
    }
}

#[tokio::test]
async fn what_rules_deny_is_not_published() {
    let scene = Scene::with_rules("", Some(RULES)).await;
    let mut hello = alice(Version::V311);
    hello.id = "listener".to_owned();
    let (mut listener, _) = scene.connect(&hello).await;
    assert_eq!(listener.subscribe("home/kitchen/#", 2).await, 0x80);
    assert_eq!(listener.subscribe("home/kitchen/lamp", 2).await, 2);
    for version in ALL {
        let (mut client, _) = scene.connect(&alice(version)).await;
        // A refusal of MQTT 5 ends the exchange of QoS 2.
        for qos in if version.is_v5() { 0..2 } else { 0..3 } {
            client.deliver("home/kitchen/lock", "open", qos).await;
            client.deliver("dev/other/state", "x", qos).await;
        }
        client.deliver("dev/c/state", "x", 1).await;
        client.deliver("home/kitchen/lamp", "on", 1).await;
        assert_eq!(listener.receive().await.payload, "on");
    }
    assert_eq!(scene.broker.count(Metric::DeniedPublish), 6 + 6 + 4);
    scene.broker.stop().await;
}

#[tokio::test]
async fn mqtt_5_says_that_it_was_not_authorized() {
    let scene = Scene::with_rules("", Some(RULES)).await;
    let (mut client, _) = scene.connect(&alice(Version::V5)).await;
    client.publish("home/x/lock", "open", 0b0010, 7).await;
    client.expect(0x40, &[0, 7, 0x87]).await;
    // A refused message is done with: its id may be used again, and is no duplicate.
    for _ in 0..2 {
        client.publish("home/x/lock", "open", 0b0100, 8).await;
        client.expect(0x50, &[0, 8, 0x87]).await;
    }
    client.publish("home/x/lamp", "on", 0b0100, 8).await;
    client.expect(0x50, &[0, 8, 0x10]).await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn subscriptions_are_allowed_as_a_whole() {
    let scene = Scene::with_rules("", Some(RULES)).await;
    for version in ALL {
        let refused = if version.is_v5() { 0x87 } else { 0x80 };
        let (mut client, _) = scene.connect(&alice(version)).await;
        for (filter, code) in [
            ("home/kitchen/lamp", 1),
            ("home/+/lamp", 1),
            ("dev/c/#", 1),
            ("home/#", refused),
            ("#", refused),
            ("dev/+/state", refused),
            ("home/kitchen/lock", refused),
        ] {
            assert_eq!(client.subscribe(filter, 1).await, code, "{filter}");
        }
        assert_eq!(scene.broker.count(Metric::Subscriptions), 3);
    }
    assert_eq!(scene.broker.count(Metric::DeniedSubscribe), 12);
    assert_eq!(scene.broker.count(Metric::RefusedSubscriptions), 0);
    scene.broker.stop().await;
}

#[tokio::test]
async fn client_with_a_will_that_is_denied_is_refused() {
    let scene = Scene::with_rules("", Some(RULES)).await;
    for version in ALL {
        let (mut present, _) = scene.connect(&alice(version)).await;
        let mut hello = alice(version);
        hello.will = Some(testament("home/x/lock"));
        let code = if version.is_v5() { 0x87 } else { 5 };
        let (mut client, welcome) = scene.connect(&hello).await;
        assert_eq!(welcome.code, code);
        client.expect_close().await;
        present.ping().await;
        hello.will = Some(testament("home/x/lamp"));
        assert_eq!(scene.connect(&hello).await.1.code, 0);
    }
    assert_eq!(scene.broker.count(Metric::RefusedAccess), 3);
    scene.broker.stop().await;
}

#[tokio::test]
async fn sessions_go_by_new_rules_at_once() {
    let scene = Scene::with_rules("", Some(RULES)).await;
    set(&scene.passwords, "bob", "sesame");
    scene.reload();
    let mut mine = Hello::persistent(Version::V5, "kept").with_login("alice", "sesame");
    let (mut kept, _) = scene.connect(&mine).await;
    kept.subscribe("home/a/lamp", 1).await;
    kept.subscribe("home/b/lamp", 1).await;
    kept.leave().await;
    let mut hello = alice(Version::V5);
    hello.will = Some(testament("home/b/lamp"));
    let (mut client, _) = scene.connect(&hello).await;
    client.subscribe("home/a/lamp", 0).await;
    client.subscribe("home/b/lamp", 0).await;
    scene.dir.write(
        "acl",
        "allow user alice all home/b/#\nallow user bob all home/#\n",
    );
    scene.reload();
    scene.broker.wait_for(Metric::Subscriptions, 2).await;
    client.publish("home/a/lamp", "x", 0b0010, 7).await;
    client.expect(0x40, &[0, 7, 0x87]).await;
    let bob = Hello::new(Version::V5, "b").with_login("bob", "sesame");
    let (mut bob, _) = scene.connect(&bob).await;
    bob.deliver("home/a/lamp", "not for alice", 1).await;
    bob.deliver("home/b/lamp", "for alice", 1).await;
    assert_eq!(client.receive().await.payload, "for alice");
    mine.clean = false;
    let (mut kept, welcome) = scene.connect(&mine).await;
    assert!(welcome.session_present);
    assert_eq!(kept.receive().await.payload, "for alice");
    // The will is not allowed any more either.
    client.subscribe("home/b/x", 0).await;
    scene.dir.write("acl", "allow all subscribe home/b/lamp\n");
    scene.reload();
    scene.broker.wait_for(Metric::DeniedSubscribe, 3).await;
    kept.ping().await;
    client.ping().await;
    drop(client);
    scene.broker.wait_for(Metric::SessionsConnected, 2).await;
    kept.ping().await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn bad_rules_stop_no_broker_that_runs() {
    let scene = Scene::with_rules("anonymous = true", Some(RULES)).await;
    let mut client = scene.broker.join(Version::V5, "c").await;
    let path = scene.dir.write("acl", "allow everybody everything\n");
    let error = scene.refused_reload();
    assert!(
        error.contains("line 1") && error.contains("everybody"),
        "{error}"
    );
    assert!(error.contains(path.to_str().unwrap()), "{error}");
    assert_eq!(client.subscribe("dev/c/x", 0).await, 0);
    assert_eq!(client.subscribe("home/x", 0).await, 0x87);
    scene.broker.stop().await;
}
