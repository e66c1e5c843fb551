//! Owners and places in memory: whatever comes and goes, a place that has a copy has the session.

use std::{collections::HashMap, time::Duration};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    replica::{Shadow, wire::Reader},
    session::{
        Restored, Subscription,
        journal::{Profile, Remains, Since, State},
    },
};

const PEERS: u16 = 4;

fn place(end: u16, life: u64) -> Place {
    Place {
        end: ShardId(end),
        life,
    }
}

fn peers(lives: &[Option<u64>]) -> Vec<Peer> {
    let there = (0..)
        .zip(lives)
        .filter_map(|(end, life)| Some((end, (*life)?)));
    let there = there.map(|(end, life)| Peer {
        place: place(end, life),
        node: u64::from(end) * 7919,
    });
    there.collect()
}

fn hash(client_id: &str) -> u64 {
    client_id.bytes().map(u64::from).sum()
}

fn state(number: u64) -> State {
    let client_id = format!("client {number}");
    State {
        profile: Arc::new(Profile {
            client_id: client_id.into(),
            user: None,
            is_assigned: false,
            grants: None,
            since: Since::default(),
        }),
        expiry: Duration::from_secs(60),
        ends: None,
        will: None,
        will_due: None,
    }
}

const SUBSCRIPTION: Subscription = Subscription {
    qos: crate::message::Qos::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    id: None,
};

/// An owner, the places of its copies, and lanes between them.
struct Scene {
    book: Book,
    now: Instant,
    lives: Vec<Option<u64>>,
    last_life: u64,
    parcels: u64,
    journal: Vec<(SessionId, Change)>,
    /// What the sessions have subscribed to: all that changes about them here.
    sessions: BTreeMap<SessionId, BTreeSet<Box<str>>>,
    last_session: u64,
    /// What there is at each place, in each of its lives.
    shadows: HashMap<Place, BTreeMap<Whose, Shadow>>,
    /// Frames that their places have not had.
    lanes: VecDeque<(u64, Outgoing)>,
    frames: u64,
}

