//! Clients that connect to the other node again and again, while their last connection is open, under
//! traffic that is for them: no client id is to have two live connections, and nothing may be lost.

mod race;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::line::{
    Hello, Line, Message, Packet, Start, TAKEN_OVER, Version, answer, unexpected,
};
use crate::lab::{Binaries, interrupted, wait_until};

use super::super::verdict::{Samples, Verdict};
use super::nodes::Nodes;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is acknowledged has come within this once the traffic is over.
const DRAIN: Duration = Duration::from_secs(30);

/// Each has a part of the clients, and moves one at a time.
const WORKERS: u32 = 8;

/// Between two bursts of a publisher.
const TURN: Duration = Duration::from_millis(10);

/// Messages that a publisher has under way: fewer than brokers let a client have.
const WINDOW: usize = 80;

/// How much to measure.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Args {
    /// Clients that go to and fro.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=8_000))]
    clients: u32,
    /// Moves a second of all of them.
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    moves: u32,
    /// Of a hundred moves, those of clients that connect to both nodes at once: one has to win.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100))]
    races: u32,
    /// Messages a second for all of them, of QoS 1, half of them published on each node.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// For how long.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
}

/// A message: which of the publishers has sent it, and its number there.
type Number = (u8, u32);

/// What was acknowledged, by the client that it is for.
type Taken = BTreeMap<u32, Vec<Number>>;

/// What clients went through.
#[derive(Debug, Default)]
struct Seen {
    let_in: Samples,
    races: u64,
    /// Of both connections of a race, those that were not let in.
    refused: u64,
    /// Races that nobody won.
    vain: u64,
    /// Connections that had ended when the next one of their client was let in.
    before: u64,
    /// How much later others were seen to end.
    late: Samples,
    /// Messages that came on such a connection meanwhile.
    stray: u64,
    /// Connections that ended without being told why.
    untold: u64,
    /// Connections that had not ended at all.
    live: u64,
    /// Sessions that the other node did not know.
    strangers: u64,
}

/// Measures and prints.
pub(super) fn run(args: &Args, programs: &Binaries) -> Result<()> {
    let nodes = Nodes::start(2, programs)?;
    let addresses = [nodes.address(0), nodes.address(1)];
    let (seen, taken, roamers) = nodes.inside(|| roam(args, addresses))?;
    let acknowledged: usize = taken.values().map(Vec::len).sum();
    let lost: usize = roamers
        .iter()
        .map(|roamer| roamer.lost(&taken).count())
        .sum();
    let repeats: u64 = roamers.iter().map(|roamer| roamer.repeats).sum();
    let mut verdict = Verdict::default();
    verdict.note("clients", "clients", args.clients);
    verdict.note_times("connack_ms", "moves, CONNECT to CONNACK", &seen.let_in);
    verdict.note("races", "and races to both nodes", seen.races);
    verdict.note(
        "refused",
        "of two not let in, the rest closed",
        seen.refused,
    );
    verdict.note("vain", "that nobody won", seen.vain);
    verdict.note(
        "ended_before",
        "last connections ended before CONNACK",
        seen.before,
    );
    verdict.note_times("ended_late_ms", "were seen to end later", &seen.late);
    verdict.note("stray", "messages on these meanwhile", seen.stray);
    verdict.note("untold", "ended without reason 0x8E", seen.untold);
    verdict.note("live", "ids with two live connections", seen.live);
    verdict.note("sessions_lost", "sessions lost", seen.strangers);
    verdict.note("acknowledged", "messages acknowledged", acknowledged);
    verdict.note("lost", "of these lost", lost);
    verdict.note("repeats", "came twice, as QoS 1 may", repeats);
    let Seen {
        untold,
        live,
        strangers,
        vain,
        ..
    } = seen;
    verdict.complain_if(vain > 0, format!("{vain} races were won by nobody"));
    verdict.complain_if(live > 0, format!("{live} ids had two live connections"));
    verdict.complain_if(
        untold > 0,
        format!("{untold} connections ended without reason 0x8E"),
    );
    verdict.complain_if(strangers > 0, format!("{strangers} sessions were lost"));
    verdict.complain_if(lost > 0, format!("{lost} acknowledged messages were lost"));
    verdict.complain_if(acknowledged == 0, "nothing was published");
    verdict.tell(args.json)
}

