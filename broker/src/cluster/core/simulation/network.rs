//! Connections between simulated nodes.

use super::*;

/// What makes a node that it is for close the connection, as if it could not read it.
pub(super) const POISON: &[u8] = b"poison";

/// One connection; its two ends are `2 * n` (of who has called) and `2 * n + 1`.
pub(super) struct Wire {
    pub(super) ends: [usize; 2],
    runs: [u64; 2],
    is_open: bool,
    /// What is on its way to each end, and when the last of it is to arrive.
    bytes: [VecDeque<Bytes>; 2],
    busy_until: [Duration; 2],
}

/// Which connection a number means, and which end of it.
fn ends(link: u64) -> (usize, usize) {
    let end = |number: u64| usize::try_from(number).unwrap();
    (end(link / 2), end(link % 2))
}

impl World {
    fn is_divided(&self, one: usize, other: usize) -> bool {
        self.divided.contains(&(one.min(other), one.max(other)))
    }

    pub(super) fn other_end(&self, link: u64) -> usize {
        let (wire, end) = ends(link);
        self.wires[wire].ends[1 - end]
    }

    pub(super) fn arrive(&mut self, node: usize, link: u64) {
        let (number, to) = ends(link);
        let [one, other] = self.wires[number].ends;
        // What a division holds back TCP repeats when it is over.
        if self.is_divided(one, other) {
            self.at(self.now + TICK, node, Event::Arrived { link });
            return;
        }
        let wire = &mut self.wires[number];
        let now = self.start + self.now;
        if let Some(mut bytes) = wire.bytes[to].pop_front()
            && wire.is_open
        {
            if bytes.ends_with(POISON) {
                bytes = bytes.slice(..1);
            }
            let core = &mut self.nodes[node].core;
            core.handle_message(LinkId(link), bytes, now);
        }
    }

    pub(super) fn call(&mut self, node: usize, to: Box<str>) {
        let other = (0..self.nodes.len()).find(|other| address(*other) == to);
        let delay = self.dice.millis(20);
        let other = other.filter(|other| !self.is_divided(node, *other));
        let Some(other) = other else {
            self.at(self.now + delay, node, Event::CallFailed(to));
            return;
        };
        let link = 2 * self.wires.len() as u64;
        let runs = [self.nodes[node].run, self.nodes[other].run];
        let connected = self.now + delay;
        self.wires.push(Wire {
            ends: [node, other],
            runs,
            is_open: true,
            bytes: Default::default(),
            busy_until: [connected; 2],
        });
        let called = Some(to);
        self.at(connected, node, Event::Connected { link, called });
        let (link, called) = (link + 1, None);
        self.at(connected, other, Event::Connected { link, called });
    }

    pub(super) fn send(&mut self, link: u64, bytes: Bytes) {
        let delay = self.dice.millis(self.nature.distance);
        let length = bytes.len() as u64;
        let transfer = Duration::from_micros(self.nature.slowness * length / 1000);
        let (wire, from) = ends(link);
        let (wire, to) = (&mut self.wires[wire], 1 - from);
        let node = wire.ends[to];
        let begin = (self.now + delay).max(wire.busy_until[to]);
        wire.busy_until[to] = begin + transfer;
        if wire.is_open && wire.runs[to] == self.nodes[node].run {
            wire.bytes[to].push_back(bytes);
            let link = link ^ 1;
            for part in 1..=transfer.as_millis() / TICK.as_millis() {
                let there = begin + TICK * u32::try_from(part).unwrap();
                self.at(there, node, Event::Part { link });
            }
            self.at(begin + transfer, node, Event::Arrived { link });
        }
    }

    /// One end closes: the other one reads what was sent before, and then the end.
    pub(super) fn hang_up(&mut self, link: u64) {
        let (wire, from) = ends(link);
        let (wire, to) = (&self.wires[wire], 1 - from);
        let (node, time) = (wire.ends[to], wire.busy_until[to].max(self.now));
        if wire.runs[to] == self.nodes[node].run {
            self.at(time, node, Event::Closed { link: link ^ 1 });
        }
    }

    pub(super) fn cut_some(&mut self) {
        if !self.wires.is_empty() {
            // One of those that serve is among the last.
            let recent = self.wires.len().min(12);
            let back = usize::try_from(self.dice.roll(recent as u64)).unwrap();
            self.cut(self.wires.len() - 1 - back);
        }
    }

    pub(super) fn cut(&mut self, wire: usize) {
        if !std::mem::take(&mut self.wires[wire].is_open) {
            return;
        }
        self.wires[wire].bytes = Default::default();
        for end in 0..2 {
            let node = self.wires[wire].ends[end];
            if self.wires[wire].runs[end] == self.nodes[node].run {
                let later = self.now + self.dice.millis(50);
                let link = 2 * wire as u64 + end as u64;
                self.at(later, node, Event::Closed { link });
            }
        }
    }
}
