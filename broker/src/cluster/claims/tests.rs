//! Several nodes with clients of one id, on one clock, over a network that delays and breaks.

mod rights;

mod worlds;

use std::collections::BTreeSet;

use super::*;
use crate::routes::ShardId;

const PATIENCE: Duration = Duration::from_secs(4);
const ID: &str = "x";

/// How many worlds are tried of each kind.
const SEEDS: u64 = 2_000;

/// A small generator of numbers, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[derive(Clone, Debug)]
enum Word {
    Claim(Stamp, Terms),
    Answer(u64, Answer),
    /// The session, with what it holds.
    Piece(u64, BTreeSet<u64>),
    Installed(u64),
}

#[derive(Debug)]
enum Event {
    Connect,
    /// Somebody publishes something for the session.
    Publish,
    Arrived {
        from: usize,
        life: u64,
        word: Word,
    },
    /// A client that was let in has its session.
    Admitted(u64),
    Settled(u64),
    Tick,
}

#[derive(Debug, Default)]
struct Session {
    time: u64,
    /// The client's claim, if it is there.
    live: Option<u64>,
    holds: BTreeSet<u64>,
    state: State,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Here,
    Settling(u64),
    Leaving(usize, u64),
}

struct Node {
    claims: Claims<u64>,
    clock: u64,
    session: Option<Session>,
    /// One that came while this node's own was on its way.
    stash: Option<(Fellow, u64, BTreeSet<u64>)>,
    /// By other node: how often it was lost, and whether it is there.
    lives: Vec<(u64, bool)>,
}

struct World {
    start: Instant,
    now: u64,
    dice: Dice,
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    count: u64,
    /// When the last word between two nodes arrives: words do not overtake.
    busy: BTreeMap<(usize, usize), u64>,
    newest: Option<Stamp>,
    published: u64,
    breaks: bool,
    /// Of each client, where they are different ones.
    ranks: Option<BTreeMap<(usize, u64), Rank>>,
}

fn end(node: usize) -> ShardId {
    ShardId(u16::try_from(node).unwrap())
}

fn name(node: usize) -> Box<str> {
    format!("n{node}").into()
}

impl World {
    fn new(seed: u64, breaks: bool) -> Self {
        let mut dice = Dice::new(seed);
        let count = 2 + usize::try_from(dice.roll(3)).unwrap();
        let node = |number| Node {
            claims: Claims::new(name(number), PATIENCE),
            clock: dice.roll(20),
            session: None,
            stash: None,
            lives: vec![(0, true); count],
        };
        let nodes = (0..count).map(node).collect();
        let mut world = Self {
            start: Instant::now(),
            now: 0,
            dice,
            nodes,
            events: BTreeMap::new(),
            count: 0,
            busy: BTreeMap::new(),
            newest: None,
            published: 0,
            breaks,
            ranks: None,
        };
        for node in 0..count {
            world.tell_fellows(node);
            world.after(250, node, Event::Tick);
        }
        world
    }

