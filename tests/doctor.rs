//! `tidegate doctor` on hosts that are well and on one that is not.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::Family;

#[derive(Debug, Deserialize)]
struct Finding {
    level: String,
    subject: String,
    message: String,
    advice: Option<String>,
}

/// What it finds on the host of a node, and its exit code.
fn examine(pair: &Pair, at: usize) -> Result<(Vec<Finding>, i32)> {
    let host = pair.host(at);
    let mut command = host.command(&pair.lab.programs.tidegate)?;
    command.current_dir(host.work_dir());
    command.args(["doctor", "--json", "--config", "tidegate.toml"]);
    let output = command.output()?;
    let findings = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok((findings, output.status.code().context("no exit code")?))
}

/// Those of a subject, as levels and messages.
fn about<'a>(findings: &'a [Finding], subject: &str) -> Vec<(&'a str, &'a str)> {
    let findings = findings.iter().filter(|it| it.subject == subject);
    findings
        .map(|it| (it.level.as_str(), it.message.as_str()))
        .collect()
}

/// Whether there is one of `level` about `subject` with these words in it.
fn has(findings: &[Finding], level: &str, subject: &str, words: &str) -> bool {
    let mut found = about(findings, subject).into_iter();
    found.any(|(at, message)| at == level && message.contains(words))
}

#[test]
fn a_healthy_pair_is_found_well() -> Result<()> {
    let pair = Pair::serving()?;
    for at in [0, 1] {
        let (findings, code) = examine(&pair, at)?;
        // Whether its clock is kept and which settings are usual is the machine's own.
        let is_machines =
            |it: &Finding| ["clock", "settings", "jit"].contains(&it.subject.as_str());
        let bad: Vec<_> = findings
            .iter()
            .filter(|it| it.level != "ok" && !is_machines(it))
            .collect();
        ensure!(bad.is_empty() && code < 2, "{code}: {bad:#?}");
        let roles = ["is active", "172.16.40.22 is active"];
        ensure!(has(&findings, "ok", "vrrp", roles[at]), "{findings:#?}");
        ensure!(about(&findings, "backend").len() == 2, "{findings:#?}");
        ensure!(
            has(&findings, "ok", "program", "it is on eth0"),
            "{findings:#?}"
        );
        let arp = ["is here, and nobody else answers", "172.16.40.24 is at "];
        ensure!(has(&findings, "ok", "arp", arp[at]), "{findings:#?}");
        for broker in ["mqtt/broker1", "mqtt/broker2"] {
            let words = format!("{broker} takes clients of 172.16.40.24");
            ensure!(has(&findings, "ok", "dsr", &words), "{findings:#?}");
        }
    }
    Ok(())
}

#[test]
fn what_is_broken_is_found_and_told_with_advice() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_role(0, "active")?;
    // One broker does not hold the VIP, the other one answers for it on the wire, and so does another
    // host, which holds it too.
    let [one, two] = pair.lab.topology.brokers();
    one.netns().ip(&["address del 172.16.40.24/32 dev lo"])?;
    for scope in ["all", "eth0", "default"] {
        two.netns()
            .sysctl(&format!("net.ipv4.conf.{scope}.arp_ignore"), "0")?;
    }
    let (findings, code) = examine(&pair, 0)?;
    ensure!(code == 2, "{code}: {findings:#?}");
    ensure!(
        has(
            &findings,
            "error",
            "arp",
            "mqtt/broker2 answers for 172.16.40.24"
        ),
        "{findings:#?}"
    );
    ensure!(
        has(&findings, "error", "dsr", "mqtt/broker1 does not answer"),
        "{findings:#?}"
    );
    ensure!(
        has(&findings, "ok", "dsr", "mqtt/broker2 takes clients"),
        "{findings:#?}"
    );
    ensure!(
        findings
            .iter()
            .all(|it| it.advice.is_some() == (it.level != "ok")),
        "{findings:#?}"
    );
    two.netns().sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
    pair.host(1).add_address(Family::V4.vip(), 24, "eth0")?;
    let (findings, code) = examine(&pair, 0)?;
    ensure!(
        code == 2 && has(&findings, "error", "arp", "answers for it, too"),
        "{findings:#?}"
    );
    // Without a daemon the backends are asked by the command itself.
    pair.tell(0, &["stop", "--detach"])?;
    pair.lab.kill_broker(1)?;
    let (findings, _) = examine(&pair, 0)?;
    ensure!(about(&findings, "daemon").len() == 1, "{findings:#?}");
    ensure!(
        has(&findings, "ok", "backend", "mqtt/broker1 is reached"),
        "{findings:#?}"
    );
    ensure!(
        has(
            &findings,
            "warning",
            "backend",
            "mqtt/broker2 is not reached"
        ),
        "{findings:#?}"
    );
    ensure!(has(&findings, "ok", "program", "is free"), "{findings:#?}");
    // The place on the interface is another program's.
    let mut command = pair.host(0).command(&pair.lab.programs.tidegate)?;
    command.args(["decap", "--interface", "eth0", "--mode", "generic"]);
    command.args(["--from", "172.16.40.0/24", "--vip", "172.16.40.24"]);
    let mut other = pair.host(0).spawn("decap", command)?;
    other.wait_for_line("unpacks", SOON)?;
    let (findings, code) = examine(&pair, 0)?;
    let words = "a program of others is on eth0: tidegate_decap";
    ensure!(
        code == 2 && has(&findings, "error", "program", words),
        "{findings:#?}"
    );
    Ok(())
}
