//! A shard's account with the store: what is on its way there, and what waits for it here.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    ops::RangeInclusive,
    rc::{Rc, Weak},
    sync::{Arc, mpsc},
    time::Instant,
};

use super::Shard;
use crate::{
    codec::packet::{Ack, AckKind, Delivery},
    link::Link,
    message::Qos,
    routes::ShardId,
    session::{
        Wire,
        journal::{Journal, SessionId},
    },
    store::{Condition, Parcel, Store},
};

/// Parcels under way at once: with two the store has work while this shard hears of the last one.
/// What comes meanwhile is one parcel, so that there are few when there is much.
const PARCELS: u64 = 2;

/// Bytes that may wait for the store before the shard stops reading from its clients.
const WAITING_BOUND: usize = 8 * 1024 * 1024;

/// A shard's account.
pub(super) struct Account {
    shard: ShardId,
    store: Arc<Store>,
    parcels: mpsc::Sender<Parcel>,
    journal: Journal,
    /// The last parcel that was sent.
    sent: Cell<u64>,
    /// The last one that the shard knows to be stored.
    heard: Cell<u64>,
    /// Parcels that are not stored, and about how many bytes each has.
    under_way: RefCell<VecDeque<(u64, usize)>>,
    bytes_under_way: Cell<usize>,
    /// Who has said something that waits, and for which parcel.
    waiting: RefCell<VecDeque<(u64, Weak<Link>)>>,
    /// There is room for another parcel.
    room: tokio::sync::Notify,
}

impl Account {
    pub(super) fn new(shard: ShardId, store: Arc<Store>, parcels: mpsc::Sender<Parcel>) -> Self {
        Self {
            shard,
            store,
            parcels,
            journal: Journal::default(),
            sent: Cell::new(0),
            heard: Cell::new(0),
            under_way: RefCell::default(),
            bytes_under_way: Cell::new(0),
            waiting: RefCell::default(),
            room: tokio::sync::Notify::new(),
        }
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn open_session(&self) -> (Journal, SessionId) {
        (self.journal.clone(), self.store.next_session())
    }

    /// The parcel that what is noted in this turn goes with.
    pub(super) fn next_parcel(&self) -> u64 {
        self.sent.get() + 1
    }

    /// Has all that the client is told from now on wait until what is noted by now, and until the
    /// shard's turn is over, is stored. A client that would wait in vain is sent away.
    pub(super) fn hold(&self, link: &Rc<Link>) {
        let number = self.next_parcel();
        // So that there is such a parcel.
        self.journal.touch();
        link.hold(number);
        if self.store.condition() == Condition::Failing {
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
        self.store.condition()
    }

    /// Whether so much waits for the store that the shard should not take more from its clients.
    /// While it cannot be written, nothing is taken that would need it.
    pub(super) fn is_congested(&self) -> bool {
        let bytes = self.journal.bytes() + self.bytes_under_way.get();
        bytes > WAITING_BOUND && self.store.condition() != Condition::Failing
    }

    /// Whether everything that is noted is stored.
    pub(super) fn is_settled(&self) -> bool {
        !self.journal.is_wanted() && self.store.stored(self.shard) == self.sent.get()
    }

    /// Sends parcels for as long as the shard lives.
    pub(super) async fn send_parcels(&self) {
        loop {
            while self.sent.get() - self.store.stored(self.shard) >= PARCELS {
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
        let Some(changes) = self.journal.take() else {
            return;
        };
        let number = self.sent.get() + 1;
        self.sent.set(number);
        self.under_way.borrow_mut().push_back((number, bytes));
        self.bytes_under_way.set(self.bytes_under_way.get() + bytes);
        // The store's thread ends after the shards.
        let _ = self.parcels.send(Parcel {
            shard: self.shard,
            number,
            changes,
        });
    }

    /// Lets go what waited for what is stored; tells which parcels are stored since the last call.
    fn let_go(&self) -> RangeInclusive<u64> {
        let stored = self.store.stored(self.shard);
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

async fn follow_store(account: &Account, shard: &RefCell<Shard>) {
    loop {
        account.store.changed(account.shard).await;
        let stored = account.let_go();
        shard.borrow_mut().handle_stored(stored);
        // It may have been good for a moment while the shard was busy, and who waits since then was
        // not sent away.
        if account.store.condition() == Condition::Failing {
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
