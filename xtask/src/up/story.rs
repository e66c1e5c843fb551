//! The story that `up --check` tells: clients come, the host that has the VIP dies and returns, then a
//! broker; nobody else notices.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::Args;
use crate::lab::{Binaries, interrupted, wait_until};
use crate::load::{Load, Summary};
use crate::network::{Backend, Network, name_of};

/// Longest wait for clients to connect, on a slow and busy machine.
const CONNECT: Duration = Duration::from_secs(120);

/// Beyond the promised time, before a check fails: for asking a busy machine's Tidegate what it sees.
const OBSERVING: Duration = Duration::from_secs(2);

/// Clients that publish, and as many that listen.
const TALKERS: u32 = 50;

/// Messages that many publish and each of as many listeners must get, while a broker is dead.
const DELIVERED: u32 = 500;

/// Clients that come while a broker is dead, and when it is back.
const NEWCOMERS: u32 = 200;

/// The broker that dies.
const VICTIM: usize = 1;
const VICTIM_NAME: &str = "broker2";

/// Tells the story; the last line on stdout is its figures.
pub(super) fn tell(args: &Args, programs: &Binaries) -> Result<()> {
    let mut story = Story {
        args,
        step: "network",
        figures: json!({
            "forward": name_of(args.forward),
            "balance": name_of(args.balance),
            "backend": name_of(args.backend),
            "family": if args.ipv6 { "ipv6" } else { "ipv4" },
            "clients": args.clients,
        }),
    };
    let result = story.run(programs);
    story.figures["ok"] = result.is_ok().into();
    if let Err(error) = &result {
        story.figures["failed_step"] = story.step.into();
        story.figures["error"] = format!("{error:#}").into();
    }
    println!("{}", story.figures);
    result.with_context(|| format!("step \"{}\" of the story failed", story.step))
}

struct Story<'a> {
    args: &'a Args,
    step: &'static str,
    figures: Value,
}

/// The loads that are running when the broker dies.
struct Crowd {
    clients: Load,
    listeners: Load,
    publishers: Load,
}

