//! The MAC addresses beside its own that an interface lets in.
//!
//! They are entries of the device's own table of addresses, as `bridge fdb show self` has them. A
//! device that cannot tell so many takes all frames meanwhile. Unlike what a packet socket asks for,
//! they outlive the process that has put them there.

use lb_common::abi::VirtualMac;
use rtnetlink::packet_route::neighbour::NeighbourFlags;

use super::{Netlink, NetlinkError, ask};

impl Netlink {
    /// Has an interface let in the frames that are sent to a MAC address.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, as it does for devices that stand on another, or does not answer.
    pub async fn let_in(&self, interface: u32, mac: VirtualMac) -> Result<(), NetlinkError> {
        let neighbours = self.handle()?.neighbours();
        let request = neighbours
            .add_bridge(interface, &mac.octets())
            .flags(NeighbourFlags::Own);
        match ask("let in a MAC address", request.execute()).await {
            // To replace it would have the kernel tell of it each time.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            outcome => outcome,
        }
    }

    /// Takes that back.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn keep_out(&self, interface: u32, mac: VirtualMac) -> Result<(), NetlinkError> {
        let neighbours = self.handle()?.neighbours();
        let mut entry = neighbours
            .add_bridge(interface, &mac.octets())
            .flags(NeighbourFlags::Own);
        let request = neighbours.del(entry.message_mut().clone());
        match ask("keep out a MAC address", request.execute()).await {
            // Not there, or gone with its interface. A device that takes none had none.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP)
                ) =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }
}
