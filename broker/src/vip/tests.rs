//! Each test has a network namespace of its own, and so needs root; without it, it says so and
//! is skipped.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{Lease, VipError};

const V4: &str = "172.16.40.24";
const V6: &str = "fd00:40::24";

/// Longer than a program takes to start.
const PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(1);

/// A fresh network namespace with the loopback interface up, and a state directory.
struct Host {
    state_dir: PathBuf,
}

impl Host {
    /// Runs `test` in a thread of its own, which takes the namespace with it when it ends.
    fn run<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F + Send + 'static) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = thread::current().name().unwrap_or_default().to_owned();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // SAFETY: only the network namespace is unshared; descriptors stay shared.
            if let Err(errno) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
                skip(&format!("a network namespace needs root ({errno})"));
                return;
            }
            if let Err(error) = Command::new("ip").arg("-V").output() {
                skip(&format!("`ip` of iproute2 cannot be run ({error})"));
                return;
            }
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("tidegate-vip-test-{}-{number}", std::process::id());
            let state_dir = std::env::temp_dir().join(name);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            ip(&["link", "set", "lo", "up"]);
            // A namespace may start with the settings of the one it came from.
            settings().into_keys().for_each(|name| set(name, "0"));
            runtime.block_on(test(Self {
                state_dir: state_dir.clone(),
            }));
            // Not there if the test has ended the way it should without ever making one.
            let _ = fs::remove_dir_all(state_dir);
        });
        if let Err(panic) = thread.unwrap().join() {
            std::panic::resume_unwind(panic);
        }
    }

    async fn acquire(&self, addresses: &[&str]) -> Result<Lease, VipError> {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|text| {
                let address: IpAddr = text.parse().unwrap();
                (address, super::host_len(&address))
            })
            .collect();
        Lease::acquire_in(&addresses, "lo", &self.state_dir).await
    }

    /// As [`Host::acquire`], after a lease that was not released. Its lock is held a little longer
    /// where another test starts a program just then: until that has begun it has all files.
    async fn acquire_again(&self, addresses: &[&str]) -> Lease {
        let acquired = async {
            loop {
                match self.acquire(addresses).await {
                    Err(VipError::Held { .. }) => tokio::time::sleep(RETRY).await,
                    result => return result.unwrap(),
                }
            }
        };
        let acquired = tokio::time::timeout(PATIENCE, acquired).await;
        acquired.expect("the lock is free again")
    }

    fn ledgers(&self) -> usize {
        fs::read_dir(&self.state_dir).map_or(0, Iterator::count)
    }
}

