//! What one client may do: the rules that are about it, in their order.

use std::sync::Arc;

use super::{
    Action, Effect, Identity,
    cover::{covers, overlap},
};
use crate::topic::{self, Wanted};

/// A rule with the names of one client in its filter.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) index: usize,
    pub(super) effect: Effect,
    pub(super) action: Action,
    /// All topics if `None`.
    pub(super) filter: Option<Box<str>>,
}

/// What one client may do.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    /// Rules that many clients have in common, held once.
    shared: Arc<[Compiled]>,
    own: Arc<[Compiled]>,
    default: Effect,
}

impl Permit {
    pub(super) fn new(shared: Arc<[Compiled]>, own: Arc<[Compiled]>, default: Effect) -> Self {
        Self {
            shared,
            own,
            default,
        }
    }

    pub(crate) fn everything() -> Self {
        Self::new(Arc::default(), Arc::default(), Effect::Allow)
    }

    /// What a client may do where there is no ACL file: all, or what its login says. One that should
    /// say so, and does not, allows nothing.
    pub(crate) fn granted(identity: &Identity, client_id: &str) -> Self {
        let Some(grants) = &identity.grants else {
            return if identity.lacks_grants() {
                Self::nothing()
            } else {
                Self::everything()
            };
        };
        let own = grants.compile(identity.user(), client_id);
        Self::new(Arc::default(), own.into(), Effect::Deny)
    }

    pub(crate) fn nothing() -> Self {
        Self::new(Arc::default(), Arc::default(), Effect::Deny)
    }

    /// Whether the client may publish to a topic.
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        let decided = self
            .rules(Action::Publish)
            .find(|rule| rule.covers(topic))
            .map_or(self.default, |rule| rule.effect);
        decided == Effect::Allow
    }

    /// Whether the client may have every message that a filter matches; of a shared subscription,
    /// the filter behind the group's name counts.
    pub(crate) fn may_subscribe(&self, filter: &str) -> bool {
        let filter = match topic::parse_filter(filter) {
            Some(Wanted::All(filter)) => filter,
            Some(Wanted::Share(shared)) => shared.filter,
            None => return false,
        };
        let decided = self
            .rules(Action::Subscribe)
            .find(|rule| match rule.effect {
                Effect::Allow => rule.covers(filter),
                Effect::Deny => rule.overlaps(filter),
            })
            .map_or(self.default, |rule| rule.effect);
        decided == Effect::Allow
    }

    /// Both lists as one, in the order of the file.
    fn rules(&self, action: Action) -> impl Iterator<Item = &Compiled> {
        let mut shared = self.shared.iter().peekable();
        let mut own = self.own.iter().peekable();
        std::iter::from_fn(move || match (shared.peek(), own.peek()) {
            (Some(common), Some(mine)) if mine.index < common.index => own.next(),
            (Some(_), _) => shared.next(),
            (None, _) => own.next(),
        })
        .filter(move |rule| rule.action == action || rule.action == Action::All)
    }
}

impl Compiled {
    fn covers(&self, filter: &str) -> bool {
        self.filter.as_ref().is_none_or(|own| covers(own, filter))
    }

    fn overlaps(&self, filter: &str) -> bool {
        self.filter.as_ref().is_none_or(|own| overlap(own, filter))
    }
}
