//! Puts together what there is to tell of routers.

use std::collections::BTreeMap;

use crate::{
    config::model::VrrpVersion,
    control::{AdvertsStatus, PeerStatus, RoleChange, RouterStatus, TrackStatus, VrrpStatus},
    core::vrrp::{
        node::{Report, RouterState},
        refusal::{Refusals, Remarks},
        role::Counters,
    },
};

/// All of them.
pub(super) fn status(report: &Report) -> VrrpStatus {
    let strays = report.strays.iter();
    VrrpStatus {
        routers: report.routers.iter().map(router).collect(),
        refused: strays
            .map(|(interface, refusals)| (interface.clone(), refused(refusals)))
            .collect(),
    }
}

fn router(state: &RouterState) -> RouterStatus {
    let RouterState {
        vrrp,
        role,
        is_leaving,
        priority,
        source,
        active,
        holds,
        faults,
        handicaps,
        tracked,
        awaits_sync,
        last,
        changes,
        counters,
    } = state;
    let changes = changes.iter();
    RouterStatus {
        name: vrrp.name().to_owned(),
        group: vrrp.group().map(str::to_owned),
        interface: vrrp.interface().to_owned(),
        vrid: vrrp.vrid().get(),
        version: match vrrp.version() {
            VrrpVersion::V2 => 2,
            VrrpVersion::V3 => 3,
        },
        vips: vrrp.vips().to_vec(),
        virtual_mac: vrrp.virtual_mac().map(|mac| mac.to_string()),
        role: role.to_string(),
        leaving: *is_leaving,
        priority: priority.0,
        source: *source,
        peer: active.map(|(address, priority)| PeerStatus {
            address,
            priority: priority.0,
        }),
        held: holds.iter().map(ToString::to_string).collect(),
        faults: faults.iter().map(ToString::to_string).collect(),
        lowered_by: handicaps.iter().map(ToString::to_string).collect(),
        awaits_sync: *awaits_sync,
        tracked: vrrp
            .tracks()
            .iter()
            .zip(tracked)
            .map(|(track, (_, state))| TrackStatus {
                name: track.name().to_owned(),
                target: track.target().to_string(),
                state: state.to_string(),
                cost: track.cost().map(u8::from),
            })
            .collect(),
        last_change: last.map(|(change, ago)| RoleChange {
            from: change.from.to_string(),
            to: change.to.to_string(),
            cause: change.cause.to_string(),
            seconds_ago: ago.as_secs(),
        }),
        changes: changes
            .map(|(role, count)| (role.to_string(), *count))
            .collect(),
        adverts: adverts(counters),
    }
}

fn adverts(counters: &Counters) -> AdvertsStatus {
    let Counters {
        sent,
        releases_sent: _,
        received,
        releases_received: _,
        contests,
        takeovers: _,
        announcements,
        refused: refusals,
        remarks,
    } = counters;
    AdvertsStatus {
        sent: *sent,
        received: *received,
        contests: *contests,
        refused: refused(refusals),
        remarked: remarked(remarks),
        announcements: *announcements,
    }
}

fn refused(refusals: &Refusals) -> BTreeMap<String, u64> {
    let all = refusals.iter();
    all.map(|(refusal, count)| (refusal.to_string(), count))
        .collect()
}

fn remarked(remarks: &Remarks) -> BTreeMap<String, u64> {
    let all = remarks.iter();
    all.map(|(remark, count)| (remark.to_string(), count))
        .collect()
}
