//! Nodes that are back before others have settled that they were gone.

use super::{
    Broker, Node,
    client::Hello,
    cluster::Cluster,
    config_of,
    replicas::{connect, leave_session},
};
use crate::codec::packet::Version;

const V5: Version = Version::V5;

#[tokio::test]
async fn message_for_a_node_that_is_back_goes_to_the_sessions_that_it_had_before() {
    let cluster = Cluster::new();
    let one = cluster.start("one", &[], "").await;
    let settings = cluster.settings(&[&one], "");
    let two = Node::start_with(&config_of("two", &settings), 2).await;
    let two = Broker::of(two.unwrap());
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    let id = two.id_on(1, "c");
    leave_session(&one, V5, &id, &[("t", 1)]).await;
    let mut publisher = two.join(V5, &two.id_on(0, "publisher")).await;
    publisher.deliver("t", "before", 1).await;
    one.wait_for_copies(1).await;
    // The shard with the copy hears of nothing.
    let hung = two.hang(1).await;
    one.stop().await;
    let one = cluster.start("one", &[&two], "").await;
    one.wait_for_members(&["two"]).await;
    two.wait_for_members(&["one"]).await;
    publisher.publish("t", "meanwhile", 0b0010, 9).await;
    publisher.ping().await;
    drop(hung);
    publisher.expect(0x40, &[0, 9]).await;
    let (mut client, is_present) = connect(&two, &Hello::persistent(V5, &id)).await;
    assert!(is_present);
    for payload in ["before", "meanwhile"] {
        assert_eq!(client.receive().await.payload, payload);
    }
    client.ping().await;
    one.stop().await;
    two.stop().await;
}