fn roam(args: &Args, addresses: [SocketAddr; 2]) -> Result<(Seen, Taken, Vec<Roamer>)> {
    let mut roamers = Vec::new();
    for number in 0..args.clients {
        ensure!(!interrupted(), "interrupted");
        let roamer = Roamer::connect(addresses, number);
        roamers.push(roamer.with_context(|| format!("client {number} cannot begin"))?);
    }
    let is_over = AtomicBool::new(false);
    let part = args.clients.div_ceil(WORKERS) as usize;
    let workers = roamers.chunks(part).len() as u32;
    let pace = Duration::from_secs(1) * workers / args.moves;
    let (seen, taken) = thread::scope(|scope| {
        let moving: Vec<_> = roamers
            .chunks_mut(part)
            .map(|part| scope.spawn(|| keep_moving(part, addresses, pace, args.races, &is_over)))
            .collect();
        let publishing: Vec<_> = [0, 1]
            .into_iter()
            .map(|publisher| {
                let address = addresses[usize::from(publisher)];
                let is_over = &is_over;
                scope.spawn(move || publish(publisher, address, args, is_over))
            })
            .collect();
        let length = Duration::from_secs(u64::from(args.seconds));
        let until = Instant::now() + length;
        let has_ended = || {
            let ended = moving.iter().any(|worker| worker.is_finished())
                || publishing.iter().any(|publisher| publisher.is_finished());
            (ended || interrupted() || Instant::now() >= until).then_some(())
        };
        let waited = wait_until(length + PATIENCE, "the end", has_ended);
        is_over.store(true, Ordering::Relaxed);
        waited?;
        let mut taken = Taken::new();
        for publisher in publishing {
            let published = publisher.join().map_err(|_panic| anyhow!("it panicked"));
            for (client, numbers) in published?.context("a publisher had to give up")? {
                taken.entry(client).or_default().extend(numbers);
            }
        }
        let mut seen = Seen::default();
        for worker in moving {
            let moved = worker.join().map_err(|_panic| anyhow!("it panicked"));
            seen.add(&moved?.context("clients had to give up")?);
        }
        anyhow::Ok((seen, taken))
    })?;
    ensure!(!interrupted(), "interrupted");
    // What is lost is told in the end.
    let _ = wait_until(DRAIN, "all messages", || {
        let heard = roamers.iter_mut().try_for_each(Roamer::hear);
        let mut all = roamers.iter();
        (heard.is_err() || all.all(|roamer| roamer.lost(&taken).next().is_none())).then_some(())
    });
    Ok((seen, taken, roamers))
}

/// A client that goes to and fro.
struct Roamer {
    number: u32,
    client_id: String,
    line: Line,
    /// Where it is.
    node: usize,
    received: BTreeSet<Number>,
    repeats: u64,
}

impl Roamer {
    fn connect(addresses: [SocketAddr; 2], number: u32) -> io::Result<Self> {
        let client_id = format!("roamer-{number}");
        let node = number as usize % 2;
        let hello = Hello::again(Version::V5, &client_id);
        let (mut line, _is_present) = Line::connect(addresses[node], &hello, PATIENCE)?;
        line.subscribe(1, [(&*topic(number), 1)])?;
        line.expect(0x90, PATIENCE, unexpected)?;
        Ok(Self {
            number,
            client_id,
            line,
            node,
            received: BTreeSet::new(),
            repeats: 0,
        })
    }

