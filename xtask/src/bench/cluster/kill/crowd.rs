//! The clients: those that publish, those that receive, one that is away, and those with a will.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::line::{Hello, Line, Start, Version};
use crate::client::{self, Dice, PATIENCE, Pace, Publisher, Story, Subscriber, Taken};
use crate::lab::{Door, interrupted, wait_until};

use super::site::Site;
use super::{Args, End, Ends};

/// Where wills are published.
pub(super) const WILLS: &str = "q1/will";

/// Between two bursts of a publisher.
const TURN: Duration = Duration::from_millis(20);

/// Of the publisher for the client that is away: a few messages a second.
const SLOW: Pace = Pace {
    burst: 1,
    turn: Duration::from_millis(100),
};

/// Messages that a publisher has under way at most.
const WINDOW: usize = 500;

/// Before a node ends, and before it comes back, at least.
const PAUSE: Duration = Duration::from_millis(200);

/// All clients whose sessions are kept.
pub(super) struct Crowd {
    args: Args,
    door: Door,
    /// Messages that were acknowledged so far.
    acknowledged: Arc<AtomicU64>,
    publishers: Vec<(Publisher, Pace)>,
    subscribers: Vec<Subscriber>,
    absent: Subscriber,
}

impl Crowd {
    /// Has all of them connect and subscribe.
    pub(super) fn new(args: Args, site: &Site) -> Result<Self> {
        let door = site.door()?;
        let way = site.way(Duration::from_millis(args.patience));
        let acknowledged = Arc::default();
        let of_one = f64::from(args.rate) / f64::from(args.publishers);
        let pace = Pace {
            burst: (of_one * TURN.as_secs_f64()).round().max(1.0) as usize,
            turn: TURN,
        };
        let publishers = (0..args.publishers)
            .map(|number| (number, pace))
            .chain([(args.publishers, SLOW)])
            .map(|(number, pace)| {
                let mut publisher = Publisher::new(way.clone(), number, 1, WINDOW);
                publisher.count_in(&acknowledged);
                (publisher, pace)
            })
            .collect();
        let readers = (0..args.readers).map(|reader| {
            let topics = (reader..args.publishers).step_by(args.readers as usize);
            let topics: Vec<_> = topics.map(|publisher| format!("q1/{publisher}")).collect();
            let filters: Vec<_> = topics.iter().map(|topic| (&**topic, 1)).collect();
            Subscriber::new(way.clone(), &format!("reader-{reader}"), &filters)
        });
        let watcher = Subscriber::new(way.clone(), "watcher", &[(WILLS, 1)]);
        let slow = format!("q1/{}", args.publishers);
        let mut crowd = Self {
            args,
            door,
            acknowledged,
            publishers,
            subscribers: readers.chain([watcher]).collect(),
            absent: Subscriber::new(way.clone(), "absent", &[(&slow, 1)]),
        };
        crowd.subscribe()?;
        Ok(crowd)
    }

    fn subscribe(&mut self) -> Result<()> {
        let Self {
            subscribers,
            absent,
            door,
            ..
        } = self;
        door.enter(|| {
            let deadline = Instant::now() + PATIENCE;
            for subscriber in subscribers.iter_mut().chain([&mut *absent]) {
                while !subscriber.is_subscribed() {
                    ensure!(Instant::now() < deadline, "no SUBACK has come");
                    subscriber.turn(Duration::from_millis(10));
                }
            }
            absent.leave();
            Ok(())
        })
    }

    /// Has nodes end and come back while all that is going on; then waits for what has not come.
    pub(super) fn live(mut self, site: &mut Site, dice: Dice) -> Result<(Ends, Self, Taken)> {
        let is_over = AtomicBool::new(false);
        let taken: OnceLock<Taken> = OnceLock::new();
        let door = &self.door;
        let (publishers, subscribers) = (self.publishers, self.subscribers);
        let sessions = publishers.len() + subscribers.len() + 1;
        let args = self.args;
        let (ends, publishers, subscribers) = thread::scope(|scope| {
            let (is_over, taken) = (&is_over, &taken);
            let reading: Vec<_> = subscribers
                .into_iter()
                .map(|reader| {
                    scope.spawn(move || door.enter(|| Ok(client::subscribe(reader, taken))))
                })
                .collect();
            let publishing: Vec<_> = publishers
                .into_iter()
                .map(|(publisher, pace)| {
                    let publish = move || Ok(client::publish(publisher, pace, is_over));
                    scope.spawn(move || door.enter(publish))
                })
                .collect();
            let has_ended = || {
                publishing.iter().any(ScopedJoinHandle::is_finished)
                    || reading.iter().any(ScopedJoinHandle::is_finished)
            };
            let mut course = Course {
                args,
                door,
                acknowledged: &self.acknowledged,
                site,
                dice,
                sessions: sessions as u64,
            };
            let begun = Instant::now();
            let ends = course.run(&has_ended);
            is_over.store(true, Ordering::Relaxed);
            let length = begun.elapsed();
            let publishers: Result<Vec<_>> = publishing.into_iter().map(join).collect();
            let mut acknowledged = Taken::new();
            for publisher in publishers.iter().flatten() {
                acknowledged.insert(publisher.topic().to_owned(), publisher.taken.clone());
            }
            if let Ok(ends) = &ends {
                acknowledged.insert(WILLS.to_owned(), ends.wills.clone());
            }
            // Readers wait for it, whatever else has failed.
            let _ = taken.set(acknowledged);
            let subscribers: Result<Vec<_>> = reading.into_iter().map(join).collect();
            let mut ends = ends?;
            ends.length = length;
            anyhow::Ok((ends, publishers?, subscribers?))
        })?;
        let taken = taken.into_inner().unwrap_or_default();
        self.publishers = publishers.into_iter().map(|one| (one, SLOW)).collect();
        self.subscribers = subscribers;
        let absent = &mut self.absent;
        self.door.enter(|| {
            let deadline = Instant::now() + PATIENCE;
            while !absent.lost(&taken).is_empty() && Instant::now() < deadline {
                absent.turn(Duration::from_millis(50));
            }
            Ok(())
        })?;
        Ok((ends, self, taken))
    }

