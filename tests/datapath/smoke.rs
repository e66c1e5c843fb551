//! Twenty thousand frames that nobody thought of: the program and the parser on hosts must agree.

use anyhow::{Context, Result, ensure};
use lb_common::verdict::{Action, Verdict};
use tests::{
    icmp::Error,
    packet::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, Packet, ROUTING, Transport},
    prog_run::SHORTEST,
};

use super::answers::time_exceeded;
use super::case::{Case, same};
use super::model;
use super::services::{
    BEHIND, BEHIND_NAT, DSR_MAGLEV, DSR_ROUND_ROBIN, EMPTY, FAMILIES, NAT_MAGLEV, NAT_ROUND_ROBIN,
    NO_NEXT_HOP, world,
};

const FRAMES: u32 = 20_000;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

fn packet(random: &mut Random) -> Packet {
    let family = random.one_of(&FAMILIES);
    let flags = random.next() as u8;
    let transport = random.one_of(&[
        Transport::Tcp(flags),
        Transport::Udp,
        Transport::UdpUnsummed,
        Transport::Other(flags),
    ]);
    let service = random.one_of(&[
        DSR_MAGLEV,
        DSR_ROUND_ROBIN,
        NAT_MAGLEV,
        NAT_ROUND_ROBIN,
        EMPTY,
        NO_NEXT_HOP,
        BEHIND,
        BEHIND_NAT,
        9999,
    ]);
    // Few ports: some packets belong to flows that are known.
    let client = (family.client(), 30_000 + random.below(64) as u16);
    let packet = Packet::new(transport, client, (family.vip(), service));
    packet.with(|packet| dress(random, packet))
}

fn dress(random: &mut Random, packet: &mut Packet) {
    packet.tags = vec![[0x8100, 1]; random.one_of(&[0, 0, 1, 2, 3])];
    packet.ttl = random.one_of(&[0, 1, 2, 64, 64, 64]);
    packet.fragment = random.one_of(&[0, 0, 0, 0, 0x2000, 0x4000, 0x0001]);
    let options = 4 * random.one_of(&[0, 0, 1, 10]);
    packet.options = random.bytes(options);
    packet.tcp_options = vec![1; 4 * random.one_of(&[0, 0, 3])];
    let (payload, padding) = (random.below(80), random.one_of(&[0, 0, 20]));
    packet.payload = random.bytes(payload);
    packet.padding = random.bytes(padding);
    for _header in 0..random.one_of(&[0, 0, 0, 1, 2, 7, 10]) {
        let kind = random.one_of(&[HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS]);
        let mut header = vec![0; 8];
        header[3] = random.one_of(&[0, 0, 0, 1]);
        packet.extensions.push((kind, header));
    }
}

/// An ICMP error about a packet that was sent back, more or less of which is quoted.
fn error(random: &mut Random) -> Packet {
    let about = packet(random);
    let about = about.between(
        (about.destination, about.destination_port),
        (about.source, about.source_port),
    );
    let mut quote = about.build().split_off(about.network_offset());
    let most = random.one_of(&[quote.len(), 64, 28, 20]);
    quote.truncate(most);
    let error = Error {
        kind: random.one_of(&[1, 2, 3, 3, 4, 8, 11, 12, 128]),
        code: random.below(5) as u8,
        rest: 1400,
        quote,
    };
    let (router, ttl) = (about.destination, about.ttl);
    error.packet(router, about.source).with(|packet| {
        packet.ttl = ttl;
        packet.tags = about.tags;
    })
}

/// Bends up to four bytes, most of them in headers, and cuts some frames.
fn bend(random: &mut Random, frame: &mut Vec<u8>) {
    for _change in 0..random.one_of(&[0, 1, 1, 2, 4]) {
        let reach = random.one_of(&[frame.len(), frame.len().min(80), frame.len().min(40)]);
        let at = random.below(reach);
        let bit = 1_u8 << random.below(8);
        frame[at] = random.one_of(&[frame[at] ^ bit, bit, 0, 0xff]);
    }
    if random.below(8) == 0 {
        let length = SHORTEST + random.below(frame.len() - SHORTEST + 1);
        frame.truncate(length);
    }
}

fn frame(random: &mut Random) -> Vec<u8> {
    if random.below(20) == 0 {
        let length = SHORTEST + random.below(300);
        return random.bytes(length);
    }
    let mut frame = match random.below(5) {
        0 => error(random).build(),
        _ => packet(random).build(),
    };
    bend(random, &mut frame);
    frame
}

#[test]
fn the_program_and_the_parser_on_hosts_agree_on_any_frame() -> Result<()> {
    let world = world()?;
    let mut random = Random(1883);
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..FRAMES {
        let frame = frame(&mut random);
        let out = world.run(&frame)?;
        let right = model::verdicts(world.image(), &frame);
        ensure!(
            right.contains(&out.verdict),
            "frame {number} ended as {:?} instead of {right:?}: {frame:02x?}",
            out.verdict
        );
        if out.answer.action == Action::Pass {
            ensure!(out.answer.frame == frame, "frame {number} was changed");
        }
        *seen.entry(out.verdict).or_insert(0) += 1;
    }
    // Unless the frames reach everything, they prove little.
    ensure!(
        seen.len() >= 12 && seen.values().all(|count| *count > 10),
        "{seen:?}"
    );
    Ok(())
}

/// Forwards well-formed packets of all kinds, checksums included, as if built for their next hop.
#[test]
fn any_good_packet_that_is_forwarded_comes_out_right() -> Result<()> {
    let world = world()?;
    let mut random = Random(8883);
    let mut forwarded = 0;
    for number in 0..FRAMES / 4 {
        let packet = packet(&mut random);
        let frame = packet.build();
        let out = world.run(&frame)?;
        let verdict = out.verdict;
        let right = model::verdicts(world.image(), &frame);
        ensure!(
            right.contains(&verdict),
            "{verdict:?} instead of {right:?}: {packet:?}"
        );
        if verdict == Verdict::TxTimeExceeded {
            same(&out.answer.frame, &time_exceeded(&packet))?;
        } else if matches!(verdict.action(), Action::Transmit | Action::Redirect)
            && !model::is_later_piece(&frame)
        {
            Case::packet(format!("packet {number}"), &packet, verdict)
                .check(&world)
                .with_context(|| format!("{packet:?}"))?;
            forwarded += 1;
        }
    }
    ensure!(forwarded > FRAMES / 40, "only {forwarded} were forwarded");
    Ok(())
}
