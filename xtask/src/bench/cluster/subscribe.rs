//! A subscription is confirmed by one node, and a message for it published on another one at that
//! moment: it has to come.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::client::line::{Hello, Line, Message, Start, Version, acknowledge};
use crate::lab::{Binaries, interrupted};

use super::super::verdict::{Samples, Verdict};
use super::nodes::Nodes;

/// For an answer; a message that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Subscriptions, each to a filter of its own; every other message is of QoS 1, the rest of QoS 0.
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    tries: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// What was seen.
#[derive(Debug, Default)]
struct Seen {
    confirmed: Samples,
    arrived: Samples,
    lost: Vec<u32>,
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let nodes = Nodes::start(2, programs)?;
    let seen = nodes.inside(|| {
        let mut pair = Pair::connect(&nodes)?;
        let mut seen = Seen::default();
        for number in 0..args.tries {
            ensure!(!interrupted(), "interrupted");
            let tried = pair.attempt(number, &mut seen);
            tried.with_context(|| format!("attempt {number}"))?;
        }
        Ok(seen)
    })?;
    let lost = seen.lost.len();
    let mut verdict = Verdict::default();
    verdict.note("tries", "subscriptions on one node", args.tries);
    verdict.note("lost", "messages of another node lost", lost);
    verdict.note_times("suback_ms", "SUBSCRIBE to SUBACK", &seen.confirmed);
    verdict.note_times("arrival_ms", "SUBACK to the message", &seen.arrived);
    verdict.complain_if(
        lost > 0,
        format!("{lost} messages were lost, of attempts {:?}", seen.lost),
    );
    verdict.tell(args.json)
}

/// A publisher on one node and a subscriber on the other one.
struct Pair {
    publisher: Line,
    subscriber: Line,
}

impl Pair {
    fn connect(nodes: &Nodes) -> Result<Self> {
        let connect = |node, client_id| {
            let hello = Hello {
                start: Start::Clean,
                ..Hello::again(Version::V5, client_id)
            };
            let connected = Line::connect(nodes.address(node), &hello, PATIENCE);
            let (line, _is_present) = connected.context("cannot connect")?;
            anyhow::Ok(line)
        };
        Ok(Self {
            publisher: connect(0, "publisher")?,
            subscriber: connect(1, "subscriber")?,
        })
    }

    fn attempt(&mut self, number: u32, seen: &mut Seen) -> io::Result<()> {
        let topic = format!("attempt/{number}");
        let Self {
            publisher,
            subscriber,
        } = self;
        let begun = Instant::now();
        subscriber.subscribe(1, [(&*topic, 1)])?;
        // What comes late of an attempt before this one was lost.
        subscriber.expect(0x90, PATIENCE, acknowledge)?;
        let confirmed = Instant::now();
        let qos = u8::from(number.is_multiple_of(2));
        let message = publisher.encode(&Message {
            topic: &topic,
            payload: &number.to_be_bytes(),
            qos,
            is_repeated: false,
            id: 1,
        });
        publisher.send(&message)?;
        seen.confirmed.push(confirmed - begun);
        match subscriber.expect(0x30 | qos << 1, PATIENCE, acknowledge) {
            Ok(packet) => {
                seen.arrived.push(confirmed.elapsed());
                acknowledge(subscriber, packet)?;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => seen.lost.push(number),
            Err(error) => return Err(error),
        }
        if qos > 0 {
            publisher.expect(0x40, PATIENCE, acknowledge)?;
        }
        subscriber.unsubscribe(2, &topic)?;
        subscriber.expect(0xb0, PATIENCE, acknowledge)?;
        Ok(())
    }
}
