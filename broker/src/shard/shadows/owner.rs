//! Copies of one owner's sessions.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::replica::{Recent, Shadow, Step, hash_of, wire::Whose};

/// Copies that become sessions before it is asked whether the turn is over.
const PROMOTED_AT_ONCE: usize = 32;

/// An owner, and what it has told.
pub(super) struct Owner {
    pub(super) shadows: BTreeMap<Whose, Shadow>,
    /// Those of an earlier life, until it has made another one of the session, or has told all: it may
    /// be gone before.
    earlier: BTreeMap<Whose, Shadow>,
    pub(super) recent: Recent,
    pub(super) bytes: usize,
    /// That of its place here for which it tells of them.
    pub(super) life: u64,
    /// It goes on without this node since then: what is here is its own, if it comes back.
    apart: Option<Instant>,
    /// It is gone: they become sessions, one after another.
    pub(super) is_lost: bool,
    /// How many have.
    pub(super) promoted: usize,
}

impl Owner {
    pub(super) fn new(memory: Duration) -> Self {
        Self {
            shadows: BTreeMap::new(),
            earlier: BTreeMap::new(),
            recent: Recent::new(memory),
            bytes: 0,
            life: 0,
            apart: None,
            is_lost: false,
            promoted: 0,
        }
    }

    /// How many copies there are.
    pub(super) fn copies(&self) -> usize {
        self.shadows.len() + self.earlier.len()
    }

    /// Notes for which life it tells of sessions from now on: all of them anew, and nothing of those that
    /// have ended.
    pub(super) fn begin_life(&mut self, life: u64) {
        if std::mem::replace(&mut self.life, life) != life {
            self.renew();
            self.apart = None;
        }
    }

    /// As [`Owner::renew`], for one that may be back some time.
    pub(super) fn part(&mut self, now: Instant) {
        self.renew();
        self.apart = Some(now);
    }

    pub(super) fn is_apart(&self) -> bool {
        self.apart.is_some()
    }

    /// Whether it has stayed away for so long: its place may be another node's some time.
    pub(super) fn stays_apart(&self, memory: Duration, now: Instant) -> bool {
        self.apart
            .is_some_and(|since| now.saturating_duration_since(since) >= memory)
    }

    /// Keeps what it has told until it has told it anew.
    pub(super) fn renew(&mut self) {
        for (whose, shadow) in std::mem::take(&mut self.shadows) {
            let bytes = if shadow.is_partial() {
                shadow.bytes()
            } else {
                let earlier = self.earlier.insert(whose, shadow);
                earlier.map_or(0, |earlier| earlier.bytes())
            };
            self.bytes -= bytes;
        }
    }

    /// Notes that a shard of the owner, which has so many, has told of all of its sessions in this life;
    /// the result is whose copies are none any more.
    pub(super) fn handle_told(&mut self, life: u64, shard: u16, of: u16) -> Vec<Arc<str>> {
        if life < self.life || of == 0 {
            return Vec::new();
        }
        // There may have been nothing to tell.
        self.begin_life(life);
        let is_its = |whose: &Whose| whose.client % u64::from(of) == u64::from(shard);
        let over = self.earlier.extract_if(.., |whose, _shadow| is_its(whose));
        let over: Vec<_> = over.map(|(_whose, shadow)| shadow).collect();
        self.bytes -= over.iter().map(Shadow::bytes).sum::<usize>();
        over.iter().filter_map(client_of).collect()
    }

    fn forget_earlier(&mut self, whose: Whose) -> Option<Arc<str>> {
        let earlier = self.earlier.remove(&whose)?;
        self.bytes -= earlier.bytes();
        client_of(&earlier)
    }

