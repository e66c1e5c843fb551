//! Of two nodes the one with most clients dies or freezes under load, again and again: nothing that was
//! acknowledged is lost, and sessions and wills go on at the other one. A group has members on both,
//! who break their connections and end their sessions meanwhile.
//!
//! `TIDEGATE_KILLS` says how often, `TIDEGATE_KILLS_SEED` when: a failure tells its own.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what is unexpected ends a test"
)]

mod bounds;
#[allow(dead_code, reason = "others have less, or more, to do with clients")]
#[path = "../client/mod.rs"]
mod client;
mod front;

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

use rustix::process::{Pid, Signal, kill_process};

use client::{
    Dice, PATIENCE, Pace, Publisher, Subscriber, Taken, free_address,
    line::{Hello, Line, Start, Version},
    number, publish, subscribe, take_part,
};
use front::Front;

const KILLS: u64 = 2;

const PACE: Pace = Pace {
    burst: 10,
    turn: Duration::from_millis(20),
};

/// Between what happens, at least.
const PAUSE: Duration = Duration::from_millis(200);

/// Messages that the members of the group share before anything breaks.
const SHARED: usize = 200;

struct Node {
    directory: PathBuf,
    clients: SocketAddr,
    child: Child,
}

impl Node {
    fn start(directory: PathBuf, clients: SocketAddr) -> Self {
        let child = spawn(&directory);
        Self {
            directory,
            clients,
            child,
        }
    }

    fn freeze(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
    }

