//! A shard's part in who may have a client id in the cluster: it claims ids for its clients, and answers
//! other nodes' claims.

use std::time::Instant;

use tokio::sync::oneshot;
use tracing::debug;

use super::{
    Arrival, SessionKey, Shard, heal::Meeting, leaving::Heir, settling::Forwarded, transit::Transit,
};
use crate::{
    cluster::{
        claims::{Action, Answer, Claim, Fellow, Here, Refusal, Terms},
        word::Word,
    },
    codec::packet::ConnectCode,
    metrics::Metric,
    receipts::Needs,
    replica::word::is_such,
    routes::ShardId,
};

/// Where a client hears what has become of its claim.
pub(super) type Ticket = oneshot::Sender<Result<(), Refusal>>;

/// A client whose claim was granted, and what it has asked for.
pub(crate) struct Admission {
    pub(crate) client_id: String,
    pub(crate) time: u64,
    pub(crate) clean_start: bool,
}

/// When a client may have its session; the number is the time of its claim.
pub(crate) enum Entrance {
    Open(u64),
    /// When other nodes have answered.
    Later(u64, oneshot::Receiver<Result<(), Refusal>>),
}

impl Shard {
    /// Claims a client's id in the whole cluster.
    ///
    /// # Errors
    /// When this node refuses the client whatever others say: no session is to end for it elsewhere.
    pub(crate) fn claim_client(
        &mut self,
        arrival: &Arrival,
        now: Instant,
    ) -> Result<Entrance, ConnectCode> {
        let Arrival {
            peer,
            connect,
            identity,
            assigned_client_id,
            ..
        } = arrival;
        let Some(cluster) = self.shared.cluster.clone() else {
            return Ok(Entrance::Open(0));
        };
        let time = cluster.next_time();
        // One that was made up just now is nobody's.
        if *assigned_client_id {
            return Ok(Entrance::Open(time));
        }
        let client_id = &connect.client_id;
        self.check_store(client_id, self.expiry_of(connect))?;
        self.permit(connect, identity, peer)?;
        // A session that goes on comes however many there are; one that is to be new needs room.
        if connect.clean_start && self.sessions.find(client_id).is_none() {
            self.check_session_room()?;
        }
        self.follow_fellows(now);
        if self.clustered.fellows.is_empty() && !self.clustered.claims.is_open(client_id) {
            return Ok(Entrance::Open(time));
        }
        let policy = self.shared.access.policy();
        let terms = Terms {
            user: identity.user().map(Into::into),
            clean_start: connect.clean_start,
            is_entitled: policy.allows_client_id(identity, client_id),
            has_session: false,
            is_bereft: false,
        };
        let (ticket, verdict) = oneshot::channel();
        let claims = &mut self.clustered.claims;
        claims.claim(client_id, time, terms, ticket, now);
        self.act_on_claims(now);
        Ok(Entrance::Later(time, verdict))
    }

    /// Notes when a client has connected that has its session, or that one whose claim was granted has
    /// none.
    pub(crate) fn finish_claim(
        &mut self,
        admission: &Admission,
        key: Option<SessionKey>,
        now: Instant,
    ) {
        let Admission {
            client_id,
            time,
            clean_start,
        } = admission;
        if let Some(entry) = key.and_then(|key| self.sessions.get_mut(key)) {
            entry.time = *time;
            if *clean_start {
                entry.begun = *time;
            }
            entry.session.note_profile(entry.profile());
        }
        self.clustered.claims.finish(client_id, *time, now);
        self.act_on_claims(now);
    }

    pub(super) fn act_on_claims(&mut self, now: Instant) {
        while let Some(action) = self.clustered.claims.poll_action() {
            match action {
                Action::Ask {
                    client_id,
                    time,
                    terms,
                    fellows,
                } => self.ask(&client_id, time, terms, &fellows),
                // Who has gone meanwhile finds that out when it has its session.
                Action::Grant(ticket) => {
                    let _ = ticket.send(Ok(()));
                }
                Action::Refuse(ticket, refusal) => {
                    self.counters.inc(match refusal {
                        Refusal::TakenOver => Metric::ClosedTakenOver,
                        Refusal::Denied => Metric::RefusedAccess,
                        Refusal::Stuck => Metric::RefusedMove,
                    });
                    let _ = ticket.send(Err(refusal));
                }
                Action::Answer(claim, answer) => self.answer_claim(&claim, answer),
                Action::Yield(claim) => self.yield_session(claim, now),
                Action::Judge(claim) => self.judge_claim(claim, now),
                Action::Meet { client_id, fellows } => {
                    for fellow in fellows {
                        self.claim_session(fellow, &client_id);
                    }
                }
            }
        }
    }

