//! A broker that is killed under load, again and again, loses nothing that it has acknowledged. Members
//! of a group break their connections and end their sessions meanwhile.
//!
//! `TIDEGATE_KILLS` says how often, `TIDEGATE_KILLS_SEED` when: a failure tells its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what is unexpected ends a test"
)]

#[allow(dead_code, reason = "others have less, or more, to do with clients")]
#[path = "../client/mod.rs"]
mod client;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use client::{
    Dice, PATIENCE, Pace, Publisher, Subscriber, Taken, free_address, number, publish, subscribe,
    take_part,
};

const KILLS: u64 = 4;

/// Four publishers of QoS 1 publish 5,000 messages a second together, if the machine lets them.
const PACE: Pace = Pace {
    burst: 25,
    turn: Duration::from_millis(20),
};

/// From one kill to the next, at least.
const LIFE: Duration = Duration::from_millis(100);

/// The broker under test.
struct Broker {
    directory: PathBuf,
    child: Child,
}

impl Broker {
    fn start(directory: PathBuf) -> Self {
        let child = spawn(&directory);
        Self { directory, child }
    }

    /// SIGKILL, and another one in its place.
    fn kill(&mut self) {
        let has_ended = self.child.try_wait().unwrap();
        assert_eq!(has_ended, None, "the broker ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.directory);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tidegate-broker"))
        .args(["run", "--config"])
        .arg(directory.join("broker.toml"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

/// A directory with a configuration that goes with the test.
struct Scene {
    directory: PathBuf,
    address: SocketAddr,
}

impl Scene {
    fn new() -> Self {
        let name = format!("kill-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        let address = free_address();
        let text = format!(
            "node = \"killed\"\naccess.anonymous = true\n\
             [[listener]]\naddress = \"{address}\"\n\
             [overload]\nlag = \"1h\"\n\
             [limits]\nqueue_messages = 10000000\n\
             [persistence]\ndirectory = \"{directory}/store\"\nmin_free_bytes = 0\n\
             [control]\nsocket = \"{directory}/control\"\n\
             [log]\nlevel = \"warn\"\n",
            directory = directory.display()
        );
        fs::write(directory.join("broker.toml"), text).unwrap();
        Self { directory, address }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn killed_broker_loses_nothing_acknowledged_and_repeats_nothing_of_qos_2() {
    let kills = number("TIDEGATE_KILLS").unwrap_or(KILLS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let by_clock = clock.as_nanos() as u64 | 1;
    let seed = number("TIDEGATE_KILLS_SEED").unwrap_or(by_clock);
    let mut dice = Dice::new(seed);
    let scene = Scene::new();
    let mut broker = Broker::start(scene.directory.clone());
    let address = scene.address;

    let mut absent = Subscriber::new(address, "absent", &[("q1/0", 1), ("q2/9", 2)]);
    let mut readers = [
        Subscriber::new(address, "reader-1", &[("q1/+", 1)]),
        Subscriber::new(address, "reader-2", &[("q2/+", 2)]),
    ];
    let steady = ["member-1", "member-2", "member-3"]
        .map(|name| Subscriber::new(address, name, &[("$share/g/q1/+", 1)]));
    let fickle = ["fickle-1", "fickle-2"]
        .map(|name| Subscriber::new(address, name, &[("$share/g/q1/+", 1)]));
    let mut members: Vec<_> = steady.into_iter().chain(fickle).collect();
    for subscriber in readers.iter_mut().chain([&mut absent]).chain(&mut members) {
        while !subscriber.is_subscribed() {
            subscriber.turn(Duration::from_millis(10));
        }
    }
    absent.leave();
    let publishers = (0..4)
        .map(|number| Publisher::new(address, number, 1, 500))
        .chain([8, 9].map(|number| Publisher::new(address, number, 2, 100)));
    let is_over = AtomicBool::new(false);
    let taken: OnceLock<Taken> = OnceLock::new();
    let began = Instant::now();
    let (mut subscribers, mut members, published) = thread::scope(|scope| {
        let taking_part: Vec<_> = members
            .drain(..)
            .map(|member| scope.spawn(|| take_part(member, PACE, &is_over)))
            .collect();
        let reading = readers.map(|reader| scope.spawn(|| subscribe(reader, &taken)));
        let publishing: Vec<_> = publishers
            .map(|publisher| scope.spawn(|| publish(publisher, PACE, &is_over)))
            .collect();
        for _ in 0..kills {
            thread::sleep(dice.moment(LIFE));
            broker.kill();
        }
        thread::sleep(dice.moment(LIFE));
        is_over.store(true, Ordering::Relaxed);
        let elapsed = began.elapsed();
        let mut published = Taken::new();
        for publisher in publishing {
            let publisher = publisher.join().unwrap();
            let topic = publisher.topic();
            assert_eq!(publisher.story().lost_sessions, [], "of {topic}");
            published.insert(publisher.topic().to_owned(), publisher.taken);
        }
        taken.set(published).unwrap();
        let subscribers: Vec<_> = reading
            .into_iter()
            .map(|reader| reader.join().unwrap())
            .collect();
        let members: Vec<_> = taking_part
            .into_iter()
            .map(|member| member.join().unwrap())
            .collect();
        (subscribers, members, elapsed)
    });
    let taken = taken.into_inner().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !absent.lost(&taken).is_empty() && Instant::now() < deadline {
        absent.turn(Duration::from_millis(50));
    }
    subscribers.push(absent);
    let lost_by = |members: &[Subscriber]| {
        let members: Vec<_> = members.iter().collect();
        Subscriber::lost_by_all(&members, &taken)
    };
    let deadline = Instant::now() + PATIENCE;
    while !lost_by(&members).is_empty() && Instant::now() < deadline {
        for member in &mut members {
            member.turn(Duration::from_millis(50));
        }
    }

    let count: usize = taken.values().map(Vec::len).sum();
    let rate = count as f64 / published.as_secs_f64();
    let told = format!("seed {seed}, {kills} kills, {count} acknowledged, {rate:.0} a second");
    println!("{told}");
    for subscriber in &subscribers {
        let name = subscriber.name();
        let lost = subscriber.lost(&taken);
        assert_eq!(lost.len(), 0, "{name} lost {lost:?}; {told}");
        assert_eq!(subscriber.story().lost_sessions, [], "of {name}; {told}");
        assert_eq!(subscriber.repeats("q2/"), 0, "{name} got one twice; {told}");
    }
    let lost = lost_by(&members);
    assert_eq!(lost.len(), 0, "the group lost {lost:?}; {told}");
    assert!(count > 0, "{told}");
}
