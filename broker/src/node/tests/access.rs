//! Who is let in, and who stays when the configuration changes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    ALL, Broker,
    client::{Client, Hello, Testament, Welcome},
};
use crate::{
    access::{hashing::cheap, passwords::PasswordFile},
    codec::packet::Version,
    config::Config,
    metrics::Metric,
    testing::Dir,
};

/// Gives a user a password.
pub(super) fn set(file: &Path, user: &str, password: &str) {
    let mut opened = PasswordFile::open(file).unwrap();
    opened.set(user, &cheap(password));
    opened.save().unwrap();
}

pub(super) fn delete(file: &Path, user: &str) {
    let mut opened = PasswordFile::open(file).unwrap();
    opened.delete(user).unwrap();
    opened.save().unwrap();
}

/// `[access]` with a password file of alice, whose password is "sesame".
pub(super) struct Scene {
    pub(super) dir: Dir,
    pub(super) passwords: PathBuf,
    settings: String,
    pub(super) broker: Broker,
}

impl Scene {
    async fn new(access: &str) -> Self {
        Self::with_rules(access, None).await
    }

    /// As well with an ACL file.
    pub(super) async fn with_rules(access: &str, rules: Option<&str>) -> Self {
        let dir = Dir::new();
        let mut access = access.to_owned();
        if let Some(rules) = rules {
            let path = dir.write("acl", rules);
            access += &format!("\n[access.acl]\npath = {path:?}");
        }
        let access = &access;
        let passwords = dir.path("passwords");
        set(&passwords, "alice", "sesame");
        let settings = settings(access, &passwords);
        let broker = Broker::start_with(&settings).await;
        Self {
            dir,
            passwords,
            settings,
            broker,
        }
    }

    pub(super) async fn connect(&self, hello: &Hello) -> (Client, Welcome) {
        Client::connect(self.broker.address, hello).await
    }

    /// Has the broker read its files again.
    pub(super) fn reload(&self) {
        self.take(&self.settings).unwrap();
    }

    /// Has the broker read its files again, and returns what it says against them.
    pub(super) fn refused_reload(&self) -> String {
        self.take(&self.settings).unwrap_err()
    }

    /// Has the broker read a configuration with these settings.
    fn take(&self, settings: &str) -> Result<(), String> {
        let text = format!("node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n{settings}");
        let config = Config::parse(&text).map_err(|error| error.to_string())?;
        let reloaded = self.broker.node.reload(&config);
        reloaded.map_err(|mut errors| format!("{:#}", anyhow::Error::new(errors.remove(0))))
    }
}

fn settings(access: &str, passwords: &Path) -> String {
    let path = passwords.display();
    format!("[access]\n{access}\n[[access.authenticator]]\ntype = \"file\"\npath = \"{path}\"\n")
}

pub(super) fn alice(version: Version) -> Hello {
    Hello::new(version, "c").with_login("alice", "sesame")
}

/// The code of a refusal, by version.
fn bad_credentials(version: Version) -> u8 {
    if version.is_v5() { 0x86 } else { 4 }
}

fn not_authorized(version: Version) -> u8 {
    if version.is_v5() { 0x87 } else { 5 }
}

#[tokio::test]
async fn users_of_the_file_are_let_in_with_their_password_only() {
    let scene = Scene::new("").await;
    for version in ALL {
        let (mut client, welcome) = scene.connect(&alice(version)).await;
        assert_eq!(welcome.code, 0);
        client.ping().await;
        let mut named = Hello::new(version, "c");
        named.username = Some("alice".to_owned());
        let refused = [
            (Hello::new(version, "c"), not_authorized(version)),
            (named, bad_credentials(version)),
            (
                Hello::new(version, "c").with_login("alice", "Sesame"),
                bad_credentials(version),
            ),
            (
                Hello::new(version, "c").with_login("alice", ""),
                bad_credentials(version),
            ),
            (
                Hello::new(version, "c").with_login("bob", "sesame"),
                bad_credentials(version),
            ),
            (
                Hello::new(version, "c").with_login("", ""),
                bad_credentials(version),
            ),
        ];
        for (hello, code) in refused {
            let (mut client, welcome) = scene.connect(&hello).await;
            assert_eq!(welcome.code, code, "{:?}", hello.username);
            client.expect_close().await;
        }
        // Who was refused took nothing over.
        client.ping().await;
    }
    scene.broker.wait_for(Metric::RefusedAccess, 18).await;
    assert_eq!(scene.broker.count(Metric::RefusedProtocol), 0);
    let mut text = String::new();
    scene.broker.node.status().render(&mut text);
    assert!(text.contains("access_total{authenticator=\"file\",answer=\"allowed\"} 3\n"));
    assert!(text.contains("access_total{authenticator=\"file\",answer=\"denied\"} 9\n"));
    assert!(text.contains("access_total{authenticator=\"none\",answer=\"denied\"} 9\n"));
    scene.broker.stop().await;
}

