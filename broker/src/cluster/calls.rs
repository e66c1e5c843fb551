//! Whom the node calls, and when: the seeds of its configuration, and whom other members name.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Addresses that are called at most; a cluster has far fewer nodes.
const MOST: usize = 64;

/// How often the time between two calls of an address is doubled at most.
const LONGEST_BACKOFF: u32 = 4;

/// An address that somebody named is called for so long without success.
const PATIENCE: Duration = Duration::from_secs(3600);

/// All addresses that may be called.
#[derive(Debug)]
pub(super) struct Calls {
    targets: BTreeMap<Box<str>, Target>,
    /// How long an address is left alone after a first failure.
    retry: Duration,
}

#[derive(Debug)]
struct Target {
    is_seed: bool,
    /// Who answered there, or is said to.
    node: Option<Box<str>>,
    state: State,
    /// When somebody answered there for the last time, or the address was named.
    answered: Instant,
    /// In a row.
    failures: u32,
    trouble: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        until: Instant,
    },
    Calling,
    /// It is the node's own: not to be called again.
    Own,
}

impl Calls {
    pub(super) fn new(retry: Duration) -> Self {
        Self {
            targets: BTreeMap::new(),
            retry,
        }
    }

    /// Adds an address of the operator's, to be called for as long as the node runs, and at once.
    pub(super) fn add_seed(&mut self, address: &str, now: Instant) {
        let target = self.add(address, now);
        target.is_seed = true;
        target.trouble = None;
        target.failures = 0;
        if target.state != State::Calling {
            target.state = State::Waiting { until: now };
        }
    }

    /// Adds the address of a node that another one is connected to.
    pub(super) fn learn(&mut self, address: &str, node: &str, now: Instant) {
        if self.targets.len() < MOST || self.targets.contains_key(address) {
            let target = self.add(address, now);
            target.node.get_or_insert_with(|| node.into());
        }
    }

    fn add(&mut self, address: &str, now: Instant) -> &mut Target {
        self.targets.entry(address.into()).or_insert(Target {
            is_seed: false,
            node: None,
            state: State::Waiting { until: now },
            answered: now,
            failures: 0,
            trouble: None,
        })
    }

    /// The addresses whose time has come, of nodes that are not connected.
    pub(super) fn due(&mut self, now: Instant, is_met: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        self.targets.retain(|_address, target| {
            target.is_seed || now.saturating_duration_since(target.answered) < PATIENCE
        });
        let due = self.targets.iter_mut().filter_map(|(address, target)| {
            let State::Waiting { until } = target.state else {
                return None;
            };
            if target.node.as_deref().is_some_and(&is_met) {
                target.answered = now;
                return None;
            }
            (until <= now).then(|| {
                target.state = State::Calling;
                address.clone()
            })
        });
        due.collect()
    }

    /// Notes who answered. What comes of it is another matter.
    pub(super) fn note_met(&mut self, address: &str, node: &str, now: Instant) {
        if let Some(target) = self.targets.get_mut(address) {
            target.node = Some(node.into());
            target.answered = now;
        }
    }

    /// Notes that a connection to a node serves, whoever has called.
    pub(super) fn note_open(&mut self, node: &str, now: Instant) {
        let targets = self.targets.values_mut();
        for target in targets.filter(|target| target.node.as_deref() == Some(node)) {
            target.answered = now;
            target.failures = 0;
            target.trouble = None;
        }
    }

    pub(super) fn note_own(&mut self, address: &str) {
        if let Some(target) = self.targets.get_mut(address) {
            target.state = State::Own;
            target.trouble = None;
        }
    }

    /// Notes that a call is over, and by what trouble; the result is whether that is news.
    pub(super) fn handle_ended(
        &mut self,
        address: &str,
        trouble: Option<&str>,
        now: Instant,
    ) -> bool {
        let Some(target) = self.targets.get_mut(address) else {
            return false;
        };
        if target.state != State::Own {
            target.state = State::Waiting {
                until: now + self.retry * (1 << target.failures.min(LONGEST_BACKOFF)),
            };
            target.failures = target.failures.saturating_add(1);
        }
        let Some(trouble) = trouble else { return false };
        let is_news = target.trouble.as_deref() != Some(trouble);
        target.trouble = Some(trouble.into());
        is_news
    }

    /// Calls a node no more that has gone for good, unless the operator wants it.
    pub(super) fn forget(&mut self, node: &str) {
        self.targets
            .retain(|_address, target| target.is_seed || target.node.as_deref() != Some(node));
    }

    /// Calls nobody any more, until told to.
    pub(super) fn clear(&mut self) {
        self.targets.clear();
    }

