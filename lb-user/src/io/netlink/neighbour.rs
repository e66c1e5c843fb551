//! The way to a backend: its route, and the link-layer address at the route's end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::{StreamExt as _, TryStreamExt as _};
use lb_common::abi::NextHop;
use rtnetlink::{
    RouteMessageBuilder,
    packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia},
    },
};

use super::{Netlink, NetlinkError, ask};

/// How packets to an address leave the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Index of the interface they leave by.
    pub interface: u32,
    /// Whose link-layer address they are sent to: the gateway, or the destination itself.
    pub neighbour: IpAddr,
    /// The address that connections by it are made from.
    pub source: Option<IpAddr>,
    /// The largest IP packet, in bytes, if the route says so, be it that a router has told; else 0.
    pub mtu: u32,
}

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// An operator has set its link-layer address, or the interface needs none.
    Fixed([u8; 6]),
    /// Its link-layer address was confirmed lately.
    Fresh([u8; 6]),
    /// Its link-layer address should be confirmed.
    Stale([u8; 6]),
    /// Its link-layer address is being confirmed.
    Confirming([u8; 6]),
    /// It is being looked for, does not answer, or was never asked for.
    Unknown,
}

impl Netlink {
    /// Looks up the route to an address.
    ///
    /// # Errors
    ///
    /// [`NetlinkError::NoRoute`] if there is none that leaves this host, others if the kernel does
    /// not answer.
    pub async fn route(&self, destination: IpAddr) -> Result<Route, NetlinkError> {
        let message = match destination {
            IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(v4, 32)
                .build(),
            IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(v6, 128)
                .build(),
        };
        let mut routes = self.handle()?.route().get(message).execute();
        let no_route = NetlinkError::NoRoute { destination };
        match ask("look up a route", routes.try_next()).await {
            Ok(Some(message)) => read_route(&message, destination).ok_or(no_route),
            Ok(None) => Err(no_route),
            Err(error) if matches!(error.errno(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH)) => {
                Err(no_route)
            }
            Err(error) => Err(error),
        }
    }

    /// Looks up the neighbour at the end of a route.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn neighbour(&self, route: Route) -> Result<Neighbour, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(route.neighbour);
        message.header.ifindex = route.interface;
        let address = match route.neighbour {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        };
        message
            .attributes
            .push(NeighbourAttribute::Destination(address));
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle()?;
        let answer = async {
            let answers = handle.request(request)?;
            let answers = answers.map(|message| match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(neighbour)) => {
                    Ok(neighbour)
                }
                NetlinkPayload::Error(error) => Err(rtnetlink::Error::NetlinkError(error)),
                _ => Err(rtnetlink::Error::UnexpectedMessage(message)),
            });
            Box::pin(answers).try_next().await
        };
        match ask("look up a neighbour", answer).await {
            Ok(Some(message)) => Ok(read_neighbour(&message)),
            Ok(None) => Ok(Neighbour::Unknown),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Neighbour::Unknown),
            Err(error) => Err(error),
        }
    }

    /// Makes the kernel look for a neighbour, or confirm what it knows of it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn resolve(&self, route: Route) -> Result<(), NetlinkError> {
        let neighbours = self.handle()?.neighbours();
        let request = neighbours
            .add(route.interface, route.neighbour)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        ask("resolve a neighbour", request.execute()).await
    }

    /// Makes the kernel ask a neighbour at once whether it still has its link-layer address, however
    /// lately it has said so.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn doubt(&self, route: Route, mac: [u8; 6]) -> Result<(), NetlinkError> {
        let neighbours = self.handle()?.neighbours();
        let request = neighbours
            .add(route.interface, route.neighbour)
            .state(NeighbourState::Probe)
            .link_layer_address(&mac)
            .replace();
        ask("confirm a neighbour", request.execute()).await
    }

    /// The next hop that a neighbour's link-layer address makes, and the size of the largest IP
    /// packet that goes there, 0 if that is not known.
    ///
    /// # Errors
    ///
    /// If the route's interface is gone, has no MAC address, or the kernel does not answer.
    pub async fn next_hop(
        &self,
        route: Route,
        mac: [u8; 6],
    ) -> Result<(NextHop, u16), NetlinkError> {
        let (source_mac, link_mtu) = self.sender(route.interface).await?;
        let mtu = match route.mtu {
            0 => link_mtu,
            mtu if link_mtu == 0 => mtu,
            mtu => mtu.min(link_mtu),
        };
        let next_hop = NextHop {
            interface: route.interface,
            mac,
            source_mac,
        };
        Ok((next_hop, u16::try_from(mtu).unwrap_or(u16::MAX)))
    }
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// `None` for a route that does not leave the host: to itself, to nowhere, or to many.
fn read_route(message: &RouteMessage, destination: IpAddr) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut interface = None;
    let mut neighbour = destination;
    let (mut source, mut mtu) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(v4)) => neighbour = IpAddr::V4(*v4),
            RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => neighbour = IpAddr::V6(*v6),
            RouteAttribute::Via(RouteVia::Inet6(v6)) => neighbour = IpAddr::V6(*v6),
            RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => source = Some(IpAddr::V4(*v4)),
            RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => source = Some(IpAddr::V6(*v6)),
            RouteAttribute::Metrics(metrics) => mtu = route_mtu(metrics),
            _ => {}
        }
    }
    Some(Route {
        interface: interface?,
        neighbour,
        source,
        mtu,
    })
}

fn route_mtu(metrics: &[RouteMetric]) -> u32 {
    let mtu = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(0)
}

fn read_neighbour(message: &NeighbourMessage) -> Neighbour {
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                <[u8; 6]>::try_from(bytes.as_slice()).ok()
            }
            _ => None,
        });
    match (mac, &message.header.state) {
        (Some(mac), NeighbourState::Permanent | NeighbourState::Noarp) => Neighbour::Fixed(mac),
        (Some(mac), NeighbourState::Reachable) => Neighbour::Fresh(mac),
        (Some(mac), NeighbourState::Stale) => Neighbour::Stale(mac),
        (Some(mac), NeighbourState::Delay | NeighbourState::Probe) => Neighbour::Confirming(mac),
        _ => Neighbour::Unknown,
    }
}