    fn ask(&mut self, client_id: &str, time: u64, terms: Terms, fellows: &[Fellow]) {
        let Some(cluster) = &self.shared.cluster else {
            return;
        };
        let stamp = cluster.stamp(time);
        let word = Word::Claim {
            client_id,
            stamp,
            terms,
        };
        let word = word.encode();
        for fellow in fellows {
            self.outbox.push_word(fellow.end, &word, false);
        }
        self.outbox_work.notify_one();
    }

    fn answer_claim(&mut self, claim: &Claim, answer: Answer) {
        if let Answer::Newer(_) = &answer {
            self.claim_back(claim);
        }
        let word = Word::Answer {
            client_id: &claim.client_id,
            time: claim.stamp.time,
            answer,
        };
        self.say(claim.from.end, &word, false);
    }

    /// Sends a word to another node or shard; the result is the number of its frame.
    pub(super) fn say(&mut self, to: ShardId, word: &Word<'_>, is_awaited: bool) -> u64 {
        self.outbox_work.notify_one();
        self.outbox.push_word(to, &word.encode(), is_awaited)
    }

    fn judge_claim(&mut self, claim: Claim, now: Instant) {
        let client_id = &claim.client_id;
        self.promote_lost(client_id, now);
        let mut here = self.here(client_id);
        let Terms {
            is_bereft,
            clean_start,
            ..
        } = claim.terms;
        // Who wants none of an older session need not wait for one.
        let may_wait = is_bereft && !clean_start;
        if here == Here::Nothing && may_wait && self.shadows.has_copy(client_id) {
            here = Here::Copied;
        }
        self.clustered.claims.handle_claim(claim, here);
    }

    fn here(&mut self, client_id: &str) -> Here {
        if self.clustered.arrivals.contains_key(client_id) {
            return Here::Moving { time: 0 };
        }
        let key = self.sessions.find(client_id);
        let Some(entry) = key.and_then(|key| self.sessions.get_mut(key)) else {
            return Here::Nothing;
        };
        let time = entry.time;
        match entry.transit.as_deref() {
            None => Here::Session { time },
            Some(Transit::Settling(_)) => Here::Moving { time },
            Some(Transit::Leaving(leaving)) if leaving.is_installed => Here::Nothing,
            Some(Transit::Leaving(_)) => Here::Moving { time: 0 },
        }
    }

    /// Gives a session up to the node that claims it, or lets it go there.
    fn yield_session(&mut self, claim: Claim, now: Instant) {
        let Claim {
            from,
            client_id,
            stamp,
            terms,
            heard: _,
        } = &claim;
        let key = self.sessions.find(client_id);
        let Some(entry) = key.and_then(|key| self.sessions.get_mut(key)) else {
            return self.answer_claim(&claim, Answer::Nothing);
        };
        // An older claim may have had it by now.
        if entry.transit.is_some() {
            return self.judge_claim(claim, now);
        }
        let user = terms.user.as_deref();
        let is_same_user = entry.owner.user() == user;
        // As for clients of this node: see `check_client_id`.
        let is_users = entry.owner.user().is_some() && user.is_none();
        let may_have = terms.is_entitled || entry.is_assigned && is_same_user;
        if is_users || !may_have {
            debug!(%client_id, user, "not a client id of the user, who is on another node");
            return self.answer_claim(&claim, Answer::Denied);
        }
        let is_over = terms.clean_start || !is_same_user;
        match self.take_over(client_id, is_over, Heir::Elsewhere, now) {
            Some(key) => {
                self.answer_claim(&claim, Answer::Coming);
                self.depart(key, *from, stamp.time, now);
            }
            None => self.answer_claim(&claim, Answer::Nothing),
        }
    }

