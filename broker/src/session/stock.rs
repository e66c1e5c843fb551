//! How much waits for the clients of a node, all of them together.
//!
//! A message that waits for ten thousand clients is in memory once on each shard, so that is how often
//! it counts: a shard's [`Shelf`] knows which messages are on it, and the node's [`Stock`] their bytes.

use std::{
    cell::RefCell,
    collections::{HashMap, hash_map::Entry},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::message::Message;

/// Bytes of the messages that wait on all shards of a node.
#[derive(Debug)]
pub struct Stock {
    bytes: AtomicUsize,
    bound: AtomicUsize,
    /// How many times a queue was not given a message.
    refused: AtomicU64,
    /// How many of them were seen by [`Stock::ran_out`], and whether that has told of them.
    seen: AtomicU64,
    is_told: AtomicBool,
}

/// What one shard has of a node's stock.
#[derive(Debug)]
pub struct Shelf {
    stock: Arc<Stock>,
    /// By the address of a message: in how many queues it waits.
    queues: RefCell<HashMap<usize, usize>>,
}

/// A message's place in a queue; given back on drop.
#[derive(Debug)]
pub struct Place {
    shelf: Rc<Shelf>,
    /// Its address is nobody else's while it is held.
    message: Arc<Message>,
}

/// Room for bytes that are to be a message; given back on drop.
#[derive(Debug)]
pub struct Reserved {
    stock: Arc<Stock>,
    bytes: usize,
}

impl Stock {
    pub fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            bound: AtomicUsize::new(bound),
            refused: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            is_told: AtomicBool::new(false),
        })
    }

    /// Another bound; what waits already stays.
    pub fn set_bound(&self, bound: usize) {
        self.bound.store(bound, Ordering::Relaxed);
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether room has run out since this was last asked. Told once, and again when there has been
    /// much room in between; for one task to ask from time to time.
    pub fn ran_out(&self) -> bool {
        if self.bytes() < self.bound.load(Ordering::Relaxed) / 2 {
            self.is_told.store(false, Ordering::Relaxed);
        }
        let refused = self.refused();
        refused > self.seen.swap(refused, Ordering::Relaxed)
            && !self.is_told.swap(true, Ordering::Relaxed)
    }

    /// Keeps room for bytes that wait to be a message; `None` when there is none.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let stock = Arc::clone(self);
        // What is not taken must not be given back.
        self.take(bytes).then(|| Reserved { stock, bytes })
    }

    /// Takes room whether there is any or not.
    fn occupy(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.bound.load(Ordering::Relaxed);
        if !fits {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.stock.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shelf {
    pub fn new(stock: Arc<Stock>) -> Rc<Self> {
        Rc::new(Self {
            stock,
            queues: RefCell::default(),
        })
    }

    /// Finds a place for a message that is to wait; `None` when there is no room.
    pub fn place(self: &Rc<Self>, message: &Arc<Message>) -> Option<Place> {
        self.enter(message, |stock, bytes| stock.take(bytes))
    }

    /// A place for a message that waits already, elsewhere or in an earlier life: it leaves less room
    /// for others, however little there is.
    pub fn place_of_old(self: &Rc<Self>, message: &Arc<Message>) -> Option<Place> {
        self.enter(message, |stock, bytes| {
            stock.occupy(bytes);
            true
        })
    }

    fn enter(
        self: &Rc<Self>,
        message: &Arc<Message>,
        take: impl FnOnce(&Stock, usize) -> bool,
    ) -> Option<Place> {
        match self.queues.borrow_mut().entry(address(message)) {
            Entry::Occupied(mut queues) => *queues.get_mut() += 1,
            Entry::Vacant(entry) => {
                if !take(&self.stock, message.size()) {
                    return None;
                }
                entry.insert(1);
            }
        }
        Some(Place {
            shelf: Rc::clone(self),
            message: Arc::clone(message),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut queues = self.shelf.queues.borrow_mut();
        if let Entry::Occupied(mut entry) = queues.entry(address(&self.message)) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
                let stock = &self.shelf.stock;
                stock
                    .bytes
                    .fetch_sub(self.message.size(), Ordering::Relaxed);
            }
        }
        // A shelf that was full once should not keep its size for ever.
        if queues.capacity() > 4 * (queues.len() + 256) {
            queues.shrink_to_fit();
        }
    }
}

fn address(message: &Arc<Message>) -> usize {
    Arc::as_ptr(message).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, Qos};

    fn message(payload: usize) -> Arc<Message> {
        Arc::new(Message {
            topic: "t".into(),
            payload: vec![0; payload].into(),
            properties: Box::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires: None,
            id: MessageId::NONE,
        })
    }

    #[test]
    fn message_counts_once_a_shard_in_however_many_queues() {
        let stock = Stock::new(1000);
        let shelves = [(); 2].map(|()| Shelf::new(Arc::clone(&stock)));
        let message = message(299);
        let places: Vec<_> = (0..100)
            .map(|number| shelves[number % 2].place(&message).unwrap())
            .collect();
        assert_eq!(stock.bytes(), 600);
        drop(places);
        assert_eq!(stock.bytes(), 0);
        assert!(shelves.iter().all(|shelf| shelf.queues.borrow().is_empty()));
    }

    #[test]
    fn what_has_no_room_is_refused_and_has_room_later() {
        let stock = Stock::new(1000);
        let shelf = Shelf::new(Arc::clone(&stock));
        let (first, second) = (message(600), message(600));
        let place = shelf.place(&first).unwrap();
        assert!(shelf.place(&second).is_none());
        assert_eq!((stock.bytes(), stock.refused()), (601, 1));
        // Another copy of what is there takes nothing.
        assert!(shelf.place(&first).is_some());
        drop(place);
        assert_eq!(stock.bytes(), 0);
        assert!(shelf.place(&second).is_some());
    }

    #[test]
    fn what_was_taken_elsewhere_takes_room_beyond_the_bound() {
        let stock = Stock::new(1000);
        let shelf = Shelf::new(Arc::clone(&stock));
        let old = [message(600), message(600)].map(|message| shelf.place_of_old(&message));
        assert_eq!((stock.bytes(), stock.refused()), (1202, 0));
        assert!(shelf.place(&message(0)).is_none());
        drop(old);
        assert_eq!(stock.bytes(), 0);
    }

    #[test]
    fn shortage_is_told_once_until_there_was_much_room() {
        let stock = Stock::new(1000);
        let shelf = Shelf::new(Arc::clone(&stock));
        assert!(!stock.ran_out());
        for _ in 0..2 {
            let place = shelf.place(&message(800)).unwrap();
            assert!(shelf.place(&message(800)).is_none());
            assert!(stock.ran_out() && !stock.ran_out());
            assert!(shelf.place(&message(800)).is_none());
            assert!(!stock.ran_out());
            drop(place);
            assert!(!stock.ran_out());
        }
    }
}
