//! How much each event matters.

use super::{Event, Moved, Severity};
use crate::core::{health::HealthState, vrrp::track::TrackState};

impl Event {
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::AdvertStray { .. }
            | Self::Login { .. }
            | Self::BackendOrdered { .. }
            | Self::VipMoved {
                what: Moved::Assigned | Moved::Found | Moved::Removed,
                ..
            }
            | Self::BackendHealth {
                from: HealthState::Unknown,
                to: HealthState::Up,
                ..
            }
            | Self::BackendHealth {
                to: HealthState::Unknown,
                ..
            } => Severity::Info,
            Self::TrackChanged {
                state: TrackState::Unknown | TrackState::Up,
                ..
            } => Severity::Notice,
            Self::RouterFaults { faults, .. } if faults.is_empty() => Severity::Notice,
            Self::RouterPriority { lowered_by, .. } if lowered_by.is_empty() => Severity::Notice,
            Self::RoleChanged { .. }
            | Self::BackendHealth {
                to: HealthState::Up,
                ..
            }
            | Self::VipAnnounced { .. }
            | Self::BackendEvacuating { .. }
            | Self::BackendWelcoming { .. }
            | Self::BackendDrained { .. }
            | Self::BackendLeft { .. }
            | Self::BackendsHeard {}
            | Self::ServiceUp { .. }
            | Self::FlowsRoom {}
            | Self::FloodEnded { .. }
            | Self::MapsRestored {}
            | Self::Started { .. }
            | Self::Stopping {}
            | Self::Reloaded { .. }
            | Self::SyncUp { .. }
            | Self::AccountsTaken { .. }
            | Self::NotifyTest { .. } => Severity::Notice,
            Self::RouterFaults { .. }
            | Self::RouterPriority { .. }
            | Self::RouterUnfit { .. }
            | Self::AdvertRefused { .. }
            | Self::AdvertOdd { .. }
            | Self::VrrpTrouble { .. }
            | Self::VipMoved {
                what: Moved::Restored | Moved::Left,
                ..
            }
            | Self::VipRefused { .. }
            | Self::VipWithdrawn { .. }
            | Self::BackendHealth {
                to: HealthState::Down,
                ..
            }
            | Self::BackendsSilent { .. }
            | Self::FlowsFull {}
            | Self::KeepAliveClaimed { .. }
            | Self::FloodBegan { .. }
            | Self::SyncDown { .. }
            | Self::TrackChanged {
                state: TrackState::Down,
                ..
            }
            | Self::LoginFailed { .. }
            | Self::AccountsRefused { .. }
            | Self::NotifyFailed { .. } => Severity::Warning,
            Self::ServiceDown { .. } | Self::MapsFailed { .. } | Self::ReloadFailed { .. } => {
                Severity::Error
            }
        }
    }
}
