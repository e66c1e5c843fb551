//! The VIP is pinged a thousand times a second while the role moves.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::{Answers, Pinger, wait_until};

const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 40, 24);

/// Hop limits by which answers of the two hosts are told apart.
const HOP_LIMITS: [u8; 2] = [201, 202];

/// Answers in a row by which a host is known to have the address.
const STEADY: usize = 100;

/// A busy machine loses pings by itself: of so many switches one without is enough. Without the
/// addresses being in two places for a moment each of them loses some.
const ATTEMPTS: usize = 5;

const PARTITIONS: usize = 5;

/// Two nodes that serve, and who asks them.
fn serving() -> Result<(Pair, Pinger)> {
    let pair = Pair::serving()?;
    for (at, limit) in HOP_LIMITS.iter().enumerate() {
        let netns = pair.host(at).netns();
        netns.sysctl("net.ipv4.ip_default_ttl", &limit.to_string())?;
    }
    let pinger = Pinger::open(&pair.lab.topology.client, VIP)?;
    Ok((pair, pinger))
}

/// Waits until one host alone answers, and all questions.
fn wait_for_answers(answers: &Answers, at: usize) -> Result<()> {
    let since = Instant::now();
    wait_until(SOON, &format!("steady answers of node {at}"), || {
        let is_his = answers.are_steady(HOP_LIMITS[at], STEADY, since);
        is_his.then_some(())
    })?;
    Ok(())
}

/// Has the first node hand over and take the role back until that has once lost no ping.
fn hand_over(
    pair: &mut Pair,
    pinger: &Pinger,
    leave: impl Fn(&mut Pair) -> Result<()>,
    come_back: impl Fn(&mut Pair) -> Result<()>,
) -> Result<()> {
    let mut losses = Vec::new();
    for _ in 0..ATTEMPTS {
        let ((from, until), record) = pinger.ask(|answers| {
            wait_for_answers(answers, 0)?;
            let from = Instant::now();
            leave(pair)?;
            wait_for_answers(answers, 1)?;
            let until = Instant::now();
            come_back(pair)?;
            pair.wait_for_roles(["active", "backup"])?;
            wait_for_answers(answers, 0)?;
            Ok((from, until))
        })?;
        let lost = record.lost();
        let lost = lost.iter().filter(|at| (from..until).contains(*at));
        losses.push(lost.count());
        if losses.last() == Some(&0) {
            return Ok(());
        }
    }
    anyhow::bail!("each switch has lost pings: {losses:?}")
}

#[test]
fn a_release_loses_no_ping() -> Result<()> {
    let (mut pair, pinger) = serving()?;
    let order = |order: &'static str| {
        move |pair: &mut Pair| pair.tell(0, &["vrrp", order, "front"]).map(drop)
    };
    hand_over(&mut pair, &pinger, order("release"), order("resume"))
}

#[test]
fn a_stop_loses_no_ping() -> Result<()> {
    let (mut pair, pinger) = serving()?;
    let stop = |pair: &mut Pair| pair.process(0)?.signal(Signal::TERM);
    let start = |pair: &mut Pair| {
        let status = pair.process(0)?.wait(SOON)?;
        ensure!(status.success(), "{status}");
        pair.start(0, &node(&router(200, "")))
    };
    hand_over(&mut pair, &pinger, stop, start)
}

#[test]
fn the_vip_answers_whenever_a_silent_partition_has_healed() -> Result<()> {
    let (pair, pinger) = serving()?;
    let (healed, _record) = pinger.ask(|answers| {
        for _ in 0..PARTITIONS {
            wait_for_answers(answers, 0)?;
            pair.part(true)?;
            pair.wait_for_roles(["active", "active"])?;
            // Whoever has announced last is believed.
            wait_for_answers(answers, 1)?;
            pair.part(false)?;
            wait_for_answers(answers, 0)?;
            pair.wait_for_roles(["active", "backup"])?;
            wait_for_answers(answers, 0)?;
        }
        Ok(pair.router(0)?.adverts.contests)
    })?;
    ensure!(healed > 0, "the two never met");
    Ok(())
}
