//! Whether there is room for another client: how many there are, at what rate they come, and how
//! loaded the node is. Who comes through is handed to the shard that has its session.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    codec::packet::ConnectCode,
    handshake::{self, HandshakeError},
    metrics::{Counters, Metric},
    rate::Bucket,
    shard::{Arrival, Shared},
};

/// What all listeners hand their clients to.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    shards: Vec<mpsc::Sender<Arrival>>,
    /// Accepted connections.
    open: Arc<AtomicUsize>,
    /// Those of them that are not through.
    connecting: Arc<AtomicUsize>,
    /// Absent until CONNECTs are counted.
    connects: Mutex<Option<Bucket>>,
}

/// One of a number; counted for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// The second part of the result is how many there were before.
    fn take(number: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = number.fetch_add(1, Ordering::AcqRel);
        (Self(Arc::clone(number)), before)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An accepted connection's share of the limit; given back on drop.
pub(crate) struct Slot {
    since: Instant,
    counters: Arc<Counters>,
    _counted: Counted,
}

impl Slot {
    /// When the connection was accepted.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counters.sub(Metric::Connections, 1);
    }
}

/// What a connection holds until its client is through.
pub(crate) struct Pending {
    _counted: Counted,
}

impl Gate {
    pub(crate) fn new(
        shared: Arc<Shared>,
        shards: Vec<mpsc::Sender<Arrival>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            shared,
            counters,
            shards,
            open: Arc::default(),
            connecting: Arc::default(),
            connects: Mutex::default(),
        }
    }

    /// Takes an accepted connection in, before anything is read from it.
    ///
    /// # Errors
    /// What to count when there is no room for it. It is closed without an answer then: to read its
    /// CONNECT is work too.
    pub(crate) fn enter(&self, now: Instant) -> Result<(Slot, Pending), Metric> {
        let limits = self.shared.limits();
        let (counted, before) = Counted::take(&self.open);
        self.counters.inc(Metric::Connections);
        let slot = Slot {
            since: now,
            counters: Arc::clone(&self.counters),
            _counted: counted,
        };
        if before >= limits.connections {
            return Err(Metric::RefusedFull);
        }
        let (counted, before) = Counted::take(&self.connecting);
        if before >= limits.connecting || self.shared.load.accepts_late(now) {
            return Err(Metric::RefusedBusy);
        }
        if self.is_flooded(before, now) {
            return Err(Metric::RefusedRate);
        }
        Ok((slot, Pending { _counted: counted }))
    }

    /// Whether those who are ahead will use up all tokens, and a whole burst on top.
    fn is_flooded(&self, ahead: usize, now: Instant) -> bool {
        let enough = |bucket: &mut Bucket| {
            let burst = u64::from(bucket.rate().burst.get());
            ahead as u64 > bucket.tokens(now) + burst
        };
        self.with_bucket(now, enough).unwrap_or(false)
    }

    /// `None` where CONNECTs may come at any rate.
    fn with_bucket<T>(&self, now: Instant, ask: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        let rate = self.shared.limits().connect_rate?;
        let mut connects = self.connects.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = connects.get_or_insert_with(|| Bucket::new(rate, now));
        if bucket.rate() != rate {
            *bucket = Bucket::new(rate, now);
        }
        Some(ask(bucket))
    }

    /// Whether a CONNECT is to be looked at, before anything costly is done for it.
    ///
    /// # Errors
    /// What it is to be answered with when not.
    pub(crate) fn judge(&self, client_id: &str, now: Instant) -> Result<(), ConnectCode> {
        let shard = self.shared.shard_of(client_id);
        if self.shared.load.is_over(usize::from(shard.0), now) {
            return Err(ConnectCode::ServerBusy);
        }
        match self.with_bucket(now, |bucket| bucket.take(now)) {
            None | Some(true) => Ok(()),
            Some(false) => Err(ConnectCode::RateExceeded),
        }
    }

    /// Passes a client on to the shard that owns its session.
    ///
    /// # Errors
    /// When the shard has too many waiting, or has ended.
    pub(crate) async fn hand_over(&self, mut arrival: Arrival) -> Result<(), HandshakeError> {
        let shard = self.shared.shard_of(&arrival.connect.client_id);
        let arrivals = self
            .shards
            .get(usize::from(shard.0))
            .ok_or(HandshakeError::Closed)?;
        let patience = self.shared.load.patience();
        match tokio::time::timeout(patience, arrivals.reserve()).await {
            Ok(Ok(place)) => {
                place.send(arrival);
                Ok(())
            }
            Ok(Err(_stopped)) => Err(HandshakeError::Closed),
            Err(_elapsed) => {
                let (code, client) = (ConnectCode::ServerBusy, arrival.connect.recipient());
                let refusal = handshake::refuse(&mut arrival.transport, code, client);
                // One that does not read would keep its place for good.
                let limit = self.shared.limits().connect_timeout;
                let _late = tokio::time::timeout(limit, refusal).await;
                Err(HandshakeError::Refused(code))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{codec::packet::Version, peer::Peer, transport::Socket};

    /// A client that has sent its CONNECT, and its own end.
    async fn arrival(slot: Slot) -> (Arrival, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, address) = listener.accept().await.unwrap();
        let packet = b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01c";
        let frame = crate::codec::frame(packet, 100).unwrap().unwrap();
        let arrival = Arrival {
            transport: Box::new(Socket::from(server)),
            peer: Peer {
                address,
                ..Peer::for_tests()
            },
            identity: crate::access::Identity::ANONYMOUS,
            connect: crate::codec::decode_connect(packet, frame, Version::V5).unwrap(),
            assigned_client_id: false,
            rest: Bytes::new(),
            slot,
        };
        (arrival, client)
    }

    #[tokio::test]
    async fn client_that_finds_its_shard_too_busy_is_sent_away() {
        let shared = Shared::for_tests("[overload]\nlag = \"1s\"\n", 1);
        let (shard, mut arrivals) = mpsc::channel(1);
        let counters = Arc::new(Counters::default());
        let gate = Gate::new(shared, vec![shard], counters);
        let (Ok((first, _)), Ok((second, _))) =
            (gate.enter(Instant::now()), gate.enter(Instant::now()))
        else {
            panic!("there is room for two");
        };
        let (first, _its_end) = arrival(first).await;
        gate.hand_over(first).await.unwrap();
        let (second, mut its_end) = arrival(second).await;
        let refused = gate.hand_over(second).await.unwrap_err();
        assert_eq!(refused.metric(), Metric::RefusedBusy);
        let mut answer = Vec::new();
        its_end.read_to_end(&mut answer).await.unwrap();
        assert_eq!((answer[0], &answer[2..4]), (0x20, &[0, 0x89][..]));
        assert!(arrivals.recv().await.is_some());
    }
}