    /// Takes what is there.
    fn hear(&mut self) -> io::Result<()> {
        while let Some(packet) = self.line.next_here()? {
            match packet.farewell() {
                Some(reason) => {
                    let text = format!("{} was sent away: {reason:#x}", self.client_id);
                    return Err(io::Error::other(text));
                }
                None => {
                    if let Some(id) = self.take(&packet) {
                        self.line.send(&answer(0x40, id))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes a message; its identifier if it is one.
    fn take(&mut self, packet: &Packet) -> Option<u16> {
        let message = self.line.decode(packet)?;
        if let Some((&publisher, number)) = message.payload.split_first()
            && let Ok(number) = number.try_into().map(u32::from_be_bytes)
        {
            let is_new = self.received.insert((publisher, number));
            self.repeats += u64::from(!is_new);
        }
        Some(message.id)
    }

    /// Connects to the other node, and sees the connection to this one end.
    fn go(&mut self, addresses: [SocketAddr; 2], seen: &mut Seen) -> io::Result<()> {
        let node = 1 - self.node;
        let mut new = Line::open(addresses[node], PATIENCE)?;
        let begun = Instant::now();
        let hello = Hello::again(Version::V5, &self.client_id);
        let is_present = new.greet(&hello, PATIENCE)?;
        seen.let_in.push(begun.elapsed());
        seen.strangers += u64::from(!is_present);
        let old = std::mem::replace(&mut self.line, new);
        self.node = node;
        self.say_goodbye(old, seen);
        Ok(())
    }

    /// Sees a connection end that a newer one has taken the place of.
    fn say_goodbye(&mut self, mut old: Line, seen: &mut Seen) {
        let let_in = Instant::now();
        if let Some(end) = self.see_off(&mut old, Line::next_here) {
            seen.before += 1;
            seen.untold += u64::from(end != End::Told);
            return;
        }
        let had = self.received.len() as u64 + self.repeats;
        let end = self.see_off(&mut old, |line| line.next(PATIENCE));
        seen.stray += self.received.len() as u64 + self.repeats - had;
        match end {
            Some(end) => {
                seen.late.push(let_in.elapsed());
                seen.untold += u64::from(end != End::Told);
            }
            None => seen.live += 1,
        }
    }

    /// Takes what comes on a connection that is to end; `None` if it does not.
    fn see_off(
        &mut self,
        old: &mut Line,
        mut next: impl FnMut(&mut Line) -> io::Result<Option<Packet>>,
    ) -> Option<End> {
        loop {
            match next(old) {
                Ok(Some(packet)) if packet.farewell() == Some(TAKEN_OVER) => {
                    return Some(End::Told);
                }
                // Without an acknowledgement: it comes again.
                Ok(Some(packet)) => drop(self.take(&packet)),
                Ok(None) => return None,
                Err(_closed) => return Some(End::Cut),
            }
        }
    }

    /// What of its messages has not come.
    fn lost<'a>(&'a self, taken: &'a Taken) -> impl Iterator<Item = &'a Number> {
        let numbers = taken.get(&self.number).into_iter().flatten();
        numbers.filter(|number| !self.received.contains(number))
    }
}

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With a DISCONNECT that says why.
    Told,
    Cut,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        let Self {
            let_in,
            races,
            refused,
            vain,
            before,
            late,
            stray,
            untold,
            live,
            strangers,
        } = other;
        self.let_in.extend(let_in);
        self.races += races;
        self.refused += refused;
        self.vain += vain;
        self.before += before;
        self.late.extend(late);
        self.stray += stray;
        self.untold += untold;
        self.live += live;
        self.strangers += strangers;
    }
}

fn topic(client: u32) -> String {
    format!("for/{client}")
}

/// Has one of these clients after the other move, so long after the one before.
fn keep_moving(
    roamers: &mut [Roamer],
    addresses: [SocketAddr; 2],
    pace: Duration,
    races: u32,
    is_over: &AtomicBool,
) -> io::Result<Seen> {
    let mut seen = Seen::default();
    let mut due = Instant::now();
    let races = races as usize;
    let mut turn = 0;
    while !is_over.load(Ordering::Relaxed) {
        for index in ready(roamers, due.saturating_duration_since(Instant::now()))? {
            roamers[index].hear()?;
        }
        if Instant::now() >= due {
            // Who is late does not hurry.
            due = Instant::now().max(due + pace);
            let roamer = &mut roamers[turn % roamers.len()];
            if turn % 100 < races {
                roamer.race(addresses, &mut seen)?;
            } else {
                roamer.go(addresses, &mut seen)?;
            }
            turn += 1;
        }
    }
    Ok(seen)
}

/// Which of them have something to hear; waits for that no longer than this.
fn ready(roamers: &[Roamer], within: Duration) -> io::Result<Vec<usize>> {
    let lines = roamers.iter();
    let mut fds: Vec<_> = lines
        .map(|roamer| PollFd::new(&roamer.line, PollFlags::IN))
        .collect();
    let within = within.min(Duration::from_millis(100));
    let timeout = Timespec::try_from(within).map_err(io::Error::other)?;
    poll(&mut fds, Some(&timeout))?;
    let ready = fds.iter().enumerate();
    let ready = ready.filter(|(_index, fd)| !fd.revents().is_empty());
    Ok(ready.map(|(index, _fd)| index).collect())
}

/// Publishes to each client in turn, half of the rate, until it is over and all is acknowledged.
fn publish(
    publisher: u8,
    address: SocketAddr,
    args: &Args,
    is_over: &AtomicBool,
) -> io::Result<Taken> {
    let client_id = format!("publisher-{publisher}");
    let hello = Hello {
        start: Start::Clean,
        ..Hello::again(Version::V5, &client_id)
    };
    let (mut line, _is_present) = Line::connect(address, &hello, PATIENCE)?;
    let mut taken = Taken::new();
    let mut open: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    let begun = Instant::now();
    let mut number = 0_u32;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        if is_last && open.is_empty() {
            return Ok(taken);
        }
        let due = begun.elapsed().as_secs_f64() * f64::from(args.rate) / 2.0;
        while !is_last && f64::from(number) < due && open.len() < WINDOW {
            // The publishers begin at different clients.
            let client = (number + u32::from(publisher) * args.clients / 2) % args.clients;
            let id = (number % 60_000) as u16 + 1;
            let payload = [&[publisher][..], &number.to_be_bytes()].concat();
            let message = line.encode(&Message {
                topic: &topic(client),
                payload: &payload,
                qos: 1,
                is_repeated: false,
                id,
            });
            line.send(&message)?;
            open.insert(id, (client, number));
            number += 1;
        }
        if is_last && begun.elapsed() > Duration::from_secs(u64::from(args.seconds)) + PATIENCE {
            return Err(io::Error::other(format!("{} messages hang", open.len())));
        }
        while let Some(packet) = line.next_here()? {
            let (client, number) = match (packet.first, open.remove(&packet.id())) {
                (0x40, Some(message)) => message,
                (first, _) => return Err(io::Error::other(format!("packet {first:#x}"))),
            };
            taken.entry(client).or_default().push((publisher, number));
        }
        thread::sleep(TURN);
    }
}
