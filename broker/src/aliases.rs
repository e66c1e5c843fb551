//! Topic aliases of one connection: numbers that stand for topics once these were told (MQTT 5,
//! 3.3.2.3.4). The client's and the broker's have nothing to do with each other.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use thiserror::Error;

use crate::codec::packet::{Naming, TopicAlias, reason};

/// An alias saves its topic and costs this many bytes; for shorter topics it is a loss.
const ALIAS_BYTES: usize = 3;

/// Why an alias cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum UnknownAlias {
    #[error("topic alias above the maximum")]
    AboveMaximum,
    #[error("topic alias stands for no topic")]
    Unset,
}

impl From<UnknownAlias> for u8 {
    fn from(error: UnknownAlias) -> Self {
        match error {
            UnknownAlias::AboveMaximum => reason::TOPIC_ALIAS_INVALID,
            UnknownAlias::Unset => reason::PROTOCOL_ERROR,
        }
    }
}

/// What the client's aliases stand for.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    maximum: u16,
    /// The alias `n` is at `n - 1`.
    topics: Vec<Option<Box<str>>>,
}

impl Incoming {
    pub(crate) fn new(maximum: u16) -> Self {
        Self {
            maximum,
            topics: Vec::new(),
        }
    }

    /// Takes note of a topic, or fills an empty one in.
    pub(crate) fn resolve(
        &mut self,
        alias: TopicAlias,
        topic: &mut Box<str>,
    ) -> Result<(), UnknownAlias> {
        if alias.get() > self.maximum {
            return Err(UnknownAlias::AboveMaximum);
        }
        let place = usize::from(alias.get() - 1);
        if topic.is_empty() {
            let known = self.topics.get(place).and_then(Option::as_ref);
            *topic = known.ok_or(UnknownAlias::Unset)?.clone();
            return Ok(());
        }
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        if let Some(known) = self.topics.get_mut(place) {
            *known = Some(topic.clone());
        }
        Ok(())
    }
}

/// The aliases that the broker has given to the topics which it sent last.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    maximum: u16,
    given: HashMap<Rc<str>, Given>,
    /// The topics by their last use.
    uses: BTreeMap<u64, Rc<str>>,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    alias: TopicAlias,
    last_use: u64,
}

impl Outgoing {
    pub(crate) fn new(maximum: u16) -> Self {
        Self {
            maximum,
            ..Self::default()
        }
    }

    /// How to tell a topic by an alias in a packet that `fits`; `None` when its name alone is the
    /// better way. What is returned must be sent.
    pub(crate) fn name(&mut self, topic: &str, fits: impl Fn(Naming) -> bool) -> Option<Naming> {
        if self.maximum == 0 || topic.len() <= ALIAS_BYTES {
            return None;
        }
        if let Some((topic, given)) = self.given.get_key_value(topic) {
            let (topic, given) = (Rc::clone(topic), *given);
            let naming = Naming::Alias(given.alias);
            if !fits(naming) {
                return None;
            }
            self.uses.remove(&given.last_use);
            self.note(topic, given.alias);
            return Some(naming);
        }
        let alias = self.next_alias()?;
        let naming = Naming::NameAndAlias(alias);
        if !fits(naming) {
            return None;
        }
        if self.given.len() >= usize::from(self.maximum)
            && let Some((_last_use, oldest)) = self.uses.pop_first()
        {
            self.given.remove(&oldest);
        }
        self.note(topic.into(), alias);
        Some(naming)
    }

    /// One that was not given yet, or that of the topic whose last use is the longest ago.
    fn next_alias(&self) -> Option<TopicAlias> {
        let given = u16::try_from(self.given.len()).unwrap_or(u16::MAX);
        if given < self.maximum {
            return TopicAlias::new(given + 1);
        }
        let (_last_use, oldest) = self.uses.first_key_value()?;
        self.given.get(oldest).map(|given| given.alias)
    }

    fn note(&mut self, topic: Rc<str>, alias: TopicAlias) {
        self.clock += 1;
        let last_use = self.clock;
        self.uses.insert(last_use, Rc::clone(&topic));
        self.given.insert(topic, Given { alias, last_use });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(number: u16) -> TopicAlias {
        TopicAlias::new(number).unwrap()
    }

    fn resolve(incoming: &mut Incoming, number: u16, topic: &str) -> Result<String, UnknownAlias> {
        let mut topic = topic.into();
        incoming
            .resolve(alias(number), &mut topic)
            .map(|()| topic.into())
    }

    #[test]
    fn aliases_stand_for_the_last_topic_that_came_with_them() {
        let mut incoming = Incoming::new(2);
        assert_eq!(resolve(&mut incoming, 2, ""), Err(UnknownAlias::Unset));
        assert_eq!(resolve(&mut incoming, 2, "a"), Ok("a".to_owned()));
        assert_eq!(resolve(&mut incoming, 2, ""), Ok("a".to_owned()));
        assert_eq!(resolve(&mut incoming, 1, ""), Err(UnknownAlias::Unset));
        assert_eq!(resolve(&mut incoming, 2, "b"), Ok("b".to_owned()));
        assert_eq!(resolve(&mut incoming, 2, ""), Ok("b".to_owned()));
    }

    #[test]
    fn aliases_above_the_maximum_are_refused() {
        let above = Err(UnknownAlias::AboveMaximum);
        assert_eq!(resolve(&mut Incoming::new(2), 3, "a"), above);
        assert_eq!(resolve(&mut Incoming::new(0), 1, "a"), above);
    }

    #[test]
    fn least_recently_used_alias_is_given_away() {
        use Naming::{Alias, NameAndAlias};
        let mut outgoing = Outgoing::new(2);
        let mut name = |topic| outgoing.name(topic, |_naming| true);
        assert_eq!(name("long/a"), Some(NameAndAlias(alias(1))));
        assert_eq!(name("long/b"), Some(NameAndAlias(alias(2))));
        assert_eq!(name("long/a"), Some(Alias(alias(1))));
        assert_eq!(name("long/c"), Some(NameAndAlias(alias(2))));
        assert_eq!(name("long/a"), Some(Alias(alias(1))));
        assert_eq!(name("long/b"), Some(NameAndAlias(alias(2))));
        assert_eq!(name("long/c"), Some(NameAndAlias(alias(1))));
    }

    #[test]
    fn topics_that_gain_nothing_have_no_alias() {
        assert_eq!(Outgoing::new(9).name("abc", |_naming| true), None);
        assert_eq!(Outgoing::new(0).name("abcd", |_naming| true), None);
    }

    #[test]
    fn alias_that_was_not_sent_is_not_used() {
        let mut outgoing = Outgoing::new(1);
        assert_eq!(outgoing.name("long/a", |_naming| false), None);
        let first = outgoing.name("long/a", |_naming| true);
        assert_eq!(first, Some(Naming::NameAndAlias(alias(1))));
        // A packet for another topic that does not fit leaves the alias alone.
        assert_eq!(outgoing.name("long/b", |_naming| false), None);
        let again = outgoing.name("long/a", |_naming| true);
        assert_eq!(again, Some(Naming::Alias(alias(1))));
    }
}
