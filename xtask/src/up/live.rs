//! The demonstration to watch: words, a live table, and brokers that come back when killed.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::Args;
use super::standby::Standby;
use crate::exec;
use crate::lab::{interrupted, wait_until};
use crate::load::Load;
use crate::network::{Forward, Network, Status};

/// How often the table changes.
const REFRESH: Duration = Duration::from_secs(1);

/// After so long a dead broker is started again, as a service manager would, and a cable put back.
pub(super) const RESTART: Duration = Duration::from_secs(20);

const NAMES: [&str; 2] = ["broker1", "broker2"];

/// Shows until interrupted.
pub(super) fn show(args: &Args, network: &mut Network) -> Result<()> {
    let say = |words: &str| {
        if !args.json {
            eprintln!("{words}");
        }
    };
    say(&introduction(network));
    network.start_pair()?;
    let mode = network.status()?.xdp_mode;
    say(&format!(
        "Tidegate runs ({mode} XDP) and both brokers pass its MQTT health checks."
    ));
    let vip = network.vip().to_string();
    say(&format!(
        "{} clients connect to {vip}, and stay.",
        args.clients
    ));
    let client = &network.topology().client;
    let mut clients = Load::start(
        client,
        &network.programs().broker,
        "clients",
        "conn",
        args.clients,
        &["-h", &vip, "-i", "1", "--reconnect", "--events"],
    )?;
    say(&invitation(network));
    let mut dead_since = [None::<Instant>; 2];
    let mut standby = Standby::new(args.clients);
    let mut drawn = 0;
    while !interrupted() && clients.is_running() {
        watch_brokers(network, &mut dead_since, &say)?;
        let status = network.status()?;
        let connected = network.clients()?;
        let is_full = connected.iter().sum::<usize>() >= args.clients as usize;
        let is_at_rest = is_full && network.is_in_sync(args.recorded(args.clients))?;
        standby.watch(network, &clients, is_at_rest, &say)?;
        drawn = draw(args, &status, connected, drawn)?;
        let next = Instant::now() + REFRESH;
        // The table's pace, cut short by an interrupt.
        let _ = wait_until(REFRESH * 2, "the next look", || {
            (interrupted() || Instant::now() >= next).then_some(())
        });
    }
    say("Taking everything down.");
    let summary = match clients.stop() {
        // Cut short before they could say anything.
        Err(_) if drawn == 0 => return Ok(()),
        stopped => stopped?,
    };
    say(&format!(
        "Of {} clients {} failed to connect; {} lost their connection and {} of them came back.",
        summary.clients, summary.failed, summary.lost, summary.reconnected
    ));
    Ok(())
}

fn introduction(network: &Network) -> String {
    let way = match network.shape().forward {
        Forward::Dsr => {
            "The balancer passes packets on with a broker's MAC address, and brokers answer the client directly."
        }
        Forward::Tunnel => {
            "The balancer puts packets into tunnels to the brokers, which take them out by an XDP program and\n\
             answer the client directly."
        }
        Forward::Nat => {
            "The balancer rewrites addresses both ways; brokers see the balancer and know nothing of the VIP."
        }
    };
    format!(
        "The reference network is up: a client, two balancers, two brokers and a switch, a network namespace each.\n\
         lb1 has the VIP {}. lb2 stands by: it knows lb1's sessions, and takes over when lb1 falls silent.\n\
         In a while lb1 loses its cable, for you to see that.\n{way}",
        network.vip()
    )
}

fn invitation(network: &mut Network) -> String {
    let switch = network.topology().switch().netns().name().to_owned();
    let [one, two] = [0, 1].map(|index| network.brokers()[index].pid());
    let cluster = network.cluster_command().map(|command| {
        format!(
            "{}   what its brokers say of each other\n  ",
            exec::show(&command)
        )
    });
    format!(
        "Try, in another terminal, as root:\n  \
         kill -9 {two}            broker2 dies (broker1 is {one}); it is started again after {} s\n  \
         ip -n {switch} link set lb1 down    lb1 loses its cable, lb2 takes over; it is put back as late\n  \
         {}   what Tidegate says\n  {}\
         ip netns exec {} bash    a shell on the client\n\
         Ctrl-C takes everything down.\n",
        RESTART.as_secs(),
        exec::show(&network.status_command()),
        cluster.unwrap_or_default(),
        network.topology().client.netns().name(),
    )
}

/// Notices dead brokers, and starts them again in time.
fn watch_brokers(
    network: &mut Network,
    dead_since: &mut [Option<Instant>; 2],
    say: &impl Fn(&str),
) -> Result<()> {
    for (index, since) in dead_since.iter_mut().enumerate() {
        let name = NAMES[index];
        if network.brokers()[index].is_running() {
            continue;
        }
        match since {
            None => {
                say(&format!(
                    "{name} is gone. Its clients reconnect; the others notice nothing."
                ));
                *since = Some(Instant::now());
            }
            Some(at) if at.elapsed() >= RESTART => {
                network.restart_broker(index)?;
                let pid = network.brokers()[index].pid();
                say(&format!("{name} is started again, as process {pid}."));
                *since = None;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Draws over the last table on a terminal, below it elsewhere; returns the lines drawn.
fn draw(args: &Args, status: &Status, connected: [usize; 2], drawn: usize) -> Result<usize> {
    let text = if args.json {
        line(status, connected)
    } else {
        table(status, connected)
    };
    let mut out = std::io::stdout().lock();
    let over = !args.json && out.is_terminal() && drawn > 0;
    if over {
        write!(out, "\x1b[{drawn}A\x1b[J")?;
    }
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(text.lines().count())
}

fn table(status: &Status, connected: [usize; 2]) -> String {
    let mut text = format!(
        "{:<10}{:<10}{:>10}{:>12}{:>14}{:>14}\n",
        "broker", "health", "share", "clients", "connections", "packets"
    );
    for backend in &status.backends {
        let clients = NAMES.iter().position(|name| *name == backend.name);
        let clients = clients.map_or(0, |index| connected[index]);
        let _ = writeln!(
            text,
            "{:<10}{:<10}{:>9.1}%{clients:>12}{:>14}{:>14}  {}",
            backend.name,
            backend.health,
            backend.share * 100.0,
            backend.new_connections,
            backend.packets,
            backend.reason.as_deref().unwrap_or_default(),
        );
    }
    text
}

fn line(status: &Status, connected: [usize; 2]) -> String {
    let backends: Vec<_> = status
        .backends
        .iter()
        .map(|backend| {
            json!({
                "name": backend.name,
                "health": backend.health,
                "share": backend.share,
                "packets": backend.packets,
                "new_connections": backend.new_connections,
            })
        })
        .collect();
    let line = json!({
        "clients": connected,
        "backends": backends,
        "verdicts": status.verdicts,
    });
    format!("{line}\n")
}