#[tokio::test]
async fn anonymous_clients_are_let_in_where_they_may_and_false_names_are_not() {
    let scene = Scene::new("anonymous = true").await;
    scene.broker.join(Version::V5, "somebody").await;
    let bob = Hello::new(Version::V5, "c").with_login("bob", "sesame");
    assert_eq!(scene.connect(&bob).await.1.code, 0x86);
    assert_eq!(scene.connect(&alice(Version::V5)).await.1.code, 0);
    scene.broker.stop().await;
    let open = Broker::start().await;
    let (_client, welcome) = Client::connect(open.address, &bob).await;
    assert_eq!(welcome.code, 0, "nobody could know who bob is");
    open.stop().await;
}

#[tokio::test]
async fn password_without_a_name_is_refused_in_mqtt_5() {
    let scene = Scene::new("anonymous = true").await;
    let mut hello = Hello::new(Version::V5, "c");
    hello.password = Some("sesame".to_owned());
    assert_eq!(scene.connect(&hello).await.1.code, 0x86);
    scene.broker.stop().await;
}

#[tokio::test]
async fn reload_lets_new_users_in_and_sends_old_ones_away() {
    let scene = Scene::new("").await;
    set(&scene.passwords, "bob", "sesame");
    let bob = Hello::new(Version::V311, "b").with_login("bob", "sesame");
    let (mut first, _) = scene.connect(&alice(Version::V5)).await;
    assert_eq!(scene.connect(&bob).await.1.code, 4, "not before the reload");
    scene.reload();
    first.ping().await;
    let (mut second, welcome) = scene.connect(&bob).await;
    assert_eq!(welcome.code, 0);
    delete(&scene.passwords, "bob");
    set(&scene.passwords, "alice", "open");
    scene.reload();
    first.expect(0xe0, &[0x87]).await;
    first.expect_close().await;
    second.expect_close().await;
    assert_eq!(scene.broker.count(Metric::ClosedAccess), 2);
    assert_eq!(scene.connect(&bob).await.1.code, 4);
    assert_eq!(scene.connect(&alice(Version::V5)).await.1.code, 0x86);
    let opened = Hello::new(Version::V5, "c").with_login("alice", "open");
    assert_eq!(scene.connect(&opened).await.1.code, 0);
    scene.broker.stop().await;
}

