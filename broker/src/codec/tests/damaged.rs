//! Packets of every kind, damaged in every way: the decoders may refuse them and nothing more.

use super::*;

/// How many damaged packets are tried unless `TIDEGATE_FUZZ` says otherwise.
const DAMAGED: usize = 100_000;

/// Legal packets of MQTT 5 and 3 after CONNECT, the first byte first.
const PACKETS: [&[u8]; 16] = [
    b"\x30\x05\0\x01t\0!",
    b"\x3d\x13\0\x05topic\x01\x02\x09\x02\0\0\0\x0a\x23\0\x01!",
    b"\x32\x21\0\x03a/b\0\x07\x17\x01\x01\x03\0\x01x\x08\0\x03r/t\x09\0\x02\xff\0\x26\0\x01k\0\x01v!!",
    b"\x34\x07\0\x01t\0\x09\0!",
    b"\x40\x02\0\x01",
    b"\x50\x08\0\x01\x10\x04\x1f\0\x01x",
    b"\x62\x03\0\x01\x92",
    b"\x70\x02\0\x01",
    b"\x82\x13\0\x01\x02\x0b\x07\0\x03a/#\x01\0\x05$SYS/\x2c",
    b"\x82\x0c\0\x01\0\x07$share/\0",
    b"\x82\x06\0\x01\0\x01t\0",
    b"\xa2\x0d\0\x01\0\0\x03a/#\0\x03b/+",
    b"\xc0\0",
    b"\xe0\x07\x04\x05\x11\0\0\0\x09",
    b"\xf0\x02\x18\0",
    b"\x30\x04\0\x02\xc3\xa4",
];

const CONNECTS: [(&str, u8, u8, &[u8]); 4] = [
    ("MQIsdp", 3, 0b1110_1110, b"\0\x01c\0\x01t\0\x01m\0\x01u\0\x01p"),
    ("MQTT", 4, 0b1100_0010, b"\0\x01c\0\x01u\0\x01p"),
    (
        "MQTT",
        5,
        0b0010_0110,
        b"\x10\x11\0\0\0\x0a\x21\0\x05\x27\0\0\x10\0\x22\0\x07\0\x01c\x05\x18\0\0\0\x05\0\x01t\0\x01m",
    ),
    ("MQTT", 5, 2, b"\x08\x15\0\x01m\x16\0\x01x\0\0"),
];

/// Xorshift: the same damage in every run, so that a failure can be seen again.
struct Damage(u64);

impl Damage {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize
    }

    fn byte(&mut self) -> u8 {
        const FAVOURITES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xff, b'#', b'/'];
        let drawn = self.next();
        if drawn.is_multiple_of(2) {
            FAVOURITES[drawn / 2 % FAVOURITES.len()]
        } else {
            (drawn / 2) as u8
        }
    }

    fn inflict(&mut self, packet: &mut Vec<u8>) {
        for _ in 0..1 + self.next() % 4 {
            let at = self.next() % (packet.len() + 1);
            match self.next() % 5 {
                0 => packet.insert(at, self.byte()),
                1 => packet.truncate(at.max(1)),
                2 => {
                    let from = self.next() % (at + 1);
                    packet.extend_from_within(from..at);
                }
                _ => match packet.get_mut(at) {
                    Some(byte) => *byte = self.byte(),
                    None => packet.push(self.byte()),
                },
            }
            packet.truncate(300);
        }
    }

    /// Makes the length true again, most of the time: what is behind it is what should be tried.
    fn mend_length(&mut self, packet: &mut Vec<u8>) {
        if self.next().is_multiple_of(8) || packet.len() < 2 {
            return;
        }
        let body = packet.split_off(2.min(packet.len()));
        let body = &body[..body.len().min(127)];
        packet[1] = body.len() as u8;
        packet.extend(body);
    }
}

fn try_all(bytes: &[u8]) -> usize {
    let Ok(Some(found)) = frame(bytes, LIMIT) else {
        return 0;
    };
    let packet = &bytes[..found.total];
    let mut legal = 0;
    for version in ALL {
        legal += usize::from(decode(packet, found, version, Instant::now()).is_ok());
        legal += usize::from(decode_connect(packet, found, version).is_ok());
    }
    if let Ok(version) = connect_version(packet, found) {
        legal += usize::from(decode_connect(packet, found, version).is_ok());
    }
    legal
}

#[test]
fn packets_to_be_damaged_are_legal() {
    for packet in PACKETS {
        // An AUTH is legal for those who have agreed on a method, which nobody has.
        let is_auth = packet[0] == 0xf0;
        assert_eq!(try_all(packet) == 0, is_auth, "{packet:?}");
    }
    for (name, level, flags, rest) in CONNECTS {
        assert!(
            try_all(&connect(name, level, flags, rest)) > 0,
            "{name} {level}"
        );
    }
}

#[test]
fn damaged_packets_do_no_harm() {
    let wanted = std::env::var("TIDEGATE_FUZZ").ok();
    let damaged = wanted.map_or(DAMAGED, |count| count.parse().unwrap());
    let connects = CONNECTS.map(|(name, level, flags, rest)| connect(name, level, flags, rest));
    let mut damage = Damage(0x9e37_79b9_7f4a_7c15);
    let mut legal = 0;
    for _ in 0..damaged {
        let kind = damage.next() % (PACKETS.len() + connects.len());
        let mut packet = match PACKETS.get(kind) {
            Some(packet) => packet.to_vec(),
            None => connects[kind - PACKETS.len()].clone(),
        };
        damage.inflict(&mut packet);
        damage.mend_length(&mut packet);
        legal += try_all(&packet);
    }
    // Some are harmless: otherwise the damage would be too crude to lead anywhere.
    assert!(legal > damaged / 100, "{legal} of {damaged}");
}
