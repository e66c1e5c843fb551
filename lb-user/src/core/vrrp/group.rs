//! Sync groups: routers of one node that are Active together or not at all, such as those of the
//! IPv4 and the IPv6 address of one service. A router without a group is a group of one.
//!
//! - One that becomes Active takes the others along at once, unless another still hears an Active
//!   that it follows: then that node lives, and only the way of these adverts is broken. To take
//!   over would make two Actives there, and each node yield to the other in turn.
//! - One that yields to a higher Active takes the others along: they hand their roles over, and
//!   stay Active until their successors are heard.
//! - One that is held, for whatever reason, holds the others.

use std::time::Instant;

use super::advert::{Addresses, Advert, Envelope};
use super::machine::Machine;
use super::refusal::{Refusal, Remark};
use super::role::{Change, Hold, Role};

/// Routers that move together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    machine: Machine,
    /// Whether it was Active, and meant to stay it, when the group was looked at last.
    was_standing: bool,
}

impl Group {
    /// A group of these, in this order.
    #[must_use]
    pub fn new(machines: Vec<Machine>) -> Self {
        let member = |machine: Machine| Member {
            was_standing: machine.is_standing(),
            machine,
        };
        Self {
            members: machines.into_iter().map(member).collect(),
        }
    }

    /// The members.
    pub fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.members.iter().map(|member| &member.machine)
    }

    /// Starts all members.
    pub fn handle_startup(&mut self, now: Instant) {
        self.for_each(|machine| machine.handle_startup(now));
        self.settle(now);
    }

    /// Stops all members.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.for_each(Machine::handle_shutdown);
        self.settle(now);
    }

    /// See [`Machine::handle_advert`]; `member` counts from 0.
    ///
    /// # Errors
    /// Why it was refused, which it also is when there is no such member.
    pub fn handle_advert(
        &mut self,
        member: usize,
        advert: &Advert,
        envelope: &Envelope,
        now: Instant,
    ) -> Result<Option<Remark>, Refusal> {
        self.update(member, now, |machine| {
            machine.handle_advert(advert, envelope, now)
        })
        .unwrap_or(Err(Refusal::Vrid))
    }

    /// Does to one member whatever is to be done, and to the others what follows.
    pub fn update<T>(
        &mut self,
        member: usize,
        now: Instant,
        change: impl FnOnce(&mut Machine) -> T,
    ) -> Option<T> {
        let result = change(&mut self.members.get_mut(member)?.machine);
        self.settle(now);
        Some(result)
    }

    /// See [`Machine::handle_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        let followings: Vec<_> = self
            .machines()
            .map(|machine| machine.following(now))
            .collect();
        for Member { machine, .. } in &mut self.members {
            let is_alive = followings.iter().flatten();
            let is_alive = is_alive.filter(|other| machine.is_behind(other.since));
            if let Some(until) = is_alive.map(|other| other.until).max()
                && machine.is_down_due(now)
            {
                machine.defer(until);
            }
        }
        self.for_each(|machine| machine.handle_timeout(now));
        self.settle(now);
    }

    /// See [`Machine::poll_advert`]; with the member that sends it.
    pub fn poll_advert(&mut self) -> Option<(usize, Advert)> {
        self.first(Machine::poll_advert)
    }

    /// See [`Machine::poll_announce`]; with the member whose addresses they are.
    pub fn poll_announce(&mut self, now: Instant) -> Option<(usize, Addresses)> {
        self.first(|machine| machine.poll_announce(now))
    }

    /// See [`Machine::poll_change`]; with the member that has changed.
    pub fn poll_change(&mut self) -> Option<(usize, Change)> {
        self.first(Machine::poll_change)
    }

    /// See [`Machine::next_deadline`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.machines().filter_map(Machine::next_deadline).min()
    }

    fn for_each(&mut self, change: impl FnMut(&mut Machine)) {
        let machines = self.members.iter_mut().map(|member| &mut member.machine);
        machines.for_each(change);
    }

    fn first<T>(&mut self, poll: impl Fn(&mut Machine) -> Option<T>) -> Option<(usize, T)> {
        let mut members = self.members.iter_mut().enumerate();
        members.find_map(|(at, member)| Some((at, poll(&mut member.machine)?)))
    }

    /// Makes all follow what one has done.
    fn settle(&mut self, now: Instant) {
        self.settle_holds(now);
        let members = self.members.iter();
        let changed = members.filter(|member| member.was_standing != member.machine.is_standing());
        // Who was shut down takes nobody along.
        let changed = changed.filter(|member| member.machine.role() != Role::Initialize);
        let (mut has_won, mut has_lost) = (false, false);
        for member in changed {
            has_won |= !member.was_standing;
            has_lost |= member.was_standing;
        }
        if has_lost {
            self.for_each(|machine| machine.join_leaving(now));
        } else if has_won {
            self.for_each(|machine| machine.join_active(now));
        }
        for member in &mut self.members {
            member.was_standing = member.machine.is_standing();
        }
    }

    fn settle_holds(&mut self, now: Instant) {
        let is_held = |machine: &Machine| machine.holds().any(|hold| hold != Hold::Group);
        let held: Vec<bool> = self.machines().map(is_held).collect();
        for (at, member) in self.members.iter_mut().enumerate() {
            let mut others = held.iter().enumerate();
            let is_other_held = others.any(|(other, is_held)| *is_held && other != at);
            let has_hold = member.machine.holds().any(|hold| hold == Hold::Group);
            match (is_other_held, has_hold) {
                (true, false) => member.machine.release(Hold::Group, now),
                (false, true) => member.machine.resume(Hold::Group, now),
                (true, true) | (false, false) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