#[tokio::test]
async fn anonymous_clients_are_sent_away_when_they_may_no_longer_be() {
    let scene = Scene::new("anonymous = true").await;
    let mut nobody = scene.broker.join(Version::V5, "nobody").await;
    let (mut known, _) = scene.connect(&alice(Version::V5)).await;
    scene.take(&settings("", &scene.passwords)).unwrap();
    nobody.expect(0xe0, &[0x87]).await;
    nobody.expect_close().await;
    known.ping().await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn bad_configuration_changes_nothing() {
    let scene = Scene::new("").await;
    let (mut client, _) = scene.connect(&alice(Version::V311)).await;
    let error = scene.take("[access]\n").unwrap_err();
    assert!(error.contains("anonymous = true"), "{error}");
    fs::write(&scene.passwords, "alice:sesame\n").unwrap();
    scene.take(&scene.settings).unwrap_err();
    client.ping().await;
    let (_again, welcome) = scene.connect(&alice(Version::V5)).await;
    assert_eq!(welcome.code, 0);
    scene.broker.stop().await;
}

#[tokio::test]
async fn node_does_not_start_without_its_password_file() {
    let path = Path::new("/nowhere/passwords");
    let text = format!(
        "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n{}",
        settings("", path)
    );
    let error = crate::node::Node::start(&Config::parse(&text).unwrap()).await;
    let error = error.map(drop).unwrap_err();
    assert!(error.to_string().contains("/nowhere/passwords"), "{error}");
}

#[tokio::test]
async fn session_is_its_users() {
    let scene = Scene::new("").await;
    set(&scene.passwords, "bob", "sesame");
    scene.reload();
    let mine = Hello::persistent(Version::V5, "c").with_login("alice", "sesame");
    let (mut client, _) = scene.connect(&mine).await;
    client.subscribe("secret", 1).await;
    client.leave().await;
    let (client, welcome) = scene.connect(&mine).await;
    assert!(welcome.session_present);
    client.leave().await;
    let theirs = Hello::persistent(Version::V5, "c").with_login("bob", "sesame");
    let (client, welcome) = scene.connect(&theirs).await;
    assert_eq!(welcome.code, 0);
    assert!(!welcome.session_present);
    assert_eq!(scene.broker.count(Metric::Subscriptions), 0);
    client.leave().await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn users_session_is_not_taken_by_nobody() {
    let scene = Scene::new("anonymous = true").await;
    let mine = Hello::persistent(Version::V5, "c").with_login("alice", "sesame");
    let (mut client, _) = scene.connect(&mine).await;
    client.subscribe("secret", 1).await;
    for version in ALL {
        let code = if version.is_v5() { 0x85 } else { 2 };
        let (mut nobody, welcome) = scene.connect(&Hello::new(version, "c")).await;
        assert_eq!(welcome.code, code);
        nobody.expect_close().await;
    }
    client.ping().await;
    client.leave().await;
    let (_nobody, welcome) = scene.connect(&Hello::new(Version::V5, "c")).await;
    assert_eq!(welcome.code, 0x85, "nor while its user is away");
    assert_eq!(scene.broker.count(Metric::RefusedAccess), 4);
    let (_client, welcome) = scene.connect(&mine).await;
    assert!(welcome.session_present);
    scene.broker.stop().await;
}

#[tokio::test]
async fn reload_without_a_listener_that_goes_on_changes_nothing() {
    let scene = Scene::new("").await;
    let text =
        "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n[access]\nanonymous = true\n";
    let unusable = scene.broker.node.reload(&Config::parse(text).unwrap());
    let unusable = unusable.unwrap_err().remove(0).to_string();
    assert!(unusable.contains("takes a restart"), "{unusable}");
    let (_client, welcome) = scene.connect(&Hello::new(Version::V5, "c")).await;
    assert_eq!(welcome.code, 0x87);
    scene.broker.stop().await;
}

#[tokio::test]
async fn reload_asks_what_the_next_login_would() {
    let scene = Scene::new("").await;
    let mut chosen = alice(Version::V5);
    chosen.id = "alice".to_owned();
    let (mut fitting, _) = scene.connect(&chosen).await;
    let (mut other, _) = scene.connect(&alice(Version::V5)).await;
    let tied = settings("client_id = \"%u\"", &scene.passwords);
    scene.take(&tied).unwrap();
    other.expect(0xe0, &[0x87]).await;
    other.expect_close().await;
    fitting.ping().await;
    // A file before the other one, which has another password: it decides.
    let first = scene.dir.path("first");
    set(&first, "alice", "open");
    let both = format!(
        "{}[[access.authenticator]]\ntype = \"file\"\npath = {:?}\n",
        settings("", &first),
        scene.passwords
    );
    scene.take(&both).unwrap();
    fitting.expect(0xe0, &[0x87]).await;
    fitting.expect_close().await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn name_that_nobody_could_check_does_not_outlive_that() {
    let scene = Scene::new("").await;
    scene.take("[access]\nanonymous = true\n").unwrap();
    let mut named = Hello::persistent(Version::V5, "named").with_login("alice", "guess");
    let (mut client, welcome) = scene.connect(&named).await;
    assert_eq!(welcome.code, 0);
    let mut nobody = scene.broker.join(Version::V5, "nobody").await;
    let anonymous = settings("anonymous = true", &scene.passwords);
    scene.take(&anonymous).unwrap();
    client.expect(0xe0, &[0x87]).await;
    client.expect_close().await;
    nobody.ping().await;
    (named.username, named.password) = (None, None);
    let (_client, welcome) = scene.connect(&named).await;
    assert!(welcome.session_present, "it was nobody's, and still is");
    scene.broker.stop().await;
}

#[tokio::test]
async fn what_a_user_leaves_behind_goes_with_the_user() {
    let scene = Scene::new("").await;
    for user in ["bob", "carol", "dave"] {
        set(&scene.passwords, user, "sesame");
    }
    scene.reload();
    let (mut witness, _) = scene.connect(&alice(Version::V5)).await;
    witness.subscribe("will", 1).await;
    for (user, is_there) in [("bob", true), ("carol", false), ("dave", false)] {
        let mut hello = Hello::persistent(Version::V5, user).with_login(user, "sesame");
        hello.will = is_there.then_some(Testament {
            topic: "will",
            payload: "of one who is gone",
            retain: false,
            properties: Vec::new(),
        });
        let (mut client, _) = scene.connect(&hello).await;
        client.subscribe("t", 1).await;
        if !is_there {
            client.leave().await;
            continue;
        }
        delete(&scene.passwords, "bob");
        scene.reload();
        client.expect(0xe0, &[0x87]).await;
        client.expect_close().await;
    }
    witness.deliver("t", "kept", 1).await;
    delete(&scene.passwords, "carol");
    set(&scene.passwords, "dave", "open");
    scene.reload();
    scene.broker.wait_for(Metric::Sessions, 2).await;
    scene.broker.wait_for(Metric::Subscriptions, 2).await;
    let mut dave = Hello::persistent(Version::V5, "dave").with_login("dave", "open");
    dave.clean = false;
    let (mut client, welcome) = scene.connect(&dave).await;
    assert!(welcome.session_present);
    assert_eq!(client.receive().await.payload, "kept");
    witness.publish("will", "of nobody", 0, 0).await;
    assert_eq!(witness.receive().await.payload, "of nobody");
    scene.broker.stop().await;
}

#[tokio::test]
async fn client_that_waits_too_long_for_its_password_is_told_to_come_again() {
    let scene = Scene::new("hash_threads = 1\n[limits]\nconnect_timeout = \"500ms\"").await;
    let dear = cheap("sesame").replace("m=8,t=1,", "m=65536,t=20,");
    let mut file = PasswordFile::open(&scene.passwords).unwrap();
    file.set("bob", &dear);
    file.save().unwrap();
    scene.reload();
    for (version, code) in [(Version::V5, 0x88), (Version::V311, 3)] {
        let bob = Hello::new(version, "b").with_login("bob", "guess");
        let (mut client, welcome) = scene.connect(&bob).await;
        assert_eq!(welcome.code, code);
        client.expect_close().await;
    }
    scene.broker.wait_for(Metric::RefusedAccess, 2).await;
    let mut text = String::new();
    scene.broker.node.status().render(&mut text);
    assert!(text.contains("access_total{authenticator=\"file\",answer=\"unavailable\"} 2\n"));
    scene.broker.stop().await;
}

#[tokio::test]
async fn client_that_hangs_up_waits_for_its_password_no_longer() {
    let scene = Scene::new("hash_threads = 1\n[limits]\nconnect_timeout = \"1h\"").await;
    let dear = cheap("sesame").replace("m=8,t=1,", "m=65536,t=20,");
    let mut file = PasswordFile::open(&scene.passwords).unwrap();
    file.set("bob", &dear);
    file.save().unwrap();
    drop(file);
    scene.reload();
    let mut waiting = Vec::new();
    for id in ["a", "b", "c"] {
        let mut client = Client::open(scene.broker.address).await;
        let hello = Hello::new(Version::V5, id).with_login("bob", "guess");
        client.send(&hello.encode()).await;
        // Some do not wait for the answer.
        client.send(&[0xc0, 0]).await;
        waiting.push(client);
    }
    drop(waiting);
    scene.broker.wait_for(Metric::RefusedClosed, 3).await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn what_a_client_says_before_it_is_let_in_is_not_lost() {
    let scene = Scene::new("").await;
    let mut client = Client::open(scene.broker.address).await;
    client.send(&alice(Version::V5).encode()).await;
    client.send(&[0xc0, 0]).await;
    assert_eq!(client.recv().await.0, 0x20);
    client.expect(0xd0, &[]).await;
    scene.broker.stop().await;
}

#[tokio::test]
async fn client_ids_are_tied_to_users() {
    let scene = Scene::new("anonymous = true\nclient_id = \"%u-*\"").await;
    for version in ALL {
        let code = if version.is_v5() { 0x85 } else { 2 };
        for (id, expected) in [("alice-1", 0), ("alice", code), ("bob-1", code)] {
            let hello = Hello::new(version, id).with_login("alice", "sesame");
            assert_eq!(scene.connect(&hello).await.1.code, expected, "{id}");
        }
        let nobody = Hello::new(version, "alice-1");
        assert_eq!(scene.connect(&nobody).await.1.code, code);
    }
    let mut given = Hello::persistent(Version::V5, "").with_login("alice", "sesame");
    let (client, welcome) = scene.connect(&given).await;
    assert_eq!(welcome.code, 0, "who has no id is given one");
    client.leave().await;
    scene.reload();
    let properties = String::from_utf8_lossy(&welcome.properties);
    let at = properties.find("auto-").unwrap();
    given.id = properties[at..at + 37].to_owned();
    let stolen = Hello::new(Version::V5, &given.id);
    assert_eq!(scene.connect(&stolen).await.1.code, 0x85);
    given.clean = false;
    let (_client, welcome) = scene.connect(&given).await;
    assert!(welcome.session_present);
    scene.broker.stop().await;
}
