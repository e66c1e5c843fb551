use super::*;

#[tokio::test]
async fn shard_ends_with_its_intake() {
    let shared = Shared::for_tests("", 1);
    let (_stop, stopped) = watch::channel(false);
    let (alive, mut ended) = mpsc::channel(1);
    let counters = Arc::new(Counters::default());
    let (_begin, begun) = watch::channel(true);
    let Handle {
        restored: _restored,
        arrivals,
        requests: _requests,
        thread,
    } = spawn(ShardId(0), shared, counters, None, begun, stopped, alive).unwrap();
    drop(arrivals);
    let heard = tokio::time::timeout(Duration::from_secs(20), ended.recv()).await;
    assert_eq!(heard, Ok(Some(())));
    thread.join().unwrap();
}
