//! nat, from backend to client: the packet leaves in the VIP's name.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{BackendId, Service},
    verdict::Verdict,
};

use crate::{
    conntrack, forward,
    job::{Answer, Packet},
    maps, nat, rewrite,
};

/// Translates a backend's reply back and sends it to its client; passes what is none.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let reply = &mut maps::scratch().ok_or(Verdict::DropInternal)?.reply;
    let table = nat::load_reply(&packet.flow, reply).ok_or(Verdict::PassNotOurs)?;
    if packet.ttl <= 1 {
        return packet.answer(&Service::marker(), Answer::TimeExceeded);
    }
    let length = packet.frame.length();
    maps::count_backend(BackendId(reply.backend), |traffic| {
        traffic.reply_packets += 1;
        traffic.reply_bytes += length;
    });
    // A segment that is cut short says nothing about the end.
    let _followed = nat::follow_reply_end(&packet, table);
    let client = nat::client_key(reply, packet.flow.protocol());
    let signal = packet.signal();
    conntrack::backend_closed(table, &client, signal, maps::now());
    if signal.rst {
        nat::refused(table, &client, &packet.flow);
    }
    rewrite::age(&mut packet)?;
    let ends = nat::reply_ends(reply);
    rewrite::ends(&mut packet, &ends)?;
    forward::send(
        packet.context,
        &mut packet.frame,
        reply.next_hop,
        forward::NAT_REPLY,
    )
}
