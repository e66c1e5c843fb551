//! The live stream, with a clock that the tests turn.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::{Ask, Desk, Login, accounts};
use crate::live::{BEAT, MOST_OF_ONE, PERIOD, feed};

/// A stream that is read.
struct Watch(BodyDataStream);

impl Watch {
    async fn next(&mut self) -> Option<String> {
        let frame = timeout(Duration::from_secs(60), self.0.next());
        let bytes = frame.await.expect("something is said")?.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }
}

async fn watch(desk: &Desk, ask: Ask) -> Watch {
    let response = desk.open(ask).await;
    assert_eq!(response.status(), StatusCode::OK);
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "text/event-stream");
    let body: Body = response.into_body();
    Watch(body.into_data_stream())
}

async fn open() -> (Desk, Login) {
    let desk = Desk::new();
    tokio::spawn(feed(desk.shared.clone()));
    let login = desk.log_in("victor").await;
    (desk, login)
}

#[tokio::test(start_paused = true)]
async fn status_comes_at_once_and_then_each_second_and_once_for_all() {
    let (desk, login) = open().await;
    let start = Instant::now();
    let mut one = watch(&desk, Ask::get("/v1/live").cookie(&login)).await;
    let first = one.next().await.unwrap();
    assert_eq!(first, "event: status\ndata: {\"asked\":1}\n\n");
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut other = watch(&desk, Ask::get("/v1/live").token("grafana's token")).await;
    assert_eq!(other.next().await.unwrap(), first);
    for n in 2..5 {
        let frame = format!("event: status\ndata: {{\"asked\":{n}}}\n\n");
        assert_eq!(one.next().await.unwrap(), frame);
        assert_eq!(other.next().await.unwrap(), frame);
        assert_eq!(start.elapsed(), PERIOD * (n - 1));
    }
    assert_eq!(desk.status().live_streams, 2);
    drop((one, other));
    assert_eq!(desk.status().live_streams, 0);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(desk.daemon.asked(), 4, "nobody looks, nobody is asked");
}

#[tokio::test(start_paused = true)]
async fn events_come_as_they_happen_and_none_is_missed_by_who_comes_back() {
    let (desk, login) = open().await;
    let mut stream = watch(&desk, Ask::get("/v1/live").cookie(&login)).await;
    assert!(stream.next().await.unwrap().starts_with("event: status\n"));
    desk.daemon.happen();
    desk.daemon.happen();
    let now = Instant::now();
    for n in [101, 102] {
        let frame = format!("event: event\nid: {n}\ndata: {{\"seq\":{n}}}\n\n");
        assert_eq!(stream.next().await.unwrap(), frame);
    }
    assert_eq!(now.elapsed(), Duration::ZERO);
    drop(stream);
    desk.daemon.happen();
    let ask = Ask::get("/v1/live")
        .cookie(&login)
        .header("last-event-id", "102");
    let mut stream = watch(&desk, ask).await;
    let mut frames = vec![stream.next().await.unwrap(), stream.next().await.unwrap()];
    frames.retain(|frame| frame.starts_with("event: event\n"));
    assert_eq!(frames, ["event: event\nid: 103\ndata: {\"seq\":103}\n\n"]);
    // A number that there was never is no reason to wait for it.
    let ask = Ask::get("/v1/live")
        .cookie(&login)
        .header("last-event-id", "999");
    let mut stream = watch(&desk, ask).await;
    assert!(stream.next().await.unwrap().starts_with("event: status\n"));
    desk.daemon.happen();
    assert!(
        stream
            .next()
            .await
            .unwrap()
            .starts_with("event: event\nid: 104\n")
    );
}

#[tokio::test(start_paused = true)]
async fn who_is_told_nothing_hears_a_beat() {
    let desk = Desk::new();
    // Nobody asks the daemon here: it may hang.
    let ask = Ask::get("/v1/live").token("grafana's token");
    let mut stream = watch(&desk, ask).await;
    let start = Instant::now();
    for n in 1..4 {
        assert_eq!(stream.next().await.unwrap(), ":\n\n");
        assert_eq!(start.elapsed(), BEAT * n);
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_with_what_it_was_opened_by_and_with_the_daemon() {
    let (desk, login) = open().await;
    let mut of_session = watch(&desk, Ask::get("/v1/live").cookie(&login)).await;
    let mut of_token = watch(&desk, Ask::get("/v1/live").token("grafana's token")).await;
    let mut of_robot = watch(&desk, Ask::get("/v1/live").token("robot's token")).await;
    for stream in [&mut of_session, &mut of_token, &mut of_robot] {
        assert!(stream.next().await.is_some());
    }
    desk.ask(Ask::new("DELETE", "/session").with(&login)).await;
    assert_eq!(of_session.next().await, None);
    assert!(of_token.next().await.is_some());
    let mut without = accounts();
    without.tokens.remove("grafana");
    desk.shared.book.set(without);
    assert_eq!(of_token.next().await, None);
    assert!(of_robot.next().await.is_some());
    desk.stop.cancel();
    assert_eq!(of_robot.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn page_that_is_open_keeps_its_session_until_it_ends_anyway() {
    let (desk, login) = open().await;
    let start = Instant::now();
    let mut stream = watch(&desk, Ask::get("/v1/live").cookie(&login)).await;
    while stream.next().await.is_some() {}
    assert_eq!(start.elapsed().as_secs(), 12 * 3_600);
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded() {
    let (desk, login) = open().await;
    let mut streams = Vec::new();
    for _ in 0..MOST_OF_ONE {
        streams.push(watch(&desk, Ask::get("/v1/live").cookie(&login)).await);
    }
    let refused = desk.ask(Ask::get("/v1/live").cookie(&login)).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(desk.refused("streams"), 1);
    drop(watch(&desk, Ask::get("/v1/live").token("grafana's token")).await);
    streams.pop();
    drop(watch(&desk, Ask::get("/v1/live").cookie(&login)).await);
}
