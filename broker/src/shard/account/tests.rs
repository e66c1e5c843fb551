use tokio::task::{LocalSet, yield_now};

use super::*;
use crate::{
    codec::packet::{Connect, Version},
    peer::Peer,
    shard::{Inheritance, Shared},
};

fn link(shard: &Shard) -> Rc<Link> {
    let connect = Connect {
        clean_start: false,
        ..Connect::for_tests(Version::V311, "c")
    };
    let counters = Arc::clone(shard.counters());
    Link::new(Peer::for_tests(), &connect, shard.limits(), counters)
}

#[tokio::test]
async fn who_waits_since_a_short_recovery_is_sent_away_when_writes_fail_again() {
    let store = Arc::new(Store::for_tests(1));
    let mut shard = Shard::new(ShardId(0), Shared::for_tests("", 1), Arc::default());
    let (parcels, _arriving) = mpsc::channel();
    let inheritance = Inheritance {
        store: Arc::clone(&store),
        parcels,
        sessions: Vec::new(),
        taken: std::collections::BTreeSet::new(),
    };
    shard.inherit(inheritance, Instant::now());
    let account = Rc::clone(shard.account().unwrap());
    let [before, meanwhile] = [link(&shard), link(&shard)];
    let shard = Rc::new(RefCell::new(shard));
    let followed = async {
        account.hold(&before);
        store.set_condition(Condition::Failing);
        while !before.is_closing() {
            yield_now().await;
        }
        // All of it before the shard has another turn.
        store.set_condition(Condition::Good);
        account.hold(&meanwhile);
        store.set_condition(Condition::Failing);
        while !meanwhile.is_closing() {
            yield_now().await;
        }
    };
    let local = LocalSet::new();
    let serving = local.run_until(async {
        tokio::select! {
            () = serve(Rc::clone(&shard)) => unreachable!("serves for good"),
            () = followed => {}
        }
    });
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), serving).await;
    assert!(ended.is_ok(), "who waits is not sent away");
}
