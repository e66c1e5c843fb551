//! What is kept in the state directory.

use std::path::PathBuf;

use super::{CONFIG, config, key, running};
use crate::{
    control::{Change, Lasting},
    core::balancer::{Admin, AdminState},
    daemon::state::StateDir,
};

/// A directory of its own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
        Self(path)
    }

    fn open(&self) -> anyhow::Result<StateDir> {
        StateDir::open(&self.0, "eth0")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn seed_is_made_once_and_is_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new("seed");
    let first = scratch.open().unwrap().seed().unwrap();
    let second = scratch.open().unwrap().seed().unwrap();
    assert_eq!(first, second);
    let mode = std::fs::metadata(scratch.0.join("seed"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(scratch.0.join("seed"), "0011").unwrap();
    assert!(scratch.open().unwrap().seed().is_err());
}

#[test]
fn second_daemon_is_refused_with_the_interface() {
    let scratch = Scratch::new("lock");
    let _first = scratch.open().unwrap();
    let refusal = scratch.open().err().unwrap().to_string();
    assert!(refusal.contains("interface eth0"), "{refusal}");
    let other = StateDir::open(&scratch.0, "eth1")
        .err()
        .unwrap()
        .to_string();
    assert!(other.contains("state_dir of its own"), "{other}");
}

#[test]
fn what_was_said_for_the_time_being_is_not_kept() {
    let scratch = Scratch::new("admin");
    let mut engine = running();
    let mut state = scratch.open().unwrap();
    for (name, change, lasting) in [
        ("a", Change::Admin(Admin::Draining), Lasting::Kept),
        ("b", Change::Admin(Admin::Disabled), Lasting::Temporary),
        ("a", Change::Weight(7), Lasting::Temporary),
        ("b", Change::Weight(9), Lasting::Temporary),
    ] {
        engine.handle_change(&key(name), change);
        state
            .keep(engine.balancer.admin(), &key(name), lasting)
            .unwrap();
    }
    drop(state);
    let kept = scratch.open().unwrap().admin();
    assert_eq!(
        (kept.admin(&key("a")), kept.weight(&key("a"))),
        (Admin::Draining, None)
    );
    assert_eq!(
        (kept.admin(&key("b")), kept.weight(&key("b"))),
        (Admin::Enabled, None)
    );
}

#[test]
fn what_was_said_of_a_backend_that_went_does_not_come_back() {
    let scratch = Scratch::new("went");
    let mut engine = running();
    let mut state = scratch.open().unwrap();
    for name in ["a", "b"] {
        engine.handle_change(&key(name), Change::Admin(Admin::Draining));
        let admin = engine.balancer.admin();
        state.keep(admin, &key(name), Lasting::Kept).unwrap();
    }
    let without_a = CONFIG.replace("{ name = \"a\", address = \"172.16.40.20\" }, ", "");
    for text in [without_a.as_str(), CONFIG] {
        engine.handle_config(config(text));
        state.follow(engine.balancer.config()).unwrap();
    }
    drop(state);
    assert_eq!(&scratch.open().unwrap().admin(), engine.balancer.admin());
    assert_eq!(engine.balancer.admin().admin(&key("a")), Admin::Enabled);
    assert_eq!(engine.balancer.admin().admin(&key("b")), Admin::Draining);
}

#[test]
fn damaged_states_are_set_aside() {
    let scratch = Scratch::new("damaged");
    let mut state = scratch.open().unwrap();
    std::fs::write(scratch.0.join("admin.json"), "{\"mqtt/a\": 7}").unwrap();
    assert_eq!(state.admin(), AdminState::default());
    assert!(scratch.0.join("admin.json.broken").exists());
}