impl Story<'_> {
    fn run(&mut self, programs: &Binaries) -> Result<()> {
        self.begin(
            "network",
            "two brokers, two balancers, a client and a switch, a namespace each",
        );
        let mut network = Network::new(self.args.shape(), programs)?;
        network.start_pair()?;
        let result = self.play(&mut network);
        // Also, and above all, when something went wrong: even Tidegate itself, which is silent then.
        if let Ok(status) = network.status() {
            self.figures["xdp_mode"] = status.xdp_mode.into();
            self.figures["verdicts"] = json!(status.verdicts);
        }
        result
    }

    fn play(&mut self, network: &mut Network) -> Result<()> {
        let crowd = self.crowd_arrives(network)?;
        self.host_dies(network, &crowd)?;
        let victims = self.broker_dies(network)?;
        self.newcomers_avoid_it(network)?;
        self.newcomers_talk(network)?;
        self.others_lost_nothing(network, crowd, victims)?;
        self.broker_returns(network)?;
        self.brokers_are_one(network)
    }

    fn begin(&mut self, step: &'static str, words: &str) {
        self.step = step;
        if !self.args.json {
            eprintln!("{step}: {words}");
        }
    }

    fn crowd_arrives(&mut self, network: &Network) -> Result<Crowd> {
        let number = self.args.clients;
        self.begin("connect", "clients connect to the VIP and stay");
        let start = Instant::now();
        let mut clients = load(
            network,
            "clients",
            "conn",
            number,
            &["-i", "0.5", "--reconnect", "--events"],
        )?;
        clients.wait_ready(CONNECT)?;
        self.figures["connect_seconds"] = seconds(start);
        let split = wait_for_clients(network, number as usize)?;
        self.figures["split"] = json!(split);
        self.check_split(split)?;

        self.begin("talk", "more clients publish and listen, at QoS 1");
        let mut listeners = load(
            network,
            "listeners",
            "sub",
            TALKERS,
            &["-q", "1", "-t", "up/#"],
        )?;
        listeners.wait_ready(CONNECT)?;
        let talk = ["-q", "1", "-t", "up/%i", "-I", "100", "-s", "64"];
        let mut publishers = load(network, "publishers", "pub", TALKERS, &talk)?;
        publishers.wait_ready(CONNECT)?;
        let crowd = (number + 2 * TALKERS) as usize;
        wait_for_clients(network, crowd)?;
        Ok(Crowd {
            clients,
            listeners,
            publishers,
        })
    }

    fn check_split(&self, split: [usize; 2]) -> Result<()> {
        let half = self.args.clients as usize / 2;
        let allowed = self.args.balance.slack(self.args.clients);
        ensure!(
            split[0].abs_diff(half) <= allowed,
            "clients are split {split:?}, more than {allowed} off"
        );
        Ok(())
    }

    /// The balancer that has the VIP, with its host, and then comes back.
    fn host_dies(&mut self, network: &Network, crowd: &Crowd) -> Result<()> {
        self.begin(
            "fail-over",
            "the cable of lb1, which has the VIP, is pulled; lb2 takes over",
        );
        // The last to connect may be younger than what lb2 was told.
        let all = self.args.recorded(self.args.clients + 2 * TALKERS);
        network.wait_until_in_sync(all, CONNECT)?;
        let switch = network.topology().switch();
        switch.unplug(network.balancer_host(0))?;
        let start = Instant::now();
        network.wait_for_role(1, "active", CONNECT)?;
        self.figures["take_over_seconds"] = seconds(start);
        self.nobody_is_lost(network, crowd, 1)?;

        self.begin("fail-back", "lb1 is back, and takes over again");
        switch.plug(network.balancer_host(0))?;
        network.wait_for_role(0, "active", CONNECT)?;
        self.nobody_is_lost(network, crowd, 0)
    }

    /// Every client is heard from by way of a balancer, on the connection that it had.
    fn nobody_is_lost(&mut self, network: &Network, crowd: &Crowd, at: usize) -> Result<()> {
        let clients = u64::from(self.args.clients);
        // Each asks once a second, and acknowledges the answer; others talk meanwhile.
        let enough = network.packets(at)? + 4 * clients;
        wait_until(CONNECT, "packets of all clients", || {
            let is_enough = network.packets(at).is_ok_and(|packets| packets >= enough);
            (is_enough || interrupted()).then_some(())
        })?;
        wait_for_clients(network, (self.args.clients + 2 * TALKERS) as usize)?;
        let losses = crowd.clients.losses();
        ensure!(
            losses.is_empty(),
            "of {clients} sessions {} were lost: {:?}",
            losses.len(),
            losses[0]
        );
        self.figures["lost_in_fail_over"] = losses.len().into();
        if !self.args.json {
            let name = network.balancer_host(at).name();
            eprintln!("  {name} forwards: of {clients} sessions 0 were lost");
        }
        Ok(())
    }

    /// Returns how many connections died with it.
    fn broker_dies(&mut self, network: &mut Network) -> Result<usize> {
        self.begin("kill", "broker2 is killed; health checks must notice");
        let limit = network.detection_limit()?;
        let victims = network.clients()?[VICTIM];
        ensure!(victims > 0, "no client is on {VICTIM_NAME}");
        let start = Instant::now();
        network.brokers()[VICTIM].kill()?;
        wait_for_health(network, "down", limit + OBSERVING)?;
        self.figures["victims"] = victims.into();
        self.figures["detect_seconds"] = seconds(start);
        self.figures["detect_limit_seconds"] = limit.as_secs_f64().into();
        Ok(victims)
    }

    fn newcomers_avoid_it(&mut self, network: &Network) -> Result<()> {
        self.begin(
            "avoid",
            "new clients connect, none of them to the dead broker",
        );
        let before = network.status()?.backend(VICTIM_NAME)?.new_connections;
        let summary = newcomers(network)?;
        let after = network.status()?.backend(VICTIM_NAME)?.new_connections;
        summary.all_connected()?;
        ensure!(
            after == before,
            "{} new connections went to the dead broker",
            after - before
        );
        Ok(())
    }

    /// Everybody new is on the one broker that is left, so what each listener must get is known.
    fn newcomers_talk(&mut self, network: &Network) -> Result<()> {
        self.begin("deliver", "each of the new listeners gets every message");
        self.figures["delivered"] = everybody_hears_everybody(network, "deliver")?.into();
        Ok(())
    }

    /// Listeners and publishers are on both brokers.
    fn brokers_are_one(&mut self, network: &Network) -> Result<()> {
        if self.args.backend != Backend::Cluster {
            return Ok(());
        }
        self.begin(
            "cluster",
            "listeners on either broker get what is published on both",
        );
        network.wait_until_brokers_are_one()?;
        self.figures["delivered_by_both"] = everybody_hears_everybody(network, "both")?.into();
        Ok(())
    }

    fn others_lost_nothing(
        &mut self,
        network: &Network,
        crowd: Crowd,
        victims: usize,
    ) -> Result<()> {
        self.begin(
            "others",
            "the clients of the dead broker are back; the others noticed nothing",
        );
        let published = crowd.publishers.stop()?;
        let received = crowd.listeners.stop()?;
        wait_for_clients(network, self.args.clients as usize)?;
        let held = crowd.clients.stop()?;
        for summary in [&published, &received, &held] {
            summary.all_connected()?;
        }
        self.figures["reconnected"] = held.reconnected.into();
        self.figures["published"] = published.published.into();
        self.figures["received"] = received.received.into();
        self.figures["gaps"] = received.gaps.into();
        self.figures["duplicates"] = received.duplicates.into();

        ensure!(received.received > 0, "no message was received");
        ensure!(received.gaps == 0, "{} messages were lost", received.gaps);
        ensure!(
            received.duplicates == 0,
            "{} messages came twice",
            received.duplicates
        );
        let lost = held.lost + received.lost + published.lost;
        self.figures["lost"] = lost.into();
        ensure!(
            lost == victims as u64,
            "{lost} connections were lost, {victims} were on the dead broker"
        );
        Ok(())
    }

    fn broker_returns(&mut self, network: &mut Network) -> Result<()> {
        self.begin("return", "broker2 is started again; it must be used again");
        let limit = network.return_limit()?;
        network.restart_broker(VICTIM)?;
        let start = Instant::now();
        wait_for_health(network, "up", limit + OBSERVING)?;
        self.figures["return_seconds"] = seconds(start);
        let before = network.status()?.backend(VICTIM_NAME)?.new_connections;
        let summary = newcomers(network)?;
        let after = network.status()?.backend(VICTIM_NAME)?.new_connections;
        summary.all_connected()?;
        ensure!(
            after > before,
            "the broker that returned got no new connection"
        );
        Ok(())
    }
}