    /// Takes a step in; tells whose session has ended, if it has.
    pub(super) fn apply(&mut self, whose: Whose, step: Step, now: Instant) -> Option<Arc<str>> {
        // As long as not all of it is here, the earlier one is all that there is.
        let replaces_earlier = step == Step::Whole && self.earlier.contains_key(&whose);
        let step = if replaces_earlier {
            Step::Replacing(0)
        } else {
            step
        };
        if matches!(step, Step::Whole | Step::Replacing(_)) {
            self.shadows.entry(whose).or_default();
        }
        let mut over = None;
        if matches!(step, Step::Complete | Step::Ended) {
            over = self.forget_earlier(whose);
        }
        let is_end = step == Step::Ended;
        // Of a session that nothing was told of before, a part is of no use.
        let Some(shadow) = self.shadows.get_mut(&whose) else {
            return over.filter(|_client| is_end);
        };
        if let Step::Done(seq) | Step::Released(seq, _) = &step
            && let Some(id) = shadow.message_id(*seq)
        {
            self.recent.insert(whose.client, id, now);
        }
        self.bytes -= shadow.bytes();
        if is_end {
            over = client_of(shadow).or(over);
            self.shadows.remove(&whose);
            return over;
        }
        shadow.apply(step);
        self.bytes += shadow.bytes();
        None
    }

    /// From now on what its clients had is remembered for so long.
    pub(super) fn remember_for(&mut self, memory: Duration) {
        self.recent.remember_for(memory);
    }

    pub(super) fn take_recent(&mut self) -> Recent {
        let memory = self.recent.memory();
        std::mem::replace(&mut self.recent, Recent::new(memory))
    }

    /// Takes out some copies.
    pub(super) fn take_some(&mut self) -> Vec<(Whose, Shadow)> {
        let mut taken = Vec::new();
        while taken.len() < PROMOTED_AT_ONCE {
            let next = self.shadows.pop_first();
            let Some((whose, shadow)) = next.or_else(|| self.earlier.pop_first()) else {
                break;
            };
            self.bytes -= shadow.bytes();
            if !self.is_needless(whose, &shadow) {
                taken.push((whose, shadow));
            }
        }
        self.promoted += taken.len();
        taken
    }

    /// Whether an earlier copy is whole, and this one is not.
    fn is_needless(&self, whose: Whose, shadow: &Shadow) -> bool {
        shadow.is_partial() && self.earlier.contains_key(&whose)
    }

    /// Takes out the copy of a client's session.
    pub(super) fn take(&mut self, client_id: &str) -> Option<(Whose, Shadow)> {
        let client = hash_of(client_id);
        loop {
            let first = of_client(&self.shadows, client_id, client).next();
            let (whose, shadow) = match first {
                Some(whose) => (whose, self.shadows.remove(&whose)?),
                None => {
                    let whose = of_client(&self.earlier, client_id, client).next()?;
                    (whose, self.earlier.remove(&whose)?)
                }
            };
            self.bytes -= shadow.bytes();
            if !self.is_needless(whose, &shadow) {
                return Some((whose, shadow));
            }
        }
    }

    /// Whether there is the copy of a client's session, and not of its will alone.
    pub(super) fn has(&self, client_id: &str, client: u64) -> bool {
        let mut all = [&self.shadows, &self.earlier].into_iter();
        all.any(|shadows| {
            let mut its = of_client(shadows, client_id, client);
            its.any(|whose| !whose.session.is_brief())
        })
    }
}

fn of_client<'a>(
    shadows: &'a BTreeMap<Whose, Shadow>,
    client_id: &'a str,
    client: u64,
) -> impl Iterator<Item = Whose> + 'a {
    let its = shadows.range(Whose::first(client)..=Whose::last(client));
    let its = its.filter(move |(_whose, shadow)| {
        let state = shadow.state();
        state.is_some_and(|state| &*state.profile.client_id == client_id)
    });
    its.map(|(whose, _shadow)| *whose)
}

fn client_of(shadow: &Shadow) -> Option<Arc<str>> {
    Some(Arc::clone(&shadow.state()?.profile.client_id))
}