#[derive(Clone, Debug)]
enum Event {
    Begin,
    End(prop::sample::Index),
    Subscribe(prop::sample::Index, u8),
    Parcel,
    Copy,
    Send,
    Take,
    Come(u16),
    Go(u16),
    /// A session was to go to where its copy is, and does not.
    Forget(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Event> {
    use prop::sample::Index;
    prop_oneof![
        3 => Just(Event::Begin),
        1 => any::<Index>().prop_map(Event::End),
        6 => (any::<Index>(), 0..5_u8).prop_map(|(which, filter)| Event::Subscribe(which, filter)),
        4 => Just(Event::Parcel),
        4 => Just(Event::Copy),
        6 => Just(Event::Send),
        6 => Just(Event::Take),
        1 => (0..PEERS).prop_map(Event::Come),
        1 => (0..PEERS).prop_map(Event::Go),
        1 => any::<Index>().prop_map(Event::Forget),
    ]
}

impl Scene {
    fn new() -> Self {
        Self {
            book: Book::default(),
            now: Instant::now(),
            lives: vec![None; usize::from(PEERS)],
            last_life: 0,
            parcels: 0,
            journal: Vec::new(),
            sessions: BTreeMap::new(),
            last_session: 0,
            shadows: HashMap::new(),
            lanes: VecDeque::new(),
            frames: 0,
        }
    }

    fn pick(&self, which: &prop::sample::Index) -> Option<SessionId> {
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        (!sessions.is_empty()).then(|| *which.get(&sessions))
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Begin => {
                self.last_session += 1;
                let session = SessionId(self.last_session);
                self.sessions.insert(session, BTreeSet::new());
                self.journal
                    .push((session, Change::State(state(session.0))));
            }
            Event::End(which) => {
                if let Some(session) = self.pick(which) {
                    self.sessions.remove(&session);
                    let ended = Change::Ended(Remains::default());
                    self.journal.push((session, ended));
                }
            }
            Event::Subscribe(which, filter) => {
                if let Some(session) = self.pick(which) {
                    let filter: Box<str> = format!("f/{filter}").into();
                    self.sessions
                        .get_mut(&session)
                        .unwrap()
                        .insert(filter.clone());
                    self.journal
                        .push((session, Change::Subscribed(filter, SUBSCRIPTION)));
                }
            }
            Event::Parcel => self.send_parcel(),
            Event::Copy => self.copy(),
            Event::Send => {
                self.hear_told();
                if let Some(outgoing) = self.book.poll_word() {
                    // Two words are in one frame each time.
                    self.frames += 1;
                    let sequence = self.frames / 2;
                    self.book.note_sent(outgoing.to, sequence, outgoing.purpose);
                    self.lanes.push_back((sequence, outgoing));
                }
            }
            Event::Take => self.take(),
            Event::Come(end) => {
                self.last_life += 1;
                let life = self.last_life;
                self.lives[usize::from(*end)].get_or_insert(life);
                self.book.set_peers(peers(&self.lives));
            }
            Event::Go(end) => {
                self.lives[usize::from(*end)] = None;
                self.book.set_peers(peers(&self.lives));
            }
            Event::Forget(which) => {
                let session = self.pick(which);
                let copied = session.and_then(|session| self.book.sessions.get(&session));
                if let Some((session, copied)) = session.zip(copied)
                    && let Some(at) = copied.at
                {
                    if let Some(shadows) = self.shadows.get_mut(&at) {
                        shadows.remove(&copied.whose(session));
                    }
                    self.book.note_forgotten(session, at.end, self.now);
                }
            }
        }
    }

    /// Places hear that all was told when each session has its copy where it belongs.
    fn hear_told(&mut self) {
        let there = peers(&self.lives);
        while let Some(told) = self.book.poll_told() {
            assert!(there.iter().any(|peer| peer.place == told));
            for copied in self.book.sessions.values() {
                assert_eq!(copied.at, place_of(copied.client, &there));
                assert_eq!(copied.older, None);
            }
        }
    }

    fn send_parcel(&mut self) {
        self.parcels += 1;
        let changes = std::mem::take(&mut self.journal);
        self.book
            .handle_parcel(self.parcels, &changes, hash, |_share| None, self.now);
    }

    fn copy(&mut self) {
        let Some((session, client_id)) = self.book.next_due(|_session| false) else {
            return;
        };
        self.send_parcel();
        let subscriptions = self.sessions.get(&session);
        let restored = subscriptions.map(|filters| Restored {
            session,
            profile: Profile {
                client_id,
                user: None,
                is_assigned: false,
                grants: None,
                since: Since::default(),
            },
            expiry: Duration::from_secs(60),
            ends: None,
            will: None,
            will_due: None,
            subscriptions: filters
                .iter()
                .map(|filter| (filter.clone(), SUBSCRIPTION))
                .collect(),
            received: Vec::new(),
            messages: Vec::new(),
        });
        let steps = restored.map(|restored| Step::whole(restored, |_share| None));
        self.book.copy(session, steps, self.now);
    }

    /// The first frame that is on its way gets there, or its place is not there any more.
    fn take(&mut self) {
        let Some((sequence, Outgoing { to, word, .. })) = self.lanes.pop_front() else {
            return;
        };
        if let Some(life) = self.lives[usize::from(to.0)] {
            let shadows = self.shadows.entry(place(to.0, life)).or_default();
            let Some(Word::Steps { life: meant, piece }) = Word::decode(&word) else {
                panic!("{word:?}");
            };
            // What is for an earlier life does not leave the node.
            let piece = if meant == life { piece } else { &[] };
            for step in Reader::new(piece, self.now) {
                let (whose, step) = step.unwrap();
                let whose = whose.unwrap();
                if matches!(step, Step::Whole | Step::Replacing(_)) {
                    shadows.insert(whose, Shadow::default());
                }
                let is_there = shadows.get_mut(&whose).map(|shadow| shadow.apply(step));
                if is_there == Some(false) {
                    shadows.remove(&whose);
                }
            }
        }
        let has_more = self
            .lanes
            .iter()
            .any(|(other, outgoing)| *other == sequence && outgoing.to == to);
        if !has_more {
            self.book.confirm(to, sequence, self.now);
        }
    }

    /// Everything comes to rest.
    fn settle(&mut self) {
        self.send_parcel();
        for _ in 0..10_000 {
            self.handle(&Event::Copy);
            self.handle(&Event::Send);
            self.handle(&Event::Take);
            // Frames that were left open.
            if self.lanes.is_empty() && !self.book.has_words() {
                self.handle(&Event::Parcel);
                if self.book.next_due(|_session| false).is_none() {
                    return;
                }
            }
        }
        panic!("it does not come to rest");
    }
}

proptest! {
    #[test]
    fn each_session_has_one_whole_copy_in_the_end(events in vec(events(), 0..300)) {
        let mut scene = Scene::new();
        for event in &events {
            scene.handle(event);
        }
        scene.settle();
        prop_assert_eq!(scene.book.confirmed(scene.parcels), scene.parcels);
        prop_assert_eq!(scene.book.copy_bytes, 0);
        let there = peers(&scene.lives);
        let bare = if there.is_empty() { scene.sessions.len() } else { 0 };
        prop_assert_eq!(scene.book.counts(), (scene.sessions.len(), bare));
        let mut copies = BTreeMap::new();
        for peer in &there {
            for (whose, shadow) in scene.shadows.remove(&peer.place).unwrap_or_default() {
                prop_assert_eq!(place_of(whose.client, &there), Some(peer.place));
                prop_assert!(copies.insert(whose.session, shadow).is_none());
            }
        }
        prop_assert_eq!(copies.len(), scene.sessions.len() - bare);
        for (session, shadow) in copies {
            prop_assert!(!shadow.is_partial());
            let restored = shadow.into_restored(session).unwrap();
            let filters = restored.subscriptions.into_iter().map(|(filter, _)| filter);
            prop_assert!(filters.eq(scene.sessions[&session].iter().cloned()));
        }
    }

    /// Whoever is lost, what was confirmed is not.
    #[test]
    fn what_is_confirmed_is_in_the_copy_at_any_moment(events in vec(events(), 0..300)) {
        let mut scene = Scene::new();
        let mut promised: VecDeque<(u64, BTreeMap<SessionId, usize>)> = VecDeque::new();
        for event in &events {
            let before = scene.parcels;
            scene.handle(event);
            if scene.parcels > before {
                let counts = scene.sessions.iter().map(|(id, filters)| (*id, filters.len()));
                promised.push_back((scene.parcels, counts.collect()));
            }
            let confirmed = scene.book.confirmed(scene.parcels);
            while promised.len() > 1 && promised[1].0 <= confirmed {
                promised.pop_front();
            }
            let Some((number, counts)) = promised.front() else { continue };
            if *number > confirmed {
                continue;
            }
            for (session, copied) in &scene.book.sessions {
                // It is promised of sessions that are copied.
                let whole = match (copied.older, scene.book.under_way.contains_key(session)) {
                    (Some(older), true) => Some(older),
                    (None, true) => None,
                    (_, false) => copied.at,
                };
                let (Some(whole), Some(count)) = (whole, counts.get(session)) else { continue };
                let shadow = scene.shadows.get(&whole).and_then(|there| {
                    there.get(&copied.whose(*session))
                });
                prop_assert!(shadow.is_none_or(|shadow| !shadow.is_partial()));
                let there = shadow.map(|shadow| {
                    shadow.clone().into_restored(*session).map_or(0, |it| it.subscriptions.len())
                });
                prop_assert!(there.is_some_and(|there| there >= *count), "{session:?}");
            }
        }
    }
}