    /// What was acknowledged and has not come to who should have it.
    pub(super) fn lost(&self, taken: &Taken) -> Vec<(String, u64)> {
        let mut lost: Vec<_> = self.receivers().flat_map(|one| one.lost(taken)).collect();
        lost.sort();
        lost
    }

    /// Messages that came more than once.
    pub(super) fn repeats(&self) -> usize {
        self.receivers().map(|one| one.repeats("q1/")).sum()
    }

    /// What each client went through.
    pub(super) fn stories(&self) -> impl Iterator<Item = &Story> {
        self.publishers()
            .chain(self.receivers().map(Subscriber::story))
    }

    /// Who came back to no session, and when.
    pub(super) fn lost_sessions(&self) -> Vec<(String, Instant)> {
        let publishers = self.publishers.iter();
        let publishers = publishers.map(|(one, _pace)| (one.name(), one.story()));
        let receivers = self.receivers().map(|one| (one.name(), one.story()));
        let all = publishers.chain(receivers);
        all.flat_map(|(name, story)| {
            let times = story.lost_sessions.iter();
            times.map(|at| (name.to_owned(), *at))
        })
        .collect()
    }

    /// What each of those that publish went through.
    pub(super) fn publishers(&self) -> impl Iterator<Item = &Story> {
        let publishers = self.publishers.iter();
        publishers.map(|(publisher, _pace)| publisher.story())
    }

    fn receivers(&self) -> impl Iterator<Item = &Subscriber> {
        self.subscribers.iter().chain([&self.absent])
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let joined = thread.join().map_err(|panic| {
        let text = panic.downcast_ref::<String>();
        anyhow!("a client gave up: {}", text.map_or("", |text| text))
    });
    joined?
}

/// What befalls the nodes.
struct Course<'a> {
    args: Args,
    door: &'a Door,
    acknowledged: &'a AtomicU64,
    site: &'a mut Site,
    dice: Dice,
    /// Those that are kept.
    sessions: u64,
}

impl Course<'_> {
    fn run(&mut self, has_ended: &dyn Fn() -> bool) -> Result<Ends> {
        let mut ends = Ends::default();
        for round in 0..self.args.rounds {
            // Each node goes by turns, as clients that know both are where the last one went, and each of
            // the two ways as often.
            let dying = (round % 2) as usize;
            let end = match round % 4 {
                0 | 3 => End::Kill,
                _ => End::Freeze,
            };
            eprintln!("round {} of {}: {end:?}", round + 1, self.args.rounds);
            let happened = self.end(round, dying, end, &mut ends);
            happened.with_context(|| format!("in round {}", round + 1))?;
            ensure!(!has_ended(), "a client gave up in round {}", round + 1);
        }
        self.pass(PAUSE)?;
        // What has just been started is to have met the other one.
        self.site.wait_until_safe(self.sessions)?;
        Ok(ends)
    }

    fn end(&mut self, round: u32, dying: usize, end: End, ends: &mut Ends) -> Result<()> {
        self.site.wait_until_reached()?;
        self.site.wait_until_safe(self.sessions)?;
        let numbers = (0..self.args.wills).map(|will| u64::from(round * self.args.wills + will));
        let numbers: Vec<_> = numbers.collect();
        let address = self.site.address(dying);
        let mortals = self.door.enter(|| {
            let mortals = numbers.iter().map(|number| mortal(address, *number));
            mortals.collect::<Result<Vec<_>>>()
        })?;
        self.site
            .wait_until_safe(self.sessions + u64::from(self.args.wills))?;
        let (begun, before) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
        self.pass(PAUSE)?;
        let come = self.acknowledged.load(Ordering::Relaxed) - before;
        ends.rates.push(come as f64 / begun.elapsed().as_secs_f64());
        self.site.end(dying, end)?;
        let at = Instant::now();
        ends.at.push((at, end));
        self.site.wait_until_alone(1 - dying)?;
        ends.detection[end as usize].push(at.elapsed());
        ends.wills.extend(numbers);
        // Clients of a frozen node are to find that out by themselves.
        self.pass(match end {
            End::Kill => PAUSE,
            End::Freeze => Duration::from_millis(self.args.patience) * 2,
        })?;
        drop(mortals);
        if end == End::Freeze && self.args.thaw {
            return self.site.thaw(dying);
        }
        self.site.restart(dying)
    }

    /// Lets time go by, so much at least, in which messages are sent.
    fn pass(&mut self, least: Duration) -> Result<()> {
        let length = self.dice.moment(least);
        let until = Instant::now() + length;
        wait_until(length * 2, "time going by", || {
            (interrupted() || Instant::now() >= until).then_some(())
        })?;
        ensure!(!interrupted(), "interrupted");
        Ok(())
    }
}

/// Connects a client that has nothing but a will with this number.
fn mortal(address: std::net::SocketAddr, number: u64) -> Result<Line> {
    let hello = Hello {
        version: Version::V311,
        client_id: &format!("mortal-{number}"),
        start: Start::Clean,
        will: Some((WILLS, &number.to_be_bytes())),
    };
    let connected = Line::connect(address, &hello, PATIENCE);
    let (line, _is_present) = connected.context("a client with a will cannot connect")?;
    Ok(line)
}
