use std::{
    collections::BTreeMap,
    io,
    sync::{Condvar, Mutex},
    thread,
};

use super::{
    super::{Parcel, batch::Batch, disk::WriteError, record::BodyId},
    *,
};
use crate::{
    config::Sync,
    session::journal::{Change, Profile, SessionId, Since, State},
};

/// A disk that fails when it is told to, and else remembers which sessions are stored.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Faked>>, Arc<Condvar>);

#[derive(Default)]
struct Faked {
    is_failing: bool,
    /// Does not say how much is free.
    hangs: bool,
    free: Option<u64>,
    bytes: u64,
    sessions: BTreeMap<u64, Option<Vec<u8>>>,
    writes: usize,
}

impl Medium for Fake {
    fn write(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let mut faked = self.0.lock().unwrap();
        faked.writes += 1;
        if faked.is_failing {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        for (session, cell) in &batch.sessions {
            faked.sessions.insert(session.0, cell.clone());
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.0.lock().unwrap().bytes
    }

    fn free_bytes(&self) -> Option<u64> {
        let faked = self.0.lock().unwrap();
        let faked = self.1.wait_while(faked, |faked| faked.hangs).unwrap();
        faked.free
    }
}

struct Scene {
    store: Arc<Store>,
    fake: Fake,
    worker: Worker,
}

const FIRST: ShardId = ShardId(0);
const SECOND: ShardId = ShardId(1);

impl Scene {
    fn new() -> Self {
        let config = Persistence {
            directory: "/nowhere".into(),
            sync: Sync::Disk,
            max_bytes: 1000,
            min_free_bytes: 100,
            patience: Duration::from_secs(10),
        };
        let store = Arc::new(Store::new(2, SessionId(0), &config));
        let fake = Fake::default();
        let worker = Worker::new(
            Arc::clone(&store),
            Scribe::new(Arc::default(), BodyId(0)),
            Box::new(fake.clone()),
            Arc::new(Watch::new(Arc::clone(&store), config.patience)),
            &config,
        );
        Self {
            store,
            fake,
            worker,
        }
    }

    fn send(&mut self, shard: ShardId, number: u64) {
        let profile = Profile {
            client_id: "c".into(),
            user: None,
            is_assigned: false,
            grants: None,
            since: Since::default(),
        };
        let state = State {
            profile: Arc::new(profile),
            expiry: Duration::from_secs(1),
            ends: None,
            will: None,
            will_due: None,
        };
        let session = SessionId(u64::from(shard.0) * 100 + number);
        let parcel = Parcel {
            shard,
            number,
            changes: vec![(session, Change::State(state))],
        };
        self.worker.take(parcel, Clock::read());
    }

    fn turn(&mut self) {
        self.worker.turn(Clock::read());
    }

    /// A turn in which a failed write is tried again.
    fn turn_later(&mut self) {
        self.worker.retry = None;
        self.turn();
    }

    fn stored(&self) -> [u64; 2] {
        [FIRST, SECOND].map(|shard| self.store.stored(shard))
    }
}

#[test]
fn all_that_waits_is_one_write() {
    let mut scene = Scene::new();
    scene.send(FIRST, 1);
    scene.send(SECOND, 1);
    scene.send(FIRST, 2);
    assert_eq!(scene.stored(), [0, 0]);
    scene.turn();
    assert_eq!(scene.stored(), [2, 1]);
    assert_eq!(scene.fake.0.lock().unwrap().writes, 1);
    // A parcel with nothing in it is confirmed without one.
    let empty = Parcel {
        shard: SECOND,
        number: 2,
        changes: Vec::new(),
    };
    scene.worker.take(empty, Clock::read());
    scene.turn();
    assert_eq!(scene.stored(), [2, 2]);
    assert_eq!(scene.fake.0.lock().unwrap().writes, 1);
}

#[test]
fn nothing_is_confirmed_that_could_not_be_written_and_nothing_is_forgotten() {
    let mut scene = Scene::new();
    scene.fake.0.lock().unwrap().is_failing = true;
    scene.send(FIRST, 1);
    scene.turn();
    assert_eq!(scene.store.condition(), Condition::Failing);
    scene.send(SECOND, 1);
    scene.turn();
    // Not tried again before it is time.
    assert_eq!(scene.fake.0.lock().unwrap().writes, 1);
    scene.turn_later();
    assert_eq!(scene.stored(), [0, 0]);
    scene.fake.0.lock().unwrap().is_failing = false;
    scene.turn_later();
    assert_eq!(scene.stored(), [1, 1]);
    assert_eq!(scene.store.condition(), Condition::Good);
    let faked = scene.fake.0.lock().unwrap();
    assert_eq!(faked.sessions.keys().collect::<Vec<_>>(), [&1, &101]);
}

#[test]
fn limits_are_left_when_there_is_some_room() {
    let mut scene = Scene::new();
    let mut condition = |bytes, free| {
        let mut faked = scene.fake.0.lock().unwrap();
        (faked.bytes, faked.free) = (bytes, free);
        drop(faked);
        scene.turn();
        scene.store.condition()
    };
    assert_eq!(condition(999, Some(100)), Condition::Good);
    assert_eq!(condition(1000, Some(100)), Condition::Full);
    assert_eq!(condition(901, Some(500)), Condition::Full);
    assert_eq!(condition(899, Some(500)), Condition::Good);
    assert_eq!(condition(899, Some(99)), Condition::LowSpace);
    assert_eq!(condition(899, Some(109)), Condition::LowSpace);
    assert_eq!(condition(899, Some(110)), Condition::Good);
    // Who does not say how much there is has enough.
    assert_eq!(condition(0, None), Condition::Good);
}

#[test]
fn file_system_that_hangs_behind_a_write_keeps_nothing_back_and_is_a_condition() {
    let mut scene = Scene::new();
    let (store, fake) = (Arc::clone(&scene.store), scene.fake.clone());
    let watch = Arc::clone(&scene.worker.watch);
    fake.0.lock().unwrap().hangs = true;
    scene.send(FIRST, 1);
    let worker = thread::spawn(move || scene.turn());
    let begun = Instant::now();
    while store.stored(FIRST) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        thread::yield_now();
    }
    assert_eq!(store.condition(), Condition::Good);
    watch.look(begun + Duration::from_secs(60));
    assert_eq!(store.condition(), Condition::Failing);
    fake.0.lock().unwrap().hangs = false;
    fake.1.notify_all();
    worker.join().unwrap();
    assert_eq!(store.condition(), Condition::Good);
    watch.look(begun + Duration::from_secs(60));
    assert_eq!(store.condition(), Condition::Good);
}
