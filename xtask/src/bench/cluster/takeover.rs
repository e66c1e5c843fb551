//! A client connects to one node while its session is on the other: how long until it is let in with
//! its session, and until it has what waited for it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::line::{
    Hello, LAST_FAREWELL, Line, Message, Start, TAKEN_OVER, Version, answer, unexpected,
};
use crate::lab::{Binaries, interrupted};

use super::super::verdict::{Samples, Verdict};
use super::nodes::Nodes;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages that a publisher has under way: fewer than brokers let a client have.
const WINDOW: u32 = 50;

/// How much to measure.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Takeovers of each kind.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    samples: u32,
    /// Messages that wait for a client that is away, separated by commas; with 0 it is connected.
    #[arg(long, value_delimiter = ',', default_value = "0,1,100", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    queued: Vec<u32>,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    let_in: Samples,
    complete: Samples,
    /// Sessions that the other node did not know.
    strangers: u32,
    missing: u32,
    /// Connections that were not told why they ended.
    untold: u32,
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let nodes = Nodes::start(2, programs)?;
    let mut verdict = Verdict::default();
    for &queued in &args.queued {
        let seen = nodes.inside(|| {
            let addresses = [nodes.address(0), nodes.address(1)];
            let mut seen = Seen::default();
            for number in 0..args.samples {
                ensure!(!interrupted(), "interrupted");
                let taken = take_over(addresses, number, queued, &mut seen);
                taken.with_context(|| format!("takeover {number} with {queued} messages"))?;
            }
            Ok(seen)
        })?;
        verdict.begin(if queued == 0 {
            "connected".to_owned()
        } else {
            format!("away_with_{queued}")
        });
        verdict.note_times("connack_ms", "CONNECT to CONNACK", &seen.let_in);
        if queued > 0 {
            verdict.note_times("complete_ms", "CONNECT to the last message", &seen.complete);
        }
        let Seen {
            strangers,
            missing,
            untold,
            ..
        } = seen;
        verdict.note("sessions_lost", "sessions lost", strangers);
        verdict.note("messages_lost", "messages lost", missing);
        verdict.complain_if(strangers > 0, format!("{strangers} sessions were lost"));
        verdict.complain_if(missing > 0, format!("{missing} messages were lost"));
        verdict.complain_if(
            untold > 0,
            format!("{untold} connections ended without reason 0x8E"),
        );
    }
    verdict.tell(args.json)
}

fn take_over(
    [one, two]: [SocketAddr; 2],
    number: u32,
    queued: u32,
    seen: &mut Seen,
) -> io::Result<()> {
    let (from, to) = if number.is_multiple_of(2) {
        (one, two)
    } else {
        (two, one)
    };
    let client_id = format!("client-{queued}-{number}");
    let hello = Hello::again(Version::V5, &client_id);
    let (mut old, _is_present) = Line::connect(from, &hello, PATIENCE)?;
    let topic = format!("for/{client_id}");
    old.subscribe(1, [(&*topic, 1)])?;
    old.expect(0x90, PATIENCE, unexpected)?;
    let old = if queued == 0 {
        Some(old)
    } else {
        drop(old);
        publish(from, &topic, queued)?;
        None
    };
    let mut new = Line::open(to, PATIENCE)?;
    let begun = Instant::now();
    let is_present = new.greet(&hello, PATIENCE)?;
    seen.let_in.push(begun.elapsed());
    seen.strangers += u32::from(!is_present);
    if let Some(mut old) = old {
        let told = old.expect(0xe0, PATIENCE, unexpected);
        let is_told = told.is_ok_and(|packet| packet.farewell() == Some(TAKEN_OVER));
        seen.untold += u32::from(!is_told);
    } else {
        let come = receive(&mut new, queued)?;
        seen.complete.push(begun.elapsed());
        seen.missing += queued - come;
    }
    new.send(&LAST_FAREWELL)
}

/// Publishes so many messages and waits until all are acknowledged.
fn publish(address: SocketAddr, topic: &str, count: u32) -> io::Result<()> {
    let hello = Hello {
        start: Start::Clean,
        ..Hello::again(Version::V5, topic)
    };
    let (mut line, _is_present) = Line::connect(address, &hello, PATIENCE)?;
    let mut acknowledged = 0;
    for number in 0..count {
        let message = line.encode(&Message {
            topic,
            payload: &number.to_be_bytes(),
            qos: 1,
            is_repeated: false,
            id: number as u16 + 1,
        });
        line.send(&message)?;
        if number + 1 >= acknowledged + WINDOW {
            line.expect(0x40, PATIENCE, unexpected)?;
            acknowledged += 1;
        }
    }
    for _ in acknowledged..count {
        line.expect(0x40, PATIENCE, unexpected)?;
    }
    Ok(())
}

/// Takes messages until so many different ones have come, in order; how many have.
fn receive(line: &mut Line, count: u32) -> io::Result<u32> {
    let mut next = 0;
    while next < count {
        let Some(packet) = line.next(PATIENCE)? else {
            return Ok(next);
        };
        let Some(message) = line.decode(&packet) else {
            unexpected(line, packet)?;
            continue;
        };
        // What was under way when its connection broke comes again.
        if message.payload == next.to_be_bytes() {
            next += 1;
        }
        let id = message.id;
        line.send(&answer(0x40, id))?;
    }
    Ok(next)
}
