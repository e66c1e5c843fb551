//! One change of a session, as another node is told of it.

use std::sync::Arc;

use crate::{
    codec::packet::PacketId,
    message::MessageId,
    session::{
        Grant, Restored, RestoredMessage, Subscription,
        journal::{Change, Progress, Seq, Spread, State},
    },
    shares::ShareId,
    topic,
};

/// A group and its filter.
pub type Group = (Box<str>, Box<str>);

/// A [`Change`] without what whoever has heard all before it knows already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All of the session follows, and nothing that was told before counts.
    Whole,
    /// As [`Step::Whole`]; until it is complete, the node with this hash of its name has all of it.
    Replacing(u64),
    Complete,
    State(State),
    Subscribed(Box<str>, Subscription),
    Unsubscribed(Box<str>),
    /// A message is the session's. Its group goes by its name: numbers are a node's own.
    Taken(RestoredMessage),
    /// One that waited is on its way.
    Published(Seq, PacketId),
    /// The client has it.
    Released(Seq, PacketId),
    Done(Seq),
    /// A QoS 2 message of the client's awaits its PUBREL.
    Received(PacketId, Spread),
    Completed(PacketId),
    /// The client may have had a message that this node, which was held for gone, still has for it.
    Had(u64, MessageId),
    Ended,
}

impl Step {
    /// What another node is told of a change; `None` for one that is about this node's shards.
    pub fn of(change: &Change, name: impl Fn(ShareId) -> Option<Group>) -> Option<Self> {
        Some(match change {
            Change::State(state) => Self::State(state.clone()),
            Change::Subscribed(filter, subscription) => {
                Self::Subscribed(filter.clone(), *subscription)
            }
            Change::Unsubscribed(filter) => Self::Unsubscribed(filter.clone()),
            Change::Taken {
                seq,
                message,
                grant,
                progress,
            } => Self::taken(
                RestoredMessage {
                    seq: *seq,
                    progress: *progress,
                    content: Some((Arc::clone(message), grant.clone())),
                    group: None,
                },
                name,
            ),
            Change::Published { seq, id, .. } => Self::Published(*seq, *id),
            Change::Released { seq, id, .. } => Self::Released(*seq, *id),
            Change::Done { seq, .. } => Self::Done(*seq),
            Change::Received(id, spread) => Self::Received(*id, *spread),
            Change::Spread(..) => return None,
            Change::Completed(id) => Self::Completed(*id),
            Change::Ended(_) => Self::Ended,
        })
    }

    /// All that there is to tell of a session to who knows nothing of it.
    pub fn whole(restored: Restored, name: impl Fn(ShareId) -> Option<Group>) -> Vec<Self> {
        let Restored {
            session: _,
            profile,
            expiry,
            ends,
            will,
            will_due,
            subscriptions,
            received,
            messages,
        } = restored;
        let mut steps = vec![
            Self::Whole,
            Self::State(State {
                profile: Arc::new(profile),
                expiry,
                ends,
                will,
                will_due,
            }),
        ];
        let subscribed = |(filter, subscription)| Self::Subscribed(filter, subscription);
        steps.extend(subscriptions.into_iter().map(subscribed));
        let received = received.into_iter();
        steps.extend(received.map(|(id, spread)| Self::Received(id, spread)));
        steps.extend(
            messages
                .into_iter()
                .map(|message| Self::taken(message, &name)),
        );
        steps
    }

    /// Whether a session may have come to this by what clients say: nodes are believed no further.
    pub(super) fn is_legal(&self) -> bool {
        match self {
            Self::State(state) => {
                let will = state.will.as_ref();
                will.is_none_or(|will| topic::is_valid_name(&will.message.topic))
            }
            Self::Subscribed(filter, _subscription) => topic::parse_filter(filter).is_some(),
            Self::Taken(message) => {
                let content = message.content.as_ref();
                content.is_none_or(|(message, _grant)| topic::is_valid_name(&message.topic))
            }
            Self::Whole
            | Self::Replacing(_)
            | Self::Complete
            | Self::Unsubscribed(_)
            | Self::Published(..)
            | Self::Released(..)
            | Self::Done(_)
            | Self::Received(..)
            | Self::Completed(_)
            | Self::Had(..)
            | Self::Ended => true,
        }
    }

    pub(crate) fn taken(
        mut message: RestoredMessage,
        name: impl Fn(ShareId) -> Option<Group>,
    ) -> Self {
        if let Some((_message, Grant { share, .. })) = &mut message.content
            && let Some(share) = share.take()
        {
            message.group = name(share);
        }
        Self::Taken(message)
    }
}

pub(super) fn content_bytes(message: &RestoredMessage) -> usize {
    let content = message.content.as_ref();
    content.map_or(0, |(message, _grant)| message.size())
}

/// Where a message is that has none of its content left.
pub(super) fn without_content(seq: Seq, progress: Progress) -> RestoredMessage {
    RestoredMessage {
        seq,
        progress,
        content: None,
        group: None,
    }
}
