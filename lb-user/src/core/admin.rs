//! What operators have said about backends, kept across restarts.
//!
//! Pure: the daemon reads and writes the file. A backend nobody spoke of has no entry; a backend
//! that is taken out of the file takes its entry with it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::balancer::BackendKey;

/// Whether a backend is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admin {
    /// Used as its health and weight allow.
    #[default]
    Enabled,
    /// Takes no new flows; those recorded for it go on.
    Draining,
    /// Takes no packet at all.
    Disabled,
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

/// What operators have said about all backends. Serializes to a map from `service/backend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AdminState {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    state: Admin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
}

impl AdminState {
    /// Whether `backend` is to be used.
    #[must_use]
    pub fn admin(&self, backend: &BackendKey) -> Admin {
        self.entry(backend).state
    }

    /// The weight that overrides the configured one, if any.
    #[must_use]
    pub fn weight(&self, backend: &BackendKey) -> Option<u16> {
        self.entry(backend).weight
    }

    pub(super) fn set_admin(&mut self, backend: &BackendKey, state: Admin) {
        let entry = Entry {
            state,
            ..self.entry(backend)
        };
        self.set(backend, entry);
    }

    pub(super) fn set_weight(&mut self, backend: &BackendKey, weight: Option<u16>) {
        let entry = Entry {
            weight,
            ..self.entry(backend)
        };
        self.set(backend, entry);
    }

    /// Forgets every backend that is not among `known`.
    pub(super) fn retain(&mut self, known: impl IntoIterator<Item = BackendKey>) {
        let known: Vec<String> = known.into_iter().map(|key| key.to_string()).collect();
        self.entries.retain(|key, _| known.contains(key));
    }

    fn entry(&self, backend: &BackendKey) -> Entry {
        self.entries
            .get(&backend.to_string())
            .copied()
            .unwrap_or_default()
    }

    fn set(&mut self, backend: &BackendKey, entry: Entry) {
        if entry == Entry::default() {
            self.entries.remove(&backend.to_string());
        } else {
            self.entries.insert(backend.to_string(), entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Admin, AdminState};
    use crate::core::balancer::BackendKey;

    #[test]
    fn state_survives_json() {
        let mut state = AdminState::default();
        state.set_admin(&BackendKey::new("mqtt", "a"), Admin::Draining);
        state.set_weight(&BackendKey::new("mqtt", "b"), Some(7));
        let json = serde_json::to_string(&state).unwrap();
        assert_eq!(
            json,
            r#"{"mqtt/a":{"state":"draining"},"mqtt/b":{"state":"enabled","weight":7}}"#
        );
        assert_eq!(serde_json::from_str::<AdminState>(&json).unwrap(), state);
    }

    #[test]
    fn entry_that_says_nothing_is_dropped() {
        let key = BackendKey::new("mqtt", "a");
        let mut state = AdminState::default();
        state.set_admin(&key, Admin::Disabled);
        state.set_admin(&key, Admin::Enabled);
        assert_eq!(state, AdminState::default());
    }

    #[test]
    fn backends_that_left_are_forgotten() {
        let (a, b) = (BackendKey::new("mqtt", "a"), BackendKey::new("mqtt", "b"));
        let mut state = AdminState::default();
        state.set_admin(&a, Admin::Disabled);
        state.set_admin(&b, Admin::Disabled);
        state.retain([b.clone()]);
        assert_eq!(
            (state.admin(&a), state.admin(&b)),
            (Admin::Enabled, Admin::Disabled)
        );
    }
}