    /// Whether nobody has answered at any address.
    pub(super) fn are_in_vain(&self) -> bool {
        let mut targets = self.targets.values();
        targets.all(|target| target.trouble.is_some() || target.state == State::Own)
    }

    /// Whether somebody who is there has answered at each address, or it was called in vain.
    pub(super) fn are_tried(&self, is_there: impl Fn(&str) -> bool) -> bool {
        self.targets.values().all(|target| {
            let is_there = target.node.as_deref().is_some_and(&is_there);
            is_there || target.trouble.is_some() || target.state == State::Own
        })
    }

    /// The node behind an address, if it is known, and what troubles calls.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>, Option<&str>)> {
        self.targets.iter().map(|(address, target)| {
            let (node, trouble) = (target.node.as_deref(), target.trouble.as_deref());
            (&**address, node, trouble)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: Duration = Duration::from_secs(1);

    #[test]
    fn address_is_called_again_after_a_while_and_not_while_its_node_is_there() {
        let start = Instant::now();
        let mut calls = Calls::new(RETRY);
        calls.add_seed("a:1", start);
        assert_eq!(calls.due(start, |_| false), ["a:1".into()]);
        assert!(calls.due(start + RETRY, |_| false).is_empty());
        assert!(calls.handle_ended("a:1", Some("nobody is there"), start));
        assert!(calls.due(start, |_| false).is_empty());
        assert_eq!(calls.due(start + RETRY, |_| false), ["a:1".into()]);
        // The same trouble again is no news, and the next call is later.
        assert!(!calls.handle_ended("a:1", Some("nobody is there"), start));
        assert!(calls.due(start + RETRY, |_| false).is_empty());
        assert_eq!(calls.due(start + 2 * RETRY, |_| false), ["a:1".into()]);
        // Nor is it when somebody answers and it comes to nothing all the same.
        calls.note_met("a:1", "n", start);
        assert!(!calls.handle_ended("a:1", Some("nobody is there"), start));
        assert!(calls.due(start + 3 * RETRY, |_| false).is_empty());
        assert_eq!(calls.due(start + 4 * RETRY, |_| false), ["a:1".into()]);
        calls.note_open("n", start);
        assert!(!calls.are_in_vain());
        calls.handle_ended("a:1", None, start);
        assert!(calls.due(start + RETRY, |node| node == "n").is_empty());
        assert_eq!(calls.due(start + RETRY, |_| false), ["a:1".into()]);
    }

    #[test]
    fn operator_who_names_an_address_again_has_it_called_at_once() {
        let start = Instant::now();
        let mut calls = Calls::new(RETRY);
        calls.add_seed("a:1", start);
        calls.due(start, |_| false);
        calls.handle_ended("a:1", Some("nobody is there"), start);
        calls.add_seed("a:1", start);
        assert!(!calls.are_in_vain());
        assert_eq!(calls.due(start, |_| false), ["a:1".into()]);
    }

    #[test]
    fn address_is_tried_when_who_answered_is_there_or_nobody_did() {
        let start = Instant::now();
        let mut calls = Calls::new(RETRY);
        assert!(calls.are_tried(|_| false));
        for address in ["a:1", "b:1", "own:1"] {
            calls.add_seed(address, start);
        }
        calls.due(start, |_| false);
        calls.note_own("own:1");
        calls.note_met("a:1", "n", start);
        assert!(!calls.are_tried(|_| true));
        calls.handle_ended("b:1", Some("nobody is there"), start);
        assert!(!calls.are_tried(|_| false));
        assert!(calls.are_tried(|node| node == "n"));
    }

    #[test]
    fn own_address_is_called_once() {
        let start = Instant::now();
        let mut calls = Calls::new(RETRY);
        calls.add_seed("a:1", start);
        calls.due(start, |_| false);
        calls.note_own("a:1");
        calls.handle_ended("a:1", None, start);
        assert!(calls.due(start + 9 * RETRY, |_| false).is_empty());
    }

    #[test]
    fn addresses_that_others_name_are_few_and_not_for_ever() {
        let start = Instant::now();
        let mut calls = Calls::new(RETRY);
        calls.add_seed("seed:1", start);
        for number in 0..2 * MOST {
            calls.learn(&format!("a:{number}"), &format!("n{}", number % 2), start);
        }
        assert_eq!(calls.iter().count(), MOST);
        calls.forget("n0");
        assert!(calls.iter().count() < MOST);
        let due = calls.due(start + PATIENCE, |_| false);
        assert_eq!(due, ["seed:1".into()]);
    }
}
