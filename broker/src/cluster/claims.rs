//! Who may have a client id: one connection in the whole cluster, the newest (MQTT 5, 3.1.4-3).
//!
//! No node keeps a list of who is where. Whoever has a CONNECT *claims* the id: it asks all nodes that
//! are there, and waits for their answers. Each claim has a [`Stamp`], and the newest stamp wins on all
//! nodes alike, so two that connect at once find the same winner.
//!
//! ```text
//! CONNECT -> claim -> asked of all others -> all have answered -> granted -> finished
//!                          |                     \-> refused: somebody has a newer claim
//!                          \-> a newer claim comes from elsewhere: refused, and it hears from this
//!                              node when this node has all answers, as a session may be on its way here
//! ```
//!
//! Claims wait for older ones alone, so there is no ring of nodes that wait for each other. A node that
//! is lost has answered; so has one that says nothing for the time that a claim may take. When one is
//! lost, or was lately, the others are asked with a word of that: who has the copy of a session (see
//! `crate::replica`) answers when that is a session, which then comes here.
//!
//! Whose rights to the id are worse ([`Rank`]) is refused for who waits with better ones, however new
//! it is: or it could keep the owner of an id out, by a claim that is refused in the end.
//!
//! No I/O: what is to be done comes out of [`Claims::poll_action`]. A shard does it (`shard::claims`).

mod open;
mod terms;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use open::{Open, Waiter};
use terms::Rank;
pub(crate) use terms::{Answer, Claim, Fellow, Here, Refusal, Stamp, Terms};

/// How long others' claims are remembered, in times of the patience with one.
const MEMORY: u32 = 2;

/// What is to be done; `W` is who waits for a claim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action<W> {
    Ask {
        client_id: Box<str>,
        time: u64,
        terms: Terms,
        fellows: Vec<Fellow>,
    },
    /// Let the client in, and say so by [`Claims::finish`].
    Grant(W),
    Refuse(W, Refusal),
    Answer(Claim, Answer),
    /// Close the client's connection, and give the session up or let it go to who claims it.
    Yield(Claim),
    /// See what is here, and give it to [`Claims::handle_claim`].
    Judge(Claim),
    /// Claim the session of a client that was let in from nodes that have come meanwhile.
    Meet {
        client_id: Box<str>,
        fellows: Vec<Fellow>,
    },
}

/// The claims of one shard.
#[derive(Debug)]
pub(crate) struct Claims<W> {
    node: Box<str>,
    /// How long one may wait for answers.
    patience: Duration,
    /// Who is there.
    fellows: Vec<Fellow>,
    /// Until when others may hold one for alive that is gone.
    bereft_until: Option<Instant>,
    open: BTreeMap<Box<str>, Open<W>>,
    /// Others' claims that are answered later.
    deferred: BTreeMap<Box<str>, Vec<Claim>>,
    actions: VecDeque<Action<W>>,
}