fn load(network: &Network, name: &str, kind: &str, count: u32, arguments: &[&str]) -> Result<Load> {
    let vip = network.vip().to_string();
    let mut all = vec!["-h", &vip];
    all.extend(arguments);
    let client = &network.topology().client;
    Load::start(client, &network.programs().broker, name, kind, count, &all)
}

/// Publishers and listeners come by the VIP; returns how many messages came, which were all.
fn everybody_hears_everybody(network: &Network, topic: &str) -> Result<u64> {
    let published = DELIVERED.to_string();
    let expected = u64::from(TALKERS) * u64::from(DELIVERED);
    let arrived = expected.to_string();
    let [filter, own] = [format!("{topic}/#"), format!("{topic}/%i")];
    let listen = ["-q", "1", "-t", &filter, "-L", &arrived];
    let name = |role: &str| format!("{topic}-{role}");
    let mut listeners = load(network, &name("hearers"), "sub", TALKERS, &listen)?;
    listeners.wait_ready(CONNECT)?;
    let talk = ["-q", "1", "-t", &own, "-I", "100", "-s", "64"];
    let talk = [&talk[..], &["--wait-all", "-L", &published]].concat();
    let sent = load(network, &name("speakers"), "pub", TALKERS, &talk)?.finish(CONNECT)?;
    sent.all_connected()?;
    let (acked, lost) = (sent.acked, sent.lost);
    ensure!(
        acked == u64::from(DELIVERED) && lost == 0,
        "{acked} of {DELIVERED} messages were acknowledged, {lost} publishers were lost"
    );
    let heard = listeners.finish(CONNECT);
    let heard = heard.context("the listeners did not get every message")?;
    // No listener has one twice and the sum is right: each has each.
    let (received, gaps, twice) = (heard.received, heard.gaps, heard.duplicates);
    ensure!(
        received == expected && gaps == 0 && twice == 0 && heard.lost == 0,
        "of {expected} messages {received} arrived, {twice} of them twice, {gaps} are missing"
    );
    Ok(received)
}

/// Clients that come and go.
fn newcomers(network: &Network) -> Result<Summary> {
    let brief = ["-i", "1", "--hold", "100ms"];
    load(network, "newcomers", "conn", NEWCOMERS, &brief)?.finish(CONNECT)
}

fn wait_for_clients(network: &Network, number: usize) -> Result<[usize; 2]> {
    let mut last = [0, 0];
    wait_until(
        CONNECT,
        &format!("{number} clients being connected"),
        || {
            last = network.clients().ok()?;
            (interrupted() || last[0] + last[1] == number).then_some(())
        },
    )
    .with_context(|| format!("clients at the brokers: {last:?}"))?;
    if interrupted() {
        bail!("interrupted");
    }
    Ok(last)
}

fn wait_for_health(network: &Network, health: &str, within: Duration) -> Result<()> {
    wait_until(within, &format!("{VICTIM_NAME} being {health}"), || {
        let status = network.status().ok()?;
        let is = status.backend(VICTIM_NAME).ok()?.health == health;
        (is || interrupted()).then_some(())
    })?;
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

fn seconds(start: Instant) -> Value {
    let rounded = (start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
    rounded.into()
}
