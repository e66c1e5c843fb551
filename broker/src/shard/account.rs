//! A shard's account: what is on its way to the store and to other nodes' copies, and what waits for
//! them here.
//!
//! A parcel of changes is *safe* when the store has it, if there is one, and when each node with a
//! copy of one of its sessions has taken its part.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{pending, poll_fn},
    ops::RangeInclusive,
    rc::{Rc, Weak},
    sync::{Arc, mpsc},
    time::Instant,
};

use super::{Shard, Shared};
use crate::{
    codec::packet::{Ack, AckKind, Delivery},
    lanes::{Level, Outbox},
    link::Link,
    message::Qos,
    replica::{
        book::{Book, Outgoing, Purpose},
        hash_of,
        place::{Peer, Place},
        word::Word,
    },
    routes::ShardId,
    session::{
        Wire,
        journal::{Change, Journal, SessionId},
    },
    store::{Condition, Parcel, Store},
};

/// Parcels under way at once: with two the store has work while this shard hears of the last one.
/// What comes meanwhile is one parcel, so that there are few when there is much.
const PARCELS: u64 = 2;

/// Bytes that may wait to be safe before the shard stops reading from its clients.
const WAITING_BOUND: usize = 8 * 1024 * 1024;

/// The store, and the way there.
struct Sink {
    store: Arc<Store>,
    parcels: mpsc::Sender<Parcel>,
}

/// A shard's account.
pub(super) struct Account {
    shard: ShardId,
    shared: Arc<Shared>,
    /// `None` where nothing outlives the process but on other nodes.
    sink: Option<Sink>,
    journal: Journal,
    /// How many sessions were numbered here.
    numbered: Cell<u64>,
    /// What other nodes have of the sessions.
    book: RefCell<Book>,
    /// There is something for other nodes.
    lanes: Rc<tokio::sync::Notify>,
    /// More is safe, as other nodes have it.
    copied: tokio::sync::Notify,
    /// There may be a session to copy, or room for one.
    copying: tokio::sync::Notify,
    /// The last parcel that was sent.
    sent: Cell<u64>,
    /// The last one that the shard knows to be safe.
    heard: Cell<u64>,
    /// Parcels that are not safe, and about how many bytes each has.
    under_way: RefCell<VecDeque<(u64, usize)>>,
    bytes_under_way: Cell<usize>,
    /// Who has said something that waits, and for which parcel.
    waiting: RefCell<VecDeque<(u64, Weak<Link>)>>,
    /// There is room for another parcel.
    room: tokio::sync::Notify,
}

impl Account {
    /// `lanes` is told when there is something for other nodes.
    pub(super) fn new(
        shard: ShardId,
        shared: Arc<Shared>,
        sink: Option<(Arc<Store>, mpsc::Sender<Parcel>)>,
        lanes: Rc<tokio::sync::Notify>,
    ) -> Self {
        Self {
            shard,
            shared,
            sink: sink.map(|(store, parcels)| Sink { store, parcels }),
            journal: Journal::default(),
            numbered: Cell::new(0),
            book: RefCell::default(),
            lanes,
            copied: tokio::sync::Notify::new(),
            copying: tokio::sync::Notify::new(),
            sent: Cell::new(0),
            heard: Cell::new(0),
            under_way: RefCell::default(),
            bytes_under_way: Cell::new(0),
            waiting: RefCell::default(),
            room: tokio::sync::Notify::new(),
        }
    }

