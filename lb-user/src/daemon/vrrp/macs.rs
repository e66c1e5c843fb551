//! What the carrier needs for virtual MAC addresses to be on it beside its own. Level-triggered, like the
//! applier, which calls it before all else.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use lb_common::abi::VirtualMac;

use super::{Hold, Wanted, applier::Reason};
use crate::io::{discretion::Discretion, netlink::Netlink};

/// The virtual MAC addresses of the carrier.
pub(super) struct Macs {
    /// The interface, by its index.
    carrier: u32,
    /// The directory of notes about what was changed.
    notes: PathBuf,
    /// How each was made to be, as far as the kernel did so.
    done: BTreeMap<VirtualMac, Hold>,
    discretion: Option<Discretion>,
    /// Whether what an earlier process may have left was put back.
    is_settled: bool,
}

impl Macs {
    pub(super) const fn new(carrier: u32, notes: PathBuf) -> Self {
        Self {
            carrier,
            notes,
            done: BTreeMap::new(),
            discretion: None,
            is_settled: false,
        }
    }

    /// Has frames let in to those that are here, and to no others; and neighbours told no other MAC
    /// address in the name of a VIP. Returns what did not succeed: that is tried again.
    pub(super) async fn apply(
        &mut self,
        netlink: &Netlink,
        wanted: &Wanted,
        reason: Reason,
    ) -> Vec<String> {
        let mut troubles: Vec<String> = self.be_discreet(wanted).err().into_iter().collect();
        let gone = self.done.keys().map(|mac| (*mac, Hold::NotHere));
        let mut all: BTreeMap<VirtualMac, Hold> = gone.collect();
        all.extend(&wanted.macs);
        for (mac, hold) in all {
            let hold = if reason == Reason::End {
                Hold::NotHere
            } else {
                hold
            };
            // Somebody may have taken one out.
            let is_due = reason == Reason::Renewal && hold == Hold::Here;
            if self.done.get(&mac) == Some(&hold) && !is_due {
                continue;
            }
            let asked = match hold {
                Hold::Here => netlink.let_in(self.carrier, mac).await,
                Hold::NotHere => netlink.keep_out(self.carrier, mac).await,
            };
            match asked {
                Ok(()) => drop(self.done.insert(mac, hold)),
                Err(error) => {
                    if hold == Hold::Here {
                        self.done.remove(&mac);
                    }
                    troubles.push(format!(
                        "{mac} is not a virtual MAC address of the interface as it should: {error}"
                    ));
                }
            }
        }
        let known: BTreeSet<&VirtualMac> = wanted.macs.keys().collect();
        self.done
            .retain(|mac, hold| known.contains(mac) || *hold == Hold::Here);
        troubles
    }

    fn be_discreet(&mut self, wanted: &Wanted) -> Result<(), String> {
        let plan = &wanted.plan;
        let mut routers = plan.routers.iter();
        let is_needed = routers.any(|router| router.virtual_mac().is_some());
        if !is_needed {
            self.discretion = None;
            if !self.is_settled {
                Discretion::undo(&plan.carrier, &self.notes);
            }
        } else if self.discretion.is_none() {
            let taken = Discretion::new(&plan.carrier, &self.notes);
            let taken = taken.map_err(|error| {
                format!(
                    "arp_announce cannot be set to 2, so neighbours may be told another MAC address than the \
                     virtual one: {error}"
                )
            });
            self.discretion = Some(taken?);
        }
        self.is_settled = true;
        Ok(())
    }
}
