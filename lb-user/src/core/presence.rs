//! Whether an address should be on the interface that is there only while its packets are served:
//! that of a `[[vip]]` with `without_backends = "withdraw"`.
//!
//! A routing daemon announces what it finds on the interface, so the address is all that it is told.
//! The program forwards what comes meanwhile with or without it: what is in flight, or was sent
//! before a router heard.

use super::vrrp::label::labelled;
use super::vrrp::node::Backing;

labelled! {
    /// Why it should not be there.
    Lack {
        /// The maps have not held what they should for a while.
        NotReady = "not_ready",
        /// No service of it has a backend.
        NoBackends = "no_backends",
        /// Nobody answers who is behind it. Other nodes may hear them; and if none does, nothing is
        /// lost that could have arrived.
        SilentBackends = "silent_backends",
        /// It was not found out yet of each backend whether it is up: nodes that know would send
        /// clients elsewhere.
        UnseenBackends = "unseen_backends",
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether the maps are good enough to forward by.
    pub is_ready: bool,
    /// The best that its services have; `None` if it has none, and nothing to wait for.
    pub backing: Option<Backing>,
    /// Whether a service of it starts anew, and has not seen all of its backends.
    pub is_fresh: bool,
}

impl Standing {
    /// What keeps the address off the interface; `None` if it should be there.
    #[must_use]
    pub const fn lack(self) -> Option<Lack> {
        match self {
            Self {
                is_ready: false, ..
            } => Some(Lack::NotReady),
            Self {
                backing: Some(Backing::Nobody),
                ..
            } => Some(Lack::NoBackends),
            Self {
                backing: Some(Backing::Silent),
                ..
            } => Some(Lack::SilentBackends),
            Self { is_fresh: true, .. } => Some(Lack::UnseenBackends),
            Self {
                backing: Some(Backing::Sound) | None,
                ..
            } => None,
        }
    }
}

impl Lack {
    /// The same for people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotReady => "the tables cannot be kept right",
            Self::NoBackends => "no service of it has a healthy backend",
            Self::SilentBackends => "no backend of it answers",
            Self::UnseenBackends => "not all of its backends were found up or down yet",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Backing, Lack, Standing};

    const SERVED: Standing = Standing {
        is_ready: true,
        backing: Some(Backing::Sound),
        is_fresh: false,
    };

    #[test]
    fn an_address_is_there_while_its_packets_are_served() {
        assert_eq!(SERVED.lack(), None);
        let backed = |backing| Standing { backing, ..SERVED };
        assert_eq!(backed(None).lack(), None);
        assert_eq!(backed(Some(Backing::Nobody)).lack(), Some(Lack::NoBackends));
        assert_eq!(
            backed(Some(Backing::Silent)).lack(),
            Some(Lack::SilentBackends)
        );
        let unready = Standing {
            is_ready: false,
            ..SERVED
        };
        assert_eq!(unready.lack(), Some(Lack::NotReady));
    }

    #[test]
    fn who_starts_anew_waits_until_all_backends_were_seen_and_says_first_that_none_is_there() {
        let fresh = Standing {
            is_fresh: true,
            ..SERVED
        };
        assert_eq!(fresh.lack(), Some(Lack::UnseenBackends));
        let nobody = Standing {
            backing: Some(Backing::Nobody),
            ..fresh
        };
        assert_eq!(nobody.lack(), Some(Lack::NoBackends));
    }
}