    /// That of a node of a cluster until it has a store, if it ever has one.
    pub(super) fn of_cluster(
        shard: ShardId,
        shared: &Arc<Shared>,
        lanes: &Rc<tokio::sync::Notify>,
    ) -> Option<Rc<Self>> {
        shared.cluster.as_ref()?;
        let account = Self::new(shard, Arc::clone(shared), None, Rc::clone(lanes));
        Some(Rc::new(account))
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The number of another kept session.
    pub(super) fn open_session(&self) -> (Journal, SessionId) {
        let session = match &self.sink {
            Some(sink) => sink.store.next_session(),
            None => SessionId(self.next_number()),
        };
        (self.journal.clone(), session)
    }

    /// The number of a session that is noted for its will.
    pub(super) fn open_brief(&self) -> (Journal, SessionId) {
        let session = SessionId(SessionId::BRIEF | self.next_number());
        (self.journal.clone(), session)
    }

    fn next_number(&self) -> u64 {
        self.numbered.set(self.numbered.get() + 1);
        self.numbered.get()
    }

    /// Notes which other nodes are there.
    pub(super) fn set_peers(&self, peers: Vec<Peer>) {
        let mut book = self.book.borrow_mut();
        book.set_peers(peers);
        if book.has_words() {
            self.lanes.notify_one();
        }
        self.copying.notify_one();
    }

    /// There is a session that may have to be copied.
    pub(super) fn copy_soon(&self) {
        self.copying.notify_one();
    }

    /// Waits until there may be a session to copy.
    pub(super) async fn copy_due(&self) {
        self.copying.notified().await;
    }

    pub(super) fn book(&self) -> &RefCell<Book> {
        &self.book
    }

    /// Whether anybody takes what is noted.
    pub(super) fn is_taken(&self) -> bool {
        self.sink.is_some() || self.book.borrow().has_peers()
    }

    /// Whether there is a store.
    pub(super) fn is_stored(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether other nodes may have copies of sessions, at times.
    pub(super) fn is_copied(&self) -> bool {
        self.shared.cluster.is_some()
    }

    /// The parcel that what is noted in this turn goes with.
    pub(super) fn next_parcel(&self) -> u64 {
        self.sent.get() + 1
    }

    /// Has all that the client is told from now on wait until what is noted by now, and until the
    /// shard's turn is over, is stored. A client that would wait in vain is sent away.
    pub(super) fn hold(&self, link: &Rc<Link>) {
        if !self.is_taken() {
            return;
        }
        let number = self.next_parcel();
        // So that there is such a parcel.
        self.journal.touch();
        link.hold(number);
        if self.condition() == Condition::Failing {
            link.give_up_held();
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let is_last = waiting
            .back()
            .is_some_and(|(last, who)| *last == number && who.as_ptr() == Rc::as_ptr(link));
        if !is_last {
            waiting.push_back((number, Rc::downgrade(link)));
        }
    }

    /// Whether more can be stored.
    pub(super) fn condition(&self) -> Condition {
        let sink = self.sink.as_ref();
        sink.map_or(Condition::Good, |sink| sink.store.condition())
    }

    /// The last parcel of those up to which all are safe.
    fn safe(&self) -> u64 {
        let sent = self.sent.get();
        let sink = self.sink.as_ref();
        let stored = sink.map_or(sent, |sink| sink.store.stored(self.shard));
        stored.min(self.book.borrow().confirmed(sent))
    }

    /// Waits until more is safe, or the store's condition is another.
    async fn changed(&self) {
        let stored = async {
            match &self.sink {
                Some(sink) => sink.store.changed(self.shard).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = stored => {}
            () = self.copied.notified() => {}
        }
    }

    /// Whether so much waits to be safe that the shard should not take more from its clients.
    /// While it cannot be written, nothing is taken that would need it.
    pub(super) fn is_congested(&self) -> bool {
        let bytes = self.journal.bytes() + self.bytes_under_way.get();
        let sink = self.sink.as_ref();
        let is_much = bytes > WAITING_BOUND || sink.is_some_and(|sink| sink.store.has_many_notes());
        is_much && self.condition() != Condition::Failing
    }

    /// Whether so much waits for the store alone, which needs nobody to go on. While other nodes are
    /// waited for, what they send must be taken: they may wait for this one.
    fn is_store_behind(&self) -> bool {
        let Some(Sink { store, .. }) = &self.sink else {
            return false;
        };
        let stored = store.stored(self.shard);
        let under_way = self.under_way.borrow();
        let waiting = under_way.iter().filter(|(number, _)| *number > stored);
        let mut bytes: usize = waiting.map(|(_number, bytes)| bytes).sum();
        if self.sent.get() - stored >= PARCELS {
            bytes += self.journal.bytes();
        }
        bytes > WAITING_BOUND && store.condition() != Condition::Failing
    }

    /// Whether everything that is noted is safe.
    pub(super) fn is_settled(&self) -> bool {
        !self.journal.is_wanted() && self.safe() == self.sent.get()
    }

    /// Sends parcels for as long as the shard lives.
    pub(super) async fn send_parcels(&self) {
        loop {
            while self.sent.get() - self.safe() >= PARCELS {
                self.room.notified().await;
            }
            poll_fn(|context| self.journal.poll_wanted(context)).await;
            self.send_now();
        }
    }

    /// Sends what is noted by now, without waiting for room.
    ///
    /// Before messages leave for other shards: parcels are stored in the order of their arrival, so
    /// no shard's message of QoS 2 is stored before it is that it was received here. After a crash
    /// in between, its sender's repeat would be taken for another message.
    pub(super) fn send_now(&self) {
        let bytes = self.journal.bytes();
        let Some(mut changes) = self.journal.take() else {
            return;
        };
        let number = self.sent.get() + 1;
        self.sent.set(number);
        self.under_way.borrow_mut().push_back((number, bytes));
        self.bytes_under_way.set(self.bytes_under_way.get() + bytes);
        if self.is_copied() {
            self.tell_copies(number, &changes);
            changes.retain(|(session, _change)| !session.is_brief());
        }
        match &self.sink {
            // The store's thread ends after the shards.
            Some(sink) => drop(sink.parcels.send(Parcel {
                shard: self.shard,
                number,
                changes,
            })),
            None => self.copied.notify_one(),
        }
    }

    fn tell_copies(&self, number: u64, changes: &[(SessionId, Change)]) {
        let (hash, name) = (hash_of, |share| self.shared.shares.name(share));
        let mut book = self.book.borrow_mut();
        book.handle_parcel(number, changes, hash, name, Instant::now());
        if book.has_words() {
            self.lanes.notify_one();
        }
    }

    /// Hands words for other nodes to their lanes.
    pub(super) fn send_words(&self, outbox: &mut Outbox) {
        let mut book = self.book.borrow_mut();
        while let Some(Outgoing { to, word, purpose }) = book.poll_word() {
            let sequence = outbox.push_word(to, &word, purpose != Purpose::Nothing);
            book.note_sent(to, sequence, purpose);
        }
        while let Some(Place { end, life }) = book.poll_told() {
            let (shard, of) = (self.shard.0, self.shared.shards);
            let word = Word::Told { life, shard, of };
            outbox.push_word(end, &word.encode(), false);
        }
    }

    /// Notes that another node has taken a frame, or is sent it at least.
    pub(super) fn confirm(&self, to: ShardId, sequence: u64, level: Level) {
        let mut book = self.book.borrow_mut();
        let is_news = match level {
            Level::Passed => book.note_passed(to, sequence),
            Level::Taken | Level::Safe => book.confirm(to, sequence, Instant::now()),
        };
        if is_news {
            self.copied.notify_one();
            self.copying.notify_one();
        }
        if book.has_words() {
            self.lanes.notify_one();
        }
    }

    /// Lets go what waited for what is safe; tells which parcels are since the last call.
    fn let_go(&self) -> RangeInclusive<u64> {
        let stored = self.safe();
        let before = self.heard.replace(stored);
        let mut under_way = self.under_way.borrow_mut();
        while let Some((_number, bytes)) = under_way.pop_front_if(|(number, _)| *number <= stored) {
            self.bytes_under_way.set(self.bytes_under_way.get() - bytes);
        }
        drop(under_way);
        let mut waiting = self.waiting.borrow_mut();
        while let Some((_number, link)) = waiting.pop_front_if(|(number, _)| *number <= stored) {
            if let Some(link) = link.upgrade() {
                link.let_go(stored);
            }
        }
        drop(waiting);
        self.room.notify_one();
        before + 1..=stored
    }

    /// Sends away who waits for what may never be stored.
    fn give_up_waiting(&self) {
        let waiting = self.waiting.take().into_iter();
        let links = waiting.filter_map(|(_number, link)| link.upgrade());
        links.for_each(|link| link.give_up_held());
    }
}

/// Sends what is to be stored, and answers who waited for it, for as long as the shard lives.
pub(super) async fn serve(shard: Rc<RefCell<Shard>>) {
    let account = shard.borrow().account().cloned();
    if let Some(account) = account {
        tokio::join!(account.send_parcels(), follow_store(&account, &shard));
    }
}

/// Waits while so much waits to be safe that no more clients should be taken.
pub(super) async fn relief(shard: &RefCell<Shard>) {
    let relief = Rc::clone(&shard.borrow().relief);
    while shard.borrow().is_store_congested() {
        relief.notified().await;
    }
}

/// Waits while so much waits for the store that nothing of other shards should be taken.
pub(super) async fn store_relief(shard: &RefCell<Shard>) {
    let (relief, account) = {
        let state = shard.borrow();
        (Rc::clone(&state.relief), state.account().cloned())
    };
    while account
        .as_ref()
        .is_some_and(|account| account.is_store_behind())
    {
        relief.notified().await;
    }
}

async fn follow_store(account: &Account, shard: &RefCell<Shard>) {
    loop {
        account.changed().await;
        let stored = account.let_go();
        shard.borrow_mut().handle_stored(stored);
        // It may have been good for a moment while the shard was busy, and who waits since then was
        // not sent away.
        if account.condition() == Condition::Failing {
            account.give_up_waiting();
            shard.borrow().give_up_unanswered();
        }
    }
}

/// What a session says to its client: for a kept one, what would be wrong after a crash waits.
pub(super) struct Line<'a> {
    link: &'a Rc<Link>,
    /// Of a session that is kept.
    account: Option<&'a Account>,
}

impl<'a> Line<'a> {
    pub(super) fn new(link: &'a Rc<Link>, account: Option<&'a Rc<Account>>, is_kept: bool) -> Self {
        let account = account.filter(|_account| is_kept).map(|account| &**account);
        Self { link, account }
    }

    fn hold(&self) {
        if let Some(account) = self.account {
            account.hold(self.link);
        }
    }
}

impl Wire for Line<'_> {
    fn has_room(&self) -> bool {
        (&**self.link).has_room()
    }

    fn publish(&mut self, delivery: &Delivery, now: Instant) -> bool {
        // Under another identifier it would be another message. QoS 1 may come twice.
        if delivery.qos == Qos::ExactlyOnce {
            self.hold();
        }
        (&mut &**self.link).publish(delivery, now)
    }

    fn ack(&mut self, ack: Ack) {
        match ack.kind {
            // The client forgets the identifier: it must not be known here any more.
            AckKind::PubRel | AckKind::PubComp => self.hold(),
            AckKind::PubAck | AckKind::PubRec => {}
        }
        (&mut &**self.link).ack(ack);
    }
}

#[cfg(test)]
mod tests;
