//! The messages of one publisher that wait for their acknowledgement.

use std::{collections::VecDeque, time::Instant};

/// At most `limit` messages in flight, oldest first.
#[derive(Debug)]
pub(super) struct Window {
    limit: usize,
    flights: VecDeque<Flight>,
    next_id: u16,
}

/// A message that was sent and not yet acknowledged to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) packet_id: u16,
    pub(super) sequence: u64,
    /// When it was first sent, on the wall clock as in its payload.
    pub(super) stamped: u64,
    pub(super) sent: Instant,
    /// QoS 2: PUBREC has come, PUBREL is out.
    pub(super) released: bool,
}

impl Window {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            limit: usize::from(limit),
            flights: VecDeque::new(),
            next_id: 1,
        }
    }

    /// A server's receive maximum may be smaller than what was asked for.
    pub(super) fn set_limit(&mut self, limit: u16) {
        self.limit = usize::from(limit);
    }

    /// Ids are given in turn, so the next one can only collide with the oldest in flight.
    pub(super) fn has_room(&self) -> bool {
        self.flights.len() < self.limit
            && self
                .flights
                .front()
                .is_none_or(|oldest| oldest.packet_id != self.next_id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    /// Takes the next packet id for a message.
    pub(super) fn open(&mut self, sequence: u64, stamped: u64, sent: Instant) -> u16 {
        let packet_id = self.next_id;
        self.next_id = packet_id.checked_add(1).unwrap_or(1);
        self.flights.push_back(Flight {
            packet_id,
            sequence,
            stamped,
            sent,
            released: false,
        });
        packet_id
    }

    /// Ends a message's flight.
    pub(super) fn close(&mut self, packet_id: u16) -> Option<Flight> {
        let at = self.position(packet_id)?;
        self.flights.remove(at)
    }

    /// Marks a QoS 2 message as received by the server.
    pub(super) fn release(&mut self, packet_id: u16) -> bool {
        match self.position(packet_id) {
            Some(at) => {
                self.flights[at].released = true;
                true
            }
            None => false,
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        self.flights.iter_mut()
    }

    /// Acknowledgements nearly always come in order.
    fn position(&self, packet_id: u16) -> Option<usize> {
        self.flights
            .iter()
            .position(|flight| flight.packet_id == packet_id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::Window;

    #[test]
    fn a_full_window_has_room_again_after_an_acknowledgement() {
        let mut window = Window::new(2);
        let now = Instant::now();
        assert_eq!((window.open(0, 0, now), window.open(1, 0, now)), (1, 2));
        assert!(!window.has_room());
        assert_eq!(window.close(2).map(|flight| flight.sequence), Some(1));
        assert!(window.has_room());
        assert!(window.close(2).is_none());
    }

    #[test]
    fn packet_ids_wrap_round_without_zero() {
        let mut window = Window::new(1);
        let now = Instant::now();
        for sequence in 0..65_535 {
            let id = window.open(sequence, 0, now);
            assert!(window.close(id).is_some());
        }
        assert_eq!(window.open(65_535, 0, now), 1);
    }

    #[test]
    fn an_id_in_flight_is_not_given_again() {
        let mut window = Window::new(u16::MAX);
        let now = Instant::now();
        let stuck = window.open(0, 0, now);
        for sequence in 1..65_535 {
            let id = window.open(sequence, 0, now);
            window.close(id);
        }
        assert!(!window.has_room());
        window.close(stuck);
        assert!(window.has_room());
    }
}
