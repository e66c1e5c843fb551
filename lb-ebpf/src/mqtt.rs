//! What the payload of an MQTT service says.
//!
//! Segments are looked at one by one: TCP's order is not restored. So the first data of a flow that
//! was seen to start must be a CONNECT, and nothing is asked of the flows that were not.

use lb_common::{
    abi::{KeepAlive, Service},
    cursor::Cursor,
    mqtt::{self, CONNECT, Connect, Version},
    verdict::Verdict,
};

use crate::{
    job::Packet,
    maps::{self, FlowRef},
    packet::Frame,
};

/// Looks at a packet of a flow that is not recorded, nor will be.
#[inline(always)]
pub fn glance(packet: &Packet<'_>, service: &Service) {
    // Nothing is awaited, so nothing is refused.
    let _: Result<KeepAlive, Verdict> = inspect(packet, service, KeepAlive::NONE);
}

/// Looks at a packet of a recorded flow, and notes the keep-alive of its session.
///
/// # Errors
/// [`Verdict::DropNotMqtt`] for first data that is no CONNECT.
#[inline(always)]
pub fn known(packet: &Packet<'_>, service: &Service, record: FlowRef) -> Result<(), Verdict> {
    let before = record.get().keep_alive;
    let after = inspect(packet, service, before)?;
    if after != before {
        record.set_keep_alive(after);
    }
    Ok(())
}

/// Looks at the first packet of a flow that is going to be recorded; `starts` if the flow does with
/// this packet, which may have data (TCP Fast Open, RFC 7413).
///
/// # Errors
/// As for [`known`].
#[inline(always)]
pub fn first(packet: &Packet<'_>, service: &Service, starts: bool) -> Result<KeepAlive, Verdict> {
    // Elsewhere data may have passed without a record being looked for, and the check would end the
    // session at its next look.
    let before = if starts && sees_all(service) && service.is_mqtt() {
        KeepAlive::AWAITED
    } else {
        KeepAlive::NONE
    };
    inspect(packet, service, before)
}

/// Whether all flows have records: elsewhere they have them only now and then.
#[inline(always)]
fn sees_all(service: &Service) -> bool {
    service.is_tracked() || service.is_nat()
}

/// Says what is known of the flow's keep-alive once the packet has passed.
#[inline(always)]
fn inspect(packet: &Packet<'_>, service: &Service, known: KeepAlive) -> Result<KeepAlive, Verdict> {
    if !service.is_mqtt() || packet.payload >= packet.end {
        return Ok(known);
    }
    // With the byte before it, as the verifier takes no check of one for a proof.
    let mut frame = packet.frame;
    let Some([_, first]) = frame.bytes::<2>(packet.payload - 1) else {
        return Ok(known);
    };
    let first = *first;
    if first != CONNECT && known.is_awaited() {
        return Err(Verdict::DropNotMqtt);
    }
    maps::count_mqtt(service.id(), mqtt::packet_type(first));
    if first != CONNECT {
        return Ok(known);
    }
    let Some(connect) = Connect::parse(&mut Payload::of(packet)) else {
        // A piece of one, if it is one.
        return Ok(if known.is_awaited() {
            KeepAlive::NONE
        } else {
            known
        });
    };
    maps::note_keep_alive(service.id(), connect.keep_alive);
    let may_differ = connect.version == Version::V5;
    let claimed = KeepAlive::of(connect.keep_alive, may_differ);
    // Nothing is known of most flows elsewhere, and the operator's word counts for all of them.
    if known == KeepAlive::NONE && !sees_all(service) {
        return Ok(claimed);
    }
    Ok(known.or_longer(claimed))
}

/// A reader of a packet's payload. Its offset is the frame's.
#[derive(Clone)]
struct Payload {
    frame: Frame,
    offset: usize,
    end: usize,
}

impl Payload {
    #[inline(always)]
    fn of(packet: &Packet<'_>) -> Self {
        Self {
            frame: packet.frame,
            offset: packet.payload,
            end: packet.end,
        }
    }
}

impl Cursor for Payload {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.offset + N > self.end {
            return None;
        }
        let bytes = *self.frame.bytes::<N>(self.offset)?;
        self.offset += N;
        Some(bytes)
    }

    #[inline(always)]
    fn skip(&mut self, length: usize) -> Option<()> {
        self.offset += length;
        (self.offset <= self.end).then_some(())
    }

    #[inline(always)]
    fn offset(&self) -> usize {
        self.offset
    }

    #[inline(always)]
    fn remaining(&self) -> usize {
        self.end - self.offset
    }
}