    fn time(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn after(&mut self, millis: u64, node: usize, event: Event) {
        self.count += 1;
        let at = self.now + millis;
        self.events.insert((at, self.count), (node, event));
    }

    fn tell_fellows(&mut self, node: usize) {
        let lives = self.nodes[node].lives.iter().enumerate();
        let fellows = lives
            .filter(|(other, (_life, is_there))| *other != node && *is_there)
            .map(|(other, (life, _is_there))| Fellow {
                end: end(other),
                life: *life,
            });
        let fellows = fellows.collect();
        let now = self.time();
        self.nodes[node].claims.handle_fellows(fellows, now);
        self.act(node);
    }

    /// Two nodes lose each other, or meet again.
    fn set_there(&mut self, one: usize, other: usize, is_there: bool) {
        for (node, other) in [(one, other), (other, one)] {
            let (life, was_there) = &mut self.nodes[node].lives[other];
            if *was_there && !is_there {
                *life += 1;
            }
            *was_there = is_there;
            if let Some(session) = &mut self.nodes[node].session
                && let State::Leaving(to, _time) = session.state
                && to == other
                && !is_there
            {
                // It goes on here, as the other may not have it.
                session.state = State::Here;
                self.nodes[node].claims.release(ID);
                self.unpack(node);
            }
            self.tell_fellows(node);
            if is_there {
                let life = self.nodes[node].lives[other].0;
                let end = end(other);
                self.meet(node, &[Fellow { end, life }]);
            }
        }
    }

    fn say(&mut self, from: usize, to: usize, word: Word) {
        let (life, is_there) = self.nodes[to].lives[from];
        if !is_there {
            return;
        }
        let delay = 1 + self.dice.roll(30);
        let busy = self.busy.entry((from, to)).or_default();
        let at = (self.now + delay).max(*busy);
        *busy = at;
        let event = Event::Arrived { from, life, word };
        self.after(at - self.now, to, event);
    }

    fn here(&self, node: usize) -> Here {
        if self.nodes[node].stash.is_some() {
            return Here::Moving { time: 0 };
        }
        match &self.nodes[node].session {
            None => Here::Nothing,
            Some(session) => match session.state {
                State::Here => Here::Session { time: session.time },
                State::Settling(_) => Here::Moving { time: session.time },
                State::Leaving(..) => Here::Moving { time: 0 },
            },
        }
    }

    fn act(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].claims.poll_action() {
            match action {
                Action::Ask {
                    time,
                    terms,
                    fellows,
                    ..
                } => {
                    let node_name = name(node);
                    for fellow in fellows {
                        let stamp = Stamp {
                            time,
                            node: node_name.clone(),
                        };
                        let word = Word::Claim(stamp, terms.clone());
                        self.say(node, usize::from(fellow.end.0), word);
                    }
                }
                Action::Grant(time) => {
                    // In the order in which they were let in.
                    let admitted = self.busy.entry((node, node)).or_default();
                    let at = (self.now + self.dice.roll(5)).max(*admitted);
                    *admitted = at;
                    self.after(at - self.now, node, Event::Admitted(time));
                }
                Action::Refuse(time, refusal) => {
                    if let (Some(ranks), Refusal::Denied) = (&self.ranks, refusal) {
                        assert!(ranks[&(node, time)] < Rank::User, "a user is refused");
                    }
                }
                Action::Answer(claim, answer) => self.answer(node, &claim, answer),
                // An older claim may have had it by now.
                Action::Yield(claim) => match self.here(node) {
                    Here::Session { .. } => self.give_up(node, &claim),
                    here @ (Here::Nothing | Here::Copied | Here::Moving { .. }) => {
                        self.nodes[node].claims.handle_claim(claim, here);
                    }
                },
                Action::Judge(claim) => {
                    let here = self.here(node);
                    self.nodes[node].claims.handle_claim(claim, here);
                }
                Action::Meet { fellows, .. } => self.meet(node, &fellows),
            }
        }
        self.check();
    }

    fn answer(&mut self, node: usize, claim: &Claim, answer: Answer) {
        if claim.terms.has_session && matches!(answer, Answer::Newer(_)) {
            self.meet(node, &[claim.from]);
        }
        let word = Word::Answer(claim.stamp.time, answer);
        self.say(node, usize::from(claim.from.end.0), word);
    }

    fn give_up(&mut self, node: usize, claim: &Claim) {
        let to = usize::from(claim.from.end.0);
        let time = claim.stamp.time;
        let session = self.nodes[node].session.as_mut().unwrap();
        session.live = None;
        session.state = State::Leaving(to, time);
        let holds = session.holds.clone();
        self.answer(node, claim, Answer::Coming);
        self.say(node, to, Word::Piece(time, holds));
    }

    fn happen(&mut self, node: usize, event: Event) {
        let now = self.time();
        match event {
            Event::Connect => {
                let wall = self.now;
                let state = &mut self.nodes[node];
                state.clock = (state.clock + 1).max(wall);
                let time = state.clock;
                let stamp = Stamp {
                    time,
                    node: name(node),
                };
                self.newest = self.newest.take().max(Some(stamp));
                let mut terms = Terms {
                    user: None,
                    clean_start: false,
                    is_entitled: true,
                    has_session: false,
                    is_bereft: false,
                };
                if let Some(ranks) = &mut self.ranks {
                    terms.user = (self.dice.roll(2) == 0).then(|| "u".into());
                    terms.is_entitled = self.dice.roll(3) > 0;
                    ranks.insert((node, time), terms.rank());
                }
                state.claims.claim(ID, time, terms, time, now);
            }
            Event::Publish => {
                if let Some(session) = &mut self.nodes[node].session
                    && !matches!(session.state, State::Leaving(..))
                {
                    self.published += 1;
                    session.holds.insert(self.published);
                }
            }
            Event::Admitted(time) => {
                let session = self.nodes[node].session.get_or_insert_default();
                // An older connection of this node is closed by the new one.
                session.live = Some(time);
                session.time = time;
                self.nodes[node].claims.finish(ID, time, now);
            }
            Event::Settled(time) => {
                if let Some(session) = &mut self.nodes[node].session
                    && session.state == State::Settling(time)
                {
                    session.state = State::Here;
                    self.nodes[node].claims.release(ID);
                }
            }
            Event::Tick => {
                self.nodes[node].claims.handle_timeout(now);
                self.after(250, node, Event::Tick);
            }
            Event::Arrived { from, life, word } => {
                if self.nodes[node].lives[from] == (life, true) {
                    self.hear(node, from, life, word);
                }
            }
        }
        self.act(node);
    }