impl<W> Claims<W> {
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    pub(crate) fn new(node: Box<str>, patience: Duration) -> Self {
        Self {
            node,
            patience,
            fellows: Vec::new(),
            bereft_until: None,
            open: BTreeMap::new(),
            deferred: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action<W>> {
        self.actions.pop_front()
    }

    /// Whether a claim of this node's is under way.
    pub(crate) fn is_open(&self, client_id: &str) -> bool {
        self.open.contains_key(client_id)
    }

    /// Takes note of who is there; whoever is not has answered.
    pub(crate) fn handle_fellows(&mut self, fellows: Vec<Fellow>, now: Instant) {
        if self.fellows.iter().any(|fellow| !fellows.contains(fellow)) {
            self.bereft_until = Some(now + self.patience);
        }
        self.fellows = fellows;
        let fellows = &self.fellows;
        self.deferred.retain(|_client_id, claims| {
            claims.retain(|claim| fellows.contains(&claim.from));
            !claims.is_empty()
        });
        let mut relieved = Vec::new();
        for (client_id, open) in &mut self.open {
            let before = open.asked.len();
            open.asked.retain(|asked| fellows.contains(asked));
            if open.asked.len() < before {
                relieved.push(client_id.clone());
            }
        }
        for client_id in relieved {
            self.resolve(&client_id, now);
        }
    }

    /// Claims an id for a client, by a time that is later than that of each claim before.
    pub(crate) fn claim(&mut self, client_id: &str, time: u64, terms: Terms, who: W, now: Instant) {
        let rank = terms.rank();
        if self.is_outranked(client_id, rank) {
            self.actions.push_back(Action::Refuse(who, Refusal::Denied));
            return;
        }
        self.beat_deferred(client_id, time, rank);
        let waiter = Waiter {
            time,
            terms,
            who: Some(who),
        };
        if let Some(open) = self.open.get_mut(client_id) {
            open.waiters.push(waiter);
            // For all who wait: others have answered an older claim, and may follow a newer one by now.
            if !open.is_granted {
                self.ask(client_id, now);
            }
            return;
        }
        let open = Open {
            time,
            asked_for: time,
            rank,
            deadline: now,
            told: Vec::new(),
            asked: Vec::new(),
            asked_again: Vec::new(),
            newer: None,
            is_denied: false,
            is_bereft: false,
            is_granted: false,
            waiters: vec![waiter],
        };
        self.open.insert(client_id.into(), open);
        self.ask(client_id, now);
    }

    /// Whether somebody has claimed the id, here or elsewhere, who has a better right to it.
    fn is_outranked(&self, client_id: &str, rank: Rank) -> bool {
        let open = self.open.get(client_id);
        let deferred = self.deferred.get(client_id);
        open.is_some_and(|open| open.outranks(rank))
            || deferred.is_some_and(|claims| {
                let is_better =
                    |claim: &Claim| !claim.terms.has_session && claim.terms.rank() > rank;
                claims.iter().any(is_better)
            })
    }

    /// Answers claims that are older than a client that has just come: they must not wait for what that
    /// one waits for.
    fn beat_deferred(&mut self, client_id: &str, time: u64, rank: Rank) {
        let Some(claims) = self.deferred.get_mut(client_id) else {
            return;
        };
        let newest = Stamp {
            time,
            node: self.node.clone(),
        };
        let beaten = claims
            .extract_if(.., |claim| {
                let is_older = claim.terms.rank() < rank || claim.stamp < newest;
                !claim.terms.has_session && is_older
            })
            .map(|claim| {
                let answer = if claim.terms.rank() < rank {
                    Answer::Denied
                } else {
                    Answer::Newer(newest.clone())
                };
                Action::Answer(claim, answer)
            });
        self.actions.extend(beaten);
        if claims.is_empty() {
            self.deferred.remove(client_id);
        }
    }

    /// Asks the others, on the terms of who waits first.
    fn ask(&mut self, client_id: &str, now: Instant) {
        let is_bereft = self.is_bereft(now);
        let Some(open) = self.open.get_mut(client_id) else {
            return;
        };
        let Some(rank) = open.waiters.iter().map(|waiter| waiter.terms.rank()).max() else {
            return;
        };
        let outranked = open
            .waiters
            .extract_if(.., |waiter| waiter.terms.rank() < rank)
            .filter_map(|waiter| waiter.who);
        let refuse = |who| Action::Refuse(who, Refusal::Denied);
        self.actions.extend(outranked.map(refuse));
        let (Some(first), Some(newest)) = (open.waiters.first(), open.newest()) else {
            return;
        };
        open.rank = rank;
        let terms = Terms {
            is_bereft,
            ..first.terms.clone()
        };
        open.is_bereft = is_bereft;
        open.asked_for = first.time;
        open.time = newest;
        open.deadline = now + self.patience;
        open.told.clone_from(&self.fellows);
        open.asked.clone_from(&self.fellows);
        open.asked_again.clear();
        open.newer = None;
        open.is_denied = false;
        if !self.fellows.is_empty() {
            self.actions.push_back(Action::Ask {
                client_id: client_id.into(),
                time: newest,
                terms,
                fellows: self.fellows.clone(),
            });
        }
        self.resolve(client_id, now);
    }

    fn is_bereft(&self, now: Instant) -> bool {
        self.bereft_until.is_some_and(|until| now < until)
    }

    /// Takes in what another node says to a claim of this one.
    pub(crate) fn handle_answer(
        &mut self,
        from: Fellow,
        client_id: &str,
        time: u64,
        answer: Answer,
        now: Instant,
    ) {
        let Some(open) = self.asked(client_id, time) else {
            return;
        };
        match answer {
            Answer::Coming => return self.handle_part(client_id, time, now),
            Answer::Nothing => {}
            Answer::Newer(stamp) => open.newer = open.newer.take().max(Some(stamp)),
            Answer::Denied => open.is_denied = true,
        }
        open.asked.retain(|asked| *asked != from);
        self.resolve(client_id, now);
    }

    /// Notes that a part of the session has come: a long one may take its time.
    pub(crate) fn handle_part(&mut self, client_id: &str, time: u64, now: Instant) {
        let deadline = now + self.patience;
        if let Some(open) = self.asked(client_id, time) {
            open.deadline = deadline;
        }
    }

    /// Refuses all who wait for a session that is there and cannot come: an empty one is not to take
    /// its place.
    pub(crate) fn give_up(&mut self, client_id: &str, time: u64) {
        let Some(open) = self.asked(client_id, time) else {
            return;
        };
        let waiters = std::mem::take(&mut open.waiters);
        let refused = waiters.into_iter().filter_map(|waiter| waiter.who);
        let refuse = |who| Action::Refuse(who, Refusal::Stuck);
        self.actions.extend(refused.map(refuse));
        self.close(client_id);
    }

    fn asked(&mut self, client_id: &str, time: u64) -> Option<&mut Open<W>> {
        let open = self.open.get_mut(client_id)?;
        (open.time == time && !open.is_granted).then_some(open)
    }

    /// Grants or refuses what all have answered.
    fn resolve(&mut self, client_id: &str, now: Instant) {
        let is_bereft = self.is_bereft(now) && !self.fellows.is_empty();
        let Some(open) = self.open.get_mut(client_id) else {
            return;
        };
        if open.is_granted || !open.asked.is_empty() {
            return;
        }
        let newer = open.newer.take();
        let is_same = open.waiters.first().map(|waiter| waiter.time) == Some(open.asked_for);
        let is_answered = is_same && newer.is_none() && !open.is_denied;
        if is_answered && is_bereft && !open.is_bereft {
            // The session may have been on a node that was lost meanwhile; then another one has a copy,
            // and has said nothing of it.
            return self.ask(client_id, now);
        }
        if is_answered {
            open.is_granted = true;
            let waiters = open.waiters.iter_mut();
            let granted = waiters.filter_map(|waiter| waiter.who.take());
            self.actions.extend(granted.map(Action::Grant));
            return;
        }
        let is_denied = open.is_denied && is_same;
        let refusal = |index: usize, time: u64| {
            let node = self.node.clone();
            let is_beaten = newer.as_ref() > Some(&Stamp { time, node });
            if is_beaten {
                Some(Refusal::TakenOver)
            } else {
                (is_denied && index == 0).then_some(Refusal::Denied)
            }
        };
        let mut refused = 0;
        for (index, waiter) in open.waiters.iter_mut().enumerate() {
            let Some(refusal) = refusal(index, waiter.time) else {
                break;
            };
            refused += 1;
            let who = waiter.who.take();
            self.actions
                .extend(who.map(|who| Action::Refuse(who, refusal)));
        }
        open.waiters.drain(..refused);
        if open.waiters.is_empty() {
            self.close(client_id);
        } else {
            // The others were asked for somebody else. Who has a newer connection than that one's has
            // not given up what it has.
            self.ask(client_id, now);
        }
    }

    /// Notes that a client who was granted its claim has its session, or has gone.
    pub(crate) fn finish(&mut self, client_id: &str, time: u64, now: Instant) {
        let Some(open) = self.open.get_mut(client_id) else {
            return;
        };
        open.waiters.retain(|waiter| waiter.time != time);
        let is_going_on = open.waiters.iter().any(|waiter| waiter.who.is_none());
        if !open.is_granted || is_going_on {
            return;
        }
        if open.waiters.is_empty() {
            let told = &open.told;
            let met = self.fellows.iter().filter(|fellow| !told.contains(fellow));
            let fellows: Vec<_> = met.copied().collect();
            if !fellows.is_empty() {
                self.actions.push_back(Action::Meet {
                    client_id: client_id.into(),
                    fellows,
                });
            }
            self.close(client_id);
        } else {
            open.is_granted = false;
            self.ask(client_id, now);
        }
    }

    fn close(&mut self, client_id: &str) {
        self.open.remove(client_id);
        self.release(client_id);
    }

    /// Answers who was told nothing because the session was on its way.
    pub(crate) fn release(&mut self, client_id: &str) {
        if !self.is_open(client_id) {
            let claims = self.deferred.remove(client_id).unwrap_or_default();
            self.actions.extend(claims.into_iter().map(Action::Judge));
        }
    }

    /// As [`Claims::release`], of all ids: copies have become sessions, or are copies no longer.
    pub(crate) fn release_all(&mut self) {
        for client_id in self.deferred.keys().cloned().collect::<Vec<_>>() {
            self.release(&client_id);
        }
    }

    /// Takes in another node's claim of an id of which this is here.
    pub(crate) fn handle_claim(&mut self, claim: Claim, here: Here) {
        if !self.fellows.contains(&claim.from) {
            return;
        }
        // It is judged by what comes of a client who waits.
        if claim.terms.has_session && self.is_open(&claim.client_id) {
            return self.defer(claim);
        }
        let mut open = self.open.get_mut(&claim.client_id);
        let rank = claim.terms.rank();
        if let Some(open) = open.as_deref_mut().filter(|open| open.outranks(rank)) {
            let again = open.ask_again(&claim);
            let answer = Action::Answer(claim, Answer::Denied);
            self.actions.extend([answer].into_iter().chain(again));
            return;
        }
        let waiting = open.as_ref().and_then(|open| open.newest_of(rank));
        let newest = waiting.max(here.time()).map(|time| Stamp {
            time,
            node: self.node.clone(),
        });
        if let Some(newest) = newest.filter(|newest| *newest > claim.stamp) {
            let answer = Action::Answer(claim, Answer::Newer(newest));
            self.actions.push_back(answer);
            return;
        }
        if let Some(open) = open {
            if !open.is_granted {
                let refused = open.waiters.drain(..).filter_map(|waiter| {
                    let refusal = if waiter.terms.rank() < rank {
                        Refusal::Denied
                    } else {
                        Refusal::TakenOver
                    };
                    Some(Action::Refuse(waiter.who?, refusal))
                });
                self.actions.extend(refused);
            }
            return self.defer(claim);
        }
        match here {
            Here::Moving { .. } | Here::Copied => self.defer(claim),
            Here::Session { .. } => self.actions.push_back(Action::Yield(claim)),
            Here::Nothing => {
                let answer = Action::Answer(claim, Answer::Nothing);
                self.actions.push_back(answer);
            }
        }
    }

    fn defer(&mut self, claim: Claim) {
        let claims = self.deferred.entry(claim.client_id.clone()).or_default();
        // A node that claims again does not wait for its older claim any more. One for a session that
        // it has is beside that of a client who waits there.
        let is_same = |other: &Claim| {
            (other.from, other.terms.has_session) == (claim.from, claim.terms.has_session)
        };
        let mut same = claims.iter().filter(|other| is_same(other));
        if same.any(|other| other.stamp > claim.stamp) {
            return;
        }
        claims.retain(|other| !is_same(other));
        claims.push(claim);
    }

    /// Gives up waiting where it has lasted too long, and forgets clients of others who have given up: a
    /// claim for a copy ends with that alone.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let memory = MEMORY * self.patience;
        let is_awaited = |claim: &Claim| {
            claim.terms.has_session || now.saturating_duration_since(claim.heard) < memory
        };
        self.deferred.retain(|_client_id, claims| {
            claims.retain(is_awaited);
            !claims.is_empty()
        });
        let is_late = |open: &Open<W>| !open.is_granted && open.deadline <= now;
        let late = self.open.iter().filter(|(_client_id, open)| is_late(open));
        let late: Vec<_> = late.map(|(client_id, _open)| client_id.clone()).collect();
        for client_id in late {
            if let Some(open) = self.open.get_mut(&client_id) {
                open.asked.clear();
            }
            self.resolve(&client_id, now);
        }
    }
}

#[cfg(test)]
mod tests;