    /// Ends the session of nobody in particular that was claimed from a node where it is a user's: one
    /// of them has to go, and it would not have been let in there.
    fn end_denied(&mut self, client_id: &str, time: u64, now: Instant) {
        let key = self.sessions.find(client_id);
        let entry = key.and_then(|key| self.sessions.get_mut(key));
        let is_meant = entry.is_some_and(|entry| {
            entry.time == time && entry.transit.is_none() && entry.owner.user().is_none()
        });
        if is_meant && !self.clustered.claims.is_open(client_id) {
            debug!(client_id, "the client id is that of a user on another node");
            self.take_over(client_id, true, Heir::Elsewhere, now);
        }
    }

    /// Takes in a word of another shard: of another node, or of this one.
    pub(super) fn handle_word(
        &mut self,
        from: ShardId,
        bytes: &[u8],
        needs: &mut Needs,
        now: Instant,
    ) {
        if is_such(bytes) {
            self.handle_copies(from, bytes, needs, now);
            return self.act_on_claims(now);
        }
        self.follow_fellows(now);
        let Some(word) = Word::decode(bytes) else {
            return;
        };
        if let Word::Barrier { shard, number } = word {
            return self.mark(from, shard, number);
        }
        if let Word::Mark { number, of, .. } = word {
            return self.handle_mark(from, number, of, now);
        }
        let fellows = &self.clustered.fellows;
        // What it says is of a time before it was lost.
        let Some(from) = fellows.iter().find(|fellow| fellow.end == from).copied() else {
            return;
        };
        match word {
            Word::Claim {
                client_id,
                stamp,
                terms,
            } => {
                if let Some(cluster) = &self.shared.cluster {
                    cluster.see_time(stamp.time);
                }
                let claim = Claim {
                    from,
                    client_id: client_id.into(),
                    stamp,
                    terms,
                    heard: now,
                };
                self.judge_claim(claim, now);
            }
            Word::Answer {
                client_id,
                time,
                answer,
            } => {
                if let (Some(cluster), Answer::Newer(stamp)) = (&self.shared.cluster, &answer) {
                    cluster.see_time(stamp.time);
                }
                match answer {
                    Answer::Nothing => self.forget_arrival(from, client_id),
                    Answer::Denied => self.end_denied(client_id, time, now),
                    Answer::Newer(_) | Answer::Coming => {}
                }
                let claims = &mut self.clustered.claims;
                claims.handle_answer(from, client_id, time, answer, now);
            }
            Word::Piece {
                client_id,
                time,
                piece,
                greetings,
                is_last,
            } => {
                self.handle_piece(from, client_id, time, piece, now);
                if is_last {
                    self.handle_last_piece(from, client_id, time, greetings, now);
                }
            }
            Word::Installed { client_id, time } => {
                self.handle_installed(from, client_id, time, now)
            }
            Word::Unreadable { client_id, time } => {
                self.handle_unreadable(from, client_id, time, now);
            }
            Word::Forward {
                client_id,
                time,
                grant,
                message,
            } => {
                let forwarded = Forwarded {
                    from,
                    client_id,
                    time,
                    grant,
                    message,
                };
                self.handle_forward(forwarded, needs, now);
            }
            Word::Told { client_id, time } => self.handle_told(from, client_id, time),
            Word::Over { client_id, time } => self.handle_over(from, client_id, time, now),
            Word::Barrier { .. } | Word::Mark { .. } => {}
        }
        self.act_on_claims(now);
    }

    /// Takes note of nodes that have come or were lost.
    pub(crate) fn follow_fellows(&mut self, now: Instant) {
        let Some(fellows) = self.clustered.poll_fellows() else {
            return;
        };
        let known = &self.clustered.fellows;
        let met = fellows.iter().filter(|fellow| !known.contains(fellow));
        let meetings = met.map(|fellow| Meeting::new(*fellow));
        self.clustered.meetings.extend(meetings);
        self.outbox_work.notify_one();
        self.clustered.fellows.clone_from(&fellows);
        self.handle_lost_fellows(now);
        self.clustered.follow_lease(&self.shared);
        self.clustered.claims.handle_fellows(fellows, now);
        self.clustered.claims.release_all();
        self.act_on_claims(now);
    }
}