    fn hear(&mut self, node: usize, from: usize, life: u64, word: Word) {
        let now = self.time();
        let fellow = Fellow {
            end: end(from),
            life,
        };
        match word {
            Word::Claim(stamp, terms) => {
                let here = self.here(node);
                let state = &mut self.nodes[node];
                state.clock = state.clock.max(stamp.time);
                let claim = Claim {
                    from: fellow,
                    client_id: ID.into(),
                    stamp,
                    terms,
                    heard: now,
                };
                state.claims.handle_claim(claim, here);
            }
            Word::Answer(time, answer) => {
                let claims = &mut self.nodes[node].claims;
                claims.handle_answer(fellow, ID, time, answer, now);
            }
            Word::Piece(time, holds) => {
                self.nodes[node].stash = Some((fellow, time, holds));
                self.unpack(node);
            }
            Word::Installed(time) => {
                let state = &mut self.nodes[node];
                if let Some(session) = &state.session
                    && session.state == State::Leaving(from, time)
                {
                    state.session = None;
                    state.claims.release(ID);
                    self.unpack(node);
                }
            }
        }
    }

    /// Claims a session that is there from nodes that may have another one.
    fn meet(&mut self, node: usize, fellows: &[Fellow]) {
        let Some(session) = &self.nodes[node].session else {
            return;
        };
        if matches!(session.state, State::Leaving(..)) {
            return;
        }
        let stamp = Stamp {
            time: session.time,
            node: name(node),
        };
        let terms = Terms {
            user: None,
            clean_start: false,
            is_entitled: true,
            has_session: true,
            is_bereft: false,
        };
        for fellow in fellows {
            let word = Word::Claim(stamp.clone(), terms.clone());
            self.say(node, usize::from(fellow.end.0), word);
        }
    }

    /// Has a session that has come go on here.
    fn unpack(&mut self, node: usize) {
        let is_leaving = self.nodes[node]
            .session
            .as_ref()
            .is_some_and(|session| matches!(session.state, State::Leaving(..)));
        if is_leaving {
            return;
        }
        let Some((from, time, holds)) = self.nodes[node].stash.take() else {
            return;
        };
        let now = self.time();
        let is_new = self.nodes[node].session.is_none();
        let session = self.nodes[node].session.get_or_insert_default();
        session.holds.extend(holds);
        if is_new {
            session.time = time;
            session.state = State::Settling(time);
            let delay = self.dice.roll(100);
            self.after(delay, node, Event::Settled(time));
        }
        self.say(node, usize::from(from.end.0), Word::Installed(time));
        let claims = &mut self.nodes[node].claims;
        claims.handle_answer(from, ID, time, Answer::Nothing, now);
        claims.release(ID);
    }

    /// Whatever happens, two are never there at once, as long as nobody is lost.
    fn check(&self) {
        let live = self.nodes.iter().filter(|node| {
            let session = node.session.as_ref();
            session.is_some_and(|session| session.live.is_some())
        });
        assert!(self.breaks || live.count() <= 1, "two connections");
    }

    fn run(&mut self, millis: u64) {
        let until = self.now + millis;
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _count), (node, event)) = entry.remove_entry();
            self.now = at;
            self.happen(node, event);
        }
        self.now = until;
    }

    fn act_as_clients(&mut self) {
        let count = self.nodes.len() as u64;
        for _ in 0..20 + self.dice.roll(30) {
            let node = usize::try_from(self.dice.roll(count)).unwrap();
            let event = if self.dice.roll(3) == 0 {
                Event::Publish
            } else {
                Event::Connect
            };
            let at = self.dice.roll(1_000);
            self.after(at, node, event);
        }
    }

    fn holders(&self) -> Vec<&Session> {
        let sessions = self.nodes.iter().filter_map(|node| node.session.as_ref());
        sessions.collect()
    }
}