    fn thaw(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::CONT).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.directory);
    }

    /// What `cluster status --json` says; `None` while nobody answers.
    fn status(&self) -> Option<serde_json::Value> {
        let status = Command::new(env!("CARGO_BIN_EXE_tidegate-broker"))
            .args(["cluster", "status", "--json", "--socket"])
            .arg(self.directory.join("control"))
            .stderr(Stdio::null())
            .output()
            .unwrap();
        serde_json::from_slice(&status.stdout).ok()
    }

    /// Waits until the other node is there, or gone.
    fn wait_for_peer(&self, is_there: bool) -> Duration {
        self.wait(|status| {
            let members = status["members"].as_array().unwrap();
            let peer = members.first();
            let state = if is_there { "synced" } else { "alive" };
            peer.map_or(!is_there, |peer| peer[state] == is_there)
        })
    }

    /// Waits until each session has its copy.
    fn wait_for_copies(&self, sessions: u64) {
        self.wait(|status| {
            status["bare_sessions"] == 0 && status["copied_sessions"].as_u64() >= Some(sessions)
        });
    }

    fn wait(&self, is_so: impl Fn(&serde_json::Value) -> bool) -> Duration {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < PATIENCE {
            last = self.status();
            if last.as_ref().is_some_and(&is_so) {
                return began.elapsed();
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("waited in vain; at last it was {last:?}");
    }
}

impl Drop for Node {
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

/// A directory with the configurations of two nodes.
struct Scene(PathBuf);

impl Scene {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        let key = Command::new(env!("CARGO_BIN_EXE_tidegate-broker"))
            .args(["cluster", "key"])
            .arg(directory.join("key"))
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(key.success());
        Self(directory)
    }

    /// Starts both; with this in `[cluster]` and `[limits]`.
    fn start(&self, cluster: &str, limits: &str) -> [Node; 2] {
        let peers = [free_address(), free_address()];
        [0, 1].map(|number| {
            let directory = self.0.join(format!("node-{number}"));
            fs::create_dir_all(&directory).unwrap();
            let clients = free_address();
            let text = format!(
                "node = \"node-{number}\"\naccess.anonymous = true\n\
                 [[listener]]\naddress = \"{clients}\"\n\
                 [cluster]\nname = \"failover\"\nlisten = \"{listen}\"\nseeds = [\"{seed}\"]\n\
                 key_file = \"{key}\"\n{cluster}\
                 [overload]\nlag = \"1h\"\n\
                 [limits]\nqueue_messages = 10000000\n{limits}\
                 [control]\nsocket = \"{directory}/control\"\n\
                 [log]\nlevel = \"error\"\n",
                listen = peers[number],
                seed = peers[1 - number],
                key = self.0.join("key").display(),
                directory = directory.display()
            );
            fs::write(directory.join("broker.toml"), text).unwrap();
            Node::start(directory, clients)
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Connects a client that has nothing but a will, with this number, for `q1/will`.
fn connect_mortal(address: SocketAddr, number: u64) -> Line {
    let hello = Hello {
        version: Version::V311,
        client_id: &format!("mortal-{number}"),
        start: Start::Clean,
        will: Some(("q1/will", &number.to_be_bytes())),
    };
    let (line, _is_present) = Line::connect(address, &hello, PATIENCE).unwrap();
    line
}

/// Publishes to a group, and tells how much of it each of its members gets.
fn share(publisher: &mut Publisher, members: &mut [Subscriber; 4]) -> [usize; 4] {
    let deadline = Instant::now() + PATIENCE;
    let topic = publisher.topic().to_owned();
    loop {
        let left = SHARED - publisher.taken.len();
        let is_next = publisher.is_idle();
        publisher.turn(if is_next { left.min(PACE.burst) } else { 0 });
        for member in &mut *members {
            member.turn(Duration::from_millis(5));
        }
        let got = members.each_ref().map(|member| member.count(&topic));
        if got.iter().sum::<usize>() == SHARED || Instant::now() > deadline {
            return got;
        }
    }
}

#[test]
fn node_that_dies_or_freezes_takes_nothing_acknowledged_along() {
    let kills = number("TIDEGATE_KILLS").unwrap_or(KILLS);
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let by_clock = clock.as_nanos() as u64 | 1;
    let seed = number("TIDEGATE_KILLS_SEED").unwrap_or(by_clock);
    let mut dice = Dice::new(seed);
    let scene = Scene::new("failover");
    let mut nodes = scene.start("", "");
    nodes[0].wait_for_peer(true);
    let front = Front::start(nodes[0].clients);
    let address = front.address();
    // To the node that is to survive.
    let side = Front::start(nodes[1].clients);
    let beside = side.address();

    let mut absent = Subscriber::new(address, "absent", &[("q1/0", 1), ("q2/9", 2)]);
    let mut readers = [
        Subscriber::new(address, "reader-1", &[("q1/+", 1)]),
        Subscriber::new(address, "reader-2", &[("q2/+", 2)]),
    ];
    let members = [
        ("member-1", address),
        ("fickle-1", address),
        ("member-2", beside),
        ("fickle-2", beside),
    ];
    let mut members = members.map(|(name, at)| Subscriber::new(at, name, &[("$share/g/q1/+", 1)]));
    for subscriber in readers.iter_mut().chain([&mut absent]).chain(&mut members) {
        while !subscriber.is_subscribed() {
            subscriber.turn(Duration::from_millis(10));
        }
    }
    absent.leave();
    let mut publishers: Vec<_> = (0..4)
        .map(|number| Publisher::new(address, number, 1, 500))
        .chain([8, 9].map(|number| Publisher::new(address, number, 2, 100)))
        .chain([4, 5].map(|number| Publisher::new(beside, number, 1, 100)))
        .collect();
    // As long as nothing breaks, all get about as much, wherever it is published.
    for publisher in [0, 6] {
        let got = share(&mut publishers[publisher], &mut members);
        assert!(got.iter().all(|count| *count >= SHARED / 8), "{got:?}");
    }
    // Its sessions are kept: those of readers, of the absent one, of publishers, and of a member.
    let sessions = 3 + 6 + 1;
    let is_over = AtomicBool::new(false);
    let taken: OnceLock<Taken> = OnceLock::new();
    let began = Instant::now();
    let mut detection = Duration::ZERO;
    let (mut subscribers, mut members, published) = thread::scope(|scope| {
        let taking_part = members.map(|member| {
            let is_over = &is_over;
            scope.spawn(move || take_part(member, PACE, is_over))
        });
        let reading = readers.map(|reader| scope.spawn(|| subscribe(reader, &taken)));
        let publishing: Vec<_> = publishers
            .into_iter()
            .map(|publisher| scope.spawn(|| publish(publisher, PACE, &is_over)))
            .collect();
        let mut published = Taken::new();
        for kill in 0..kills {
            let (dying, surviving) = (kill as usize % 2, 1 - kill as usize % 2);
            nodes[dying].wait_for_copies(sessions);
            let _mortal = connect_mortal(nodes[dying].clients, kill);
            nodes[dying].wait_for_copies(sessions + 1);
            thread::sleep(dice.moment(PAUSE));
            if dice.roll().is_multiple_of(2) {
                nodes[dying].kill();
            } else {
                nodes[dying].freeze();
            }
            // Clients come before the other node knows that theirs is gone.
            front.redirect(nodes[surviving].clients);
            detection = detection.max(nodes[surviving].wait_for_peer(false));
            published
                .entry("q1/will".to_owned())
                .or_default()
                .push(kill);
            thread::sleep(dice.moment(PAUSE));
            nodes[dying].kill();
            nodes[dying].restart();
            nodes[surviving].wait_for_peer(true);
            side.redirect(nodes[dying].clients);
        }
        thread::sleep(dice.moment(PAUSE));
        is_over.store(true, Ordering::Relaxed);
        let elapsed = began.elapsed();
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
        let members = taking_part.map(|member| member.join().unwrap());
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
    let told = format!(
        "seed {seed}, {kills} kills, {count} acknowledged, {rate:.0} a second, held for gone after \
         {detection:?} at most"
    );
    println!("{told}");
    for subscriber in &subscribers {
        let name = subscriber.name();
        let lost = subscriber.lost(&taken);
        assert_eq!(lost.len(), 0, "{name} lost {lost:?}; {told}");
        assert_eq!(subscriber.story().lost_sessions, [], "of {name}; {told}");
        println!("{name} got {} twice of QoS 2", subscriber.repeats("q2/"));
    }
    let lost = lost_by(&members);
    assert_eq!(lost.len(), 0, "the group lost {lost:?}; {told}");
    assert!(count > 0, "{told}");
}
