//! Packages on a Debian with a systemd of its own: installed, started, upgraded under traffic, removed.
//!
//! What is packed are the programs under test, so the units and what these allow are tested with them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::balancer::{BOTH, Lab, SOON, clients, config};
use tests::debian::Debian;
use xtask::dist::{self, Product};
use xtask::lab::{Binaries, ConfigText, Example, WorkDir, wait_until};

/// A package of a product.
fn package(product: Product, work: &WorkDir, revision: u32) -> Result<PathBuf> {
    let out = work.path().join(revision.to_string());
    dist::deb(product, &Binaries::find()?, revision, &out)
}

fn install(debian: &Debian, package: &Path) -> Result<()> {
    debian.give(package, "/root/package.deb")?;
    debian.run("dpkg --install /root/package.deb")?;
    Ok(())
}

/// The balancer's configuration, with files where they are by default.
fn balancer_config() -> String {
    let text = config("maglev", "dsr", &BOTH);
    let is_default = |line: &&str| !line.contains("$DIR") && *line != "[api]";
    text.lines()
        .filter(is_default)
        .fold(String::new(), |text, line| text + line + "\n")
}

fn is_active(debian: &Debian, unit: &str) -> Result<bool> {
    Ok(debian.property(unit, "ActiveState")? == "active")
}

/// Waits until the balancer finds both backends up.
fn wait_for_backends(debian: &Debian) -> Result<()> {
    Ok(wait_until(SOON, "both backends being up", || {
        let status = debian.run("tidegate status --json").ok()?;
        (status.matches("\"health\":\"up\"").count() == 2).then_some(())
    })?)
}

#[test]
fn the_balancer_is_upgraded_under_traffic_and_leaves_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let before = lab.addresses()?;
    let Some(debian) = Debian::boot(lab.host())? else {
        return Ok(());
    };
    let work = WorkDir::new()?;
    let first = package(Product::Balancer, &work, 1)?;
    let second = package(Product::Balancer, &work, 2)?;

    // Nothing happens before there is a configuration, and the unit is there for the next boot.
    install(&debian, &first)?;
    ensure!(!is_active(&debian, "tidegate")? && !lab.has_program()?);
    ensure!(debian.run("systemctl is-enabled tidegate")?.trim() == "enabled");

    // As docs/install.md says.
    debian.write("/etc/tidegate/tidegate.toml", &balancer_config())?;
    debian.run(
        "chown root:tidegate /etc/tidegate/tidegate.toml && chmod 640 /etc/tidegate/tidegate.toml",
    )?;
    debian.run("systemctl start tidegate")?;
    wait_for_backends(&debian)?;
    let pid = debian.property("tidegate", "MainPID")?;
    let user = debian.run(&format!("stat -c %U /proc/{pid}"))?;
    ensure!(user.trim() == "tidegate", "it runs as {user}");
    let rights = debian.run(&format!("grep CapEff /proc/{pid}/status"))?;
    ensure!(rights.trim().ends_with("\t000000c000003000"), "{rights}");
    let old = lab.stay("old", clients(40))?;

    // A mistake is told by whoever asks for a reload, and changes nothing.
    debian.run("echo nonsense >> /etc/tidegate/tidegate.toml")?;
    ensure!(
        !debian
            .try_run("systemctl reload tidegate")?
            .status
            .success()
    );
    debian.write("/etc/tidegate/tidegate.toml", &balancer_config())?;
    debian.run("systemctl reload tidegate")?;

    // What the new version cannot use costs nobody the old daemon.
    debian.run("echo nonsense >> /etc/tidegate/tidegate.toml")?;
    install(&debian, &second)?;
    ensure!(debian.property("tidegate", "MainPID")? == pid);
    debian.write("/etc/tidegate/tidegate.toml", &balancer_config())?;

    // An upgrade is another process, and no session notices.
    install(&debian, &second)?;
    ensure!(is_active(&debian, "tidegate")?);
    let upgraded = debian.property("tidegate", "MainPID")?;
    ensure!(upgraded != pid, "the old daemon runs on");
    wait_for_backends(&debian)?;
    let new = lab.stay("new", clients(40))?;

    // One that hangs is started again.
    debian.run("mkdir -p /run/systemd/system/tidegate.service.d")?;
    debian.write(
        "/run/systemd/system/tidegate.service.d/impatient.conf",
        "[Service]\nWatchdogSec=2s\n",
    )?;
    debian.run("systemctl daemon-reload && systemctl restart tidegate")?;
    let hung = debian.property("tidegate", "MainPID")?;
    debian.run(&format!("kill -STOP {hung}"))?;
    wait_until(SOON, "another daemon", || {
        let pid = debian.property("tidegate", "MainPID").ok()?;
        let is_other = pid != hung && pid != "0" && is_active(&debian, "tidegate").ok()?;
        is_other.then_some(())
    })?;
    wait_for_backends(&debian)?;

    // An administrator's changes outlive an upgrade, and so does a daemon that was stopped.
    debian.run("echo '# mine' >> /etc/tidegate/examples/tidegate-dsr.toml")?;
    debian.run("systemctl disable --now tidegate")?;
    install(&debian, &first)?;
    ensure!(!is_active(&debian, "tidegate")? && lab.has_program()?);
    let enabled = debian.try_run("systemctl is-enabled tidegate")?;
    ensure!(enabled.stdout == b"disabled\n", "{enabled:?}");
    ensure!(debian.run("tail -1 /etc/tidegate/examples/tidegate-dsr.toml")? == "# mine\n");
    debian.run("systemctl start tidegate")?;
    for load in [old, new] {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }

    // Whom an operator stops systemd does not start again.
    debian.run("tidegate stop --detach")?;
    wait_until(SOON, "systemd having seen the end", || {
        let state = debian.property("tidegate", "SubState").ok()?;
        (state == "dead").then_some(())
    })?;
    ensure!(!lab.has_program()? && lab.addresses()? == before);
    debian.run("systemctl start tidegate")?;
    wait_for_backends(&debian)?;

    debian.run("dpkg --remove tidegate")?;
    ensure!(!lab.has_program()?, "the program is left");
    ensure!(lab.addresses()? == before, "{} is left", lab.addresses()?);
    ensure!(
        debian
            .try_run("test -e /etc/tidegate/tidegate.toml")?
            .status
            .success()
    );
    debian.run("touch /etc/tidegate/key && dpkg --purge tidegate")?;
    let left = debian
        .run("find /etc/tidegate /var/lib/tidegate /sys/fs/bpf/tidegate 2>/dev/null || true")?;
    ensure!(
        left == "/etc/tidegate\n/etc/tidegate/key\n",
        "{left} is left"
    );
    Ok(())
}

