//! What one client publishes.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Story, Tie, Way,
    line::{Line, Message, Packet, answer},
};

/// Messages that one client publishes, and how far each is.
pub(crate) struct Publisher {
    tie: Tie,
    topic: String,
    qos: u8,
    window: usize,
    next: u64,
    last_id: u16,
    /// In order, by identifier: the message, and whether its PUBREL was sent.
    open: VecDeque<(u16, u64, bool)>,
    /// What the broker has taken.
    pub(crate) taken: Vec<u64>,
    /// How much of it brokers have taken of all that count there.
    counter: Arc<AtomicU64>,
}

impl Publisher {
    pub(crate) fn new(way: impl Into<Way>, number: u32, qos: u8, window: usize) -> Self {
        Self {
            tie: Tie::new(way, &format!("publisher-{number}")),
            topic: format!("q{qos}/{number}"),
            qos,
            window,
            next: 0,
            last_id: 0,
            open: VecDeque::new(),
            taken: Vec::new(),
            counter: Arc::default(),
        }
    }

    /// Counts what is taken there too.
    pub(crate) fn count_in(&mut self, counter: &Arc<AtomicU64>) {
        self.counter = Arc::clone(counter);
    }

    pub(crate) fn name(&self) -> &str {
        &self.tie.client_id
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    pub(crate) fn story(&self) -> &Story {
        &self.tie.story
    }

    /// Publishes up to so many more and hears answers; a connection that breaks is made anew.
    pub(crate) fn turn(&mut self, most: usize) {
        let is_new = self.tie.renew();
        if (is_new && self.repeat().is_err()) || self.exchange(most).is_err() {
            self.tie.line = None;
        }
    }

    fn repeat(&mut self) -> io::Result<()> {
        let line = line(&mut self.tie)?;
        let mut bytes = Vec::new();
        for (id, number, is_released) in &self.open {
            if *is_released {
                bytes.extend(answer(0x62, *id));
            } else {
                let payload = number.to_be_bytes();
                bytes.extend(line.encode(&Message {
                    topic: &self.topic,
                    payload: &payload,
                    qos: self.qos,
                    is_repeated: true,
                    id: *id,
                }));
            }
        }
        line.send(&bytes)
    }

    fn exchange(&mut self, most: usize) -> io::Result<()> {
        let line = line(&mut self.tie)?;
        let mut bytes = Vec::new();
        for _ in 0..most {
            if self.open.len() >= self.window {
                break;
            }
            self.last_id = self.last_id % 60_000 + 1;
            let (id, number) = (self.last_id, self.next);
            self.next += 1;
            // Before it is sent: whether it arrives is not known if the connection breaks.
            self.open.push_back((id, number, false));
            bytes.extend(line.encode(&Message {
                topic: &self.topic,
                payload: &number.to_be_bytes(),
                qos: self.qos,
                is_repeated: false,
                id,
            }));
        }
        line.send(&bytes)?;
        let mut patience = Duration::from_millis(2);
        while let Some(packet) = self::line(&mut self.tie)?.next(patience)? {
            patience = Duration::from_micros(1);
            self.tie.hear();
            self.handle(&packet)?;
        }
        if !self.open.is_empty() && self.tie.silence() > self.tie.way.patience {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn handle(&mut self, packet: &Packet) -> io::Result<()> {
        let id = packet.id();
        let Some(at) = self.open.iter().position(|(open, ..)| *open == id) else {
            panic!("{:#x} for {id}, which is not under way", packet.first);
        };
        match packet.first {
            0x40 | 0x70 => {
                if let Some((_id, number, _)) = self.open.remove(at)
                    && packet.first == 0x40
                {
                    self.taken.push(number);
                    self.counter.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            0x50 => {
                let (_id, number, is_released) = &mut self.open[at];
                if !std::mem::replace(is_released, true) {
                    self.taken.push(*number);
                    self.counter.fetch_add(1, Ordering::Relaxed);
                }
                line(&mut self.tie)?.send(&answer(0x62, id))
            }
            other => panic!("packet {other:#x}"),
        }
    }
}

fn line(tie: &mut Tie) -> io::Result<&mut Line> {
    tie.line
        .as_mut()
        .ok_or_else(|| ErrorKind::NotConnected.into())
}