/// Written past the test harness, which hides what a passing test prints.
fn skip(reason: &str) {
    let name = thread::current().name().unwrap_or_default().to_owned();
    let line = format!("SKIPPED {name}: {reason}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// `ip` inherits the calling thread's namespace.
fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn shown(address: &str) -> bool {
    ip(&["-oneline", "address", "show", "dev", "lo"]).contains(&format!(" {address}/"))
}

fn setting(name: &str) -> String {
    let path = Path::new("/proc/sys/net/ipv4/conf").join(name);
    fs::read_to_string(path).unwrap().trim().to_owned()
}

fn set(name: &str, value: &str) {
    fs::write(Path::new("/proc/sys/net/ipv4/conf").join(name), value).unwrap();
}

fn settings() -> BTreeMap<&'static str, String> {
    [
        "all/arp_ignore",
        "all/arp_announce",
        "lo/arp_ignore",
        "lo/arp_announce",
    ]
    .map(|name| (name, setting(name)))
    .into()
}

#[test]
fn a_lease_holds_both_families_and_leaves_nothing_behind() {
    Host::run(|host| async move {
        let before = (settings(), ip(&["address", "show"]));
        let lease = host.acquire(&[V4, V6]).await.unwrap();
        assert!(shown(V4) && shown(V6));
        assert_eq!(
            settings().into_values().collect::<Vec<_>>(),
            ["2", "1", "2", "1"]
        );
        lease.release().await.unwrap();
        assert_eq!((settings(), ip(&["address", "show"])), before);
        assert_eq!(host.ledgers(), 0);
    });
}

#[test]
fn held_addresses_are_never_chosen_as_source() {
    Host::run(|host| async move {
        let lease = host.acquire(&[V4, V6]).await.unwrap();
        let shown = ip(&["-oneline", "address", "show", "dev", "lo"]);
        let line = |address: &str| shown.lines().find(|line| line.contains(address)).unwrap();
        assert!(line(V4).contains("scope host"), "{shown}");
        assert!(line(V6).contains("deprecated"), "{shown}");
        lease.release().await.unwrap();
    });
}

#[test]
fn an_address_that_was_there_before_stays() {
    Host::run(|host| async move {
        ip(&["address", "add", "172.16.40.24/32", "dev", "lo"]);
        let lease = host.acquire(&[V4, V6]).await.unwrap();
        lease.release().await.unwrap();
        assert!(shown(V4));
        assert!(!shown(V6));
    });
}

#[test]
fn settings_that_are_high_enough_are_left_alone() {
    Host::run(|host| async move {
        set("all/arp_ignore", "2");
        set("lo/arp_announce", "1");
        let lease = host.acquire(&[V4]).await.unwrap();
        assert_eq!(
            (setting("all/arp_ignore"), setting("lo/arp_announce")),
            ("2".into(), "2".into())
        );
        lease.release().await.unwrap();
        assert_eq!(
            (setting("all/arp_ignore"), setting("lo/arp_announce")),
            ("2".into(), "1".into())
        );
    });
}

#[test]
fn a_setting_that_somebody_else_changed_is_not_put_back() {
    Host::run(|host| async move {
        let lease = host.acquire(&[V4]).await.unwrap();
        set("all/arp_ignore", "8");
        lease.release().await.unwrap();
        assert_eq!(setting("all/arp_ignore"), "8");
        assert_eq!(setting("lo/arp_ignore"), "0");
    });
}

#[test]
fn after_a_crash_the_next_lease_undoes_what_the_first_did() {
    Host::run(|host| async move {
        let before = settings();
        drop(host.acquire(&[V4, V6]).await.unwrap());
        assert!(shown(V4) && shown(V6));
        let lease = host.acquire_again(&[V4, V6]).await;
        lease.release().await.unwrap();
        assert!(!shown(V4) && !shown(V6));
        assert_eq!(settings(), before);
        assert_eq!(host.ledgers(), 0);
    });
}

#[test]
fn an_address_no_longer_wanted_after_a_crash_goes_at_the_next_start() {
    Host::run(|host| async move {
        drop(host.acquire(&[V4, "172.16.40.25"]).await.unwrap());
        let lease = host.acquire_again(&[V6]).await;
        assert!(!shown(V4) && !shown("172.16.40.25") && shown(V6));
        lease.release().await.unwrap();
        assert_eq!(setting("all/arp_ignore"), "0");
    });
}

#[test]
fn a_ledger_of_another_life_of_the_host_is_not_believed() {
    Host::run(|host| async move {
        drop(host.acquire(&[V4]).await.unwrap());
        ip(&["address", "flush", "dev", "lo"]);
        ip(&["address", "add", "127.0.0.1/8", "dev", "lo"]);
        set("all/arp_ignore", "0");
        set("lo/arp_announce", "1");
        let lease = host.acquire_again(&[V4]).await;
        lease.release().await.unwrap();
        assert!(!shown(V4) && shown("127.0.0.1"));
        assert_eq!(
            (setting("all/arp_ignore"), setting("lo/arp_announce")),
            ("0".into(), "1".into())
        );
    });
}

#[test]
fn a_second_lease_on_the_interface_is_refused() {
    Host::run(|host| async move {
        let lease = host.acquire(&[V4]).await.unwrap();
        let error = host.acquire(&[V6]).await.unwrap_err();
        assert!(matches!(error, VipError::Held { .. }), "{error}");
        assert!(shown(V4));
        lease.release().await.unwrap();
    });
}

#[test]
fn a_refused_address_leaves_nothing_changed() {
    Host::run(|host| async move {
        let before = settings();
        // The kernel takes no multicast address of IPv6 on an interface.
        let error = host.acquire(&[V4, "ff02::1"]).await.unwrap_err();
        assert!(matches!(error, VipError::Address { .. }), "{error}");
        assert!(!shown(V4));
        assert_eq!(settings(), before);
        assert_eq!(host.ledgers(), 0);
    });
}

#[test]
fn ipv6_alone_leaves_the_arp_settings_alone() {
    Host::run(|host| async move {
        let before = settings();
        let lease = host.acquire(&[V6]).await.unwrap();
        assert_eq!(settings(), before);
        lease.release().await.unwrap();
    });
}

#[test]
fn a_missing_interface_and_a_subnet_are_refused() {
    Host::run(|host| async move {
        let address: IpAddr = V4.parse().unwrap();
        let missing = Lease::acquire_in(&[(address, 32)], "nosuch0", &host.state_dir).await;
        assert!(matches!(missing, Err(VipError::NoInterface { .. })));
        let subnet = Lease::acquire_in(&[(address, 24)], "lo", &host.state_dir).await;
        assert_eq!(
            subnet.unwrap_err().to_string(),
            "172.16.40.24/24 is not one address: use /32"
        );
        assert_eq!(host.ledgers(), 0);
    });
}