#[test]
fn the_broker_is_upgraded_in_order_and_leaves_nothing() -> Result<()> {
    let mut lab = Lab::new()?;
    let mut broker = lab.brokers[0].take().context("a broker runs")?;
    broker.signal(Signal::TERM)?;
    broker.wait(SOON)?;
    let host = lab.topology.brokers()[0];
    let Some(debian) = Debian::boot(host)? else {
        return Ok(());
    };
    let work = WorkDir::new()?;
    let first = package(Product::Broker, &work, 1)?;
    let second = package(Product::Broker, &work, 2)?;
    let loopback = || host.output("ip", &["-brief", "address", "show", "dev", "lo"]);
    let before = loopback()?;

    install(&debian, &first)?;
    ensure!(!is_active(&debian, "tidegate-broker")?);
    let config = ConfigText::example(Example::Broker)?
        .set("persistence", "directory", "\"/var/lib/tidegate-broker\"")
        // Longer than the unit's own patience below: the broker has to ask for time.
        .set("stop", "grace", "\"6s\"");
    let text = std::fs::read_to_string(config.write(host, "packaged.toml")?)?;
    debian.write("/etc/tidegate/tidegate-broker.toml", &text)?;
    debian.run("mkdir -p /run/systemd/system/tidegate-broker.service.d")?;
    debian.write(
        "/run/systemd/system/tidegate-broker.service.d/impatient.conf",
        "[Service]\nTimeoutStopSec=3s\n",
    )?;
    debian.run("systemctl daemon-reload && systemctl start tidegate-broker")?;
    let started = loopback()?;
    ensure!(started.contains("172.16.40.24/32"), "no VIP: {started}");
    let pid = debian.property("tidegate-broker", "MainPID")?;
    let rights = debian.run(&format!("grep CapEff /proc/{pid}/status"))?;
    ensure!(rights.trim().ends_with("\t0000000000001000"), "{rights}");

    install(&debian, &second)?;
    ensure!(is_active(&debian, "tidegate-broker")?);
    ensure!(debian.property("tidegate-broker", "MainPID")? != pid);
    let journal = debian.run("journalctl --unit tidegate-broker --output cat --no-pager")?;
    ensure!(
        journal.contains("serving on for the grace period"),
        "{journal}"
    );
    ensure!(!journal.contains("Killing process"), "{journal}");
    ensure!(
        journal.matches("virtual address removed").count() >= 1,
        "{journal}"
    );
    debian.run("systemctl reload tidegate-broker")?;
    debian.run("tidegate-broker status")?;

    debian.run("dpkg --remove tidegate-broker")?;
    ensure!(loopback()? == before, "{} is left", loopback()?);
    ensure!(
        debian
            .try_run("test -e /var/lib/tidegate-broker/store.redb")?
            .status
            .success()
    );
    debian.run("dpkg --purge tidegate-broker")?;
    let left = debian.run(
        "find /etc/tidegate /var/lib/tidegate-broker /run/tidegate-broker 2>/dev/null || true",
    )?;
    ensure!(left.is_empty(), "{left} is left");
    Ok(())
}
