//! Who may do what on the daemon's routes.

use axum::http::StatusCode;

use super::{Ask, Desk};

#[tokio::test]
async fn nobody_gets_to_the_daemon_unknown() {
    let desk = Desk::new();
    for ask in [
        Ask::get("/v1/status"),
        Ask::get("/v1/live"),
        Ask::post("/v1/drain"),
    ] {
        let answer = desk.ask(ask).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_ne!(answer.header("www-authenticate"), "");
    }
    assert_eq!(desk.refused("session"), 3);
}

#[tokio::test]
async fn viewer_reads_and_changes_nothing() {
    let desk = Desk::new();
    let victor = desk.log_in("victor").await;
    let answer = desk.ask(Ask::get("/v1/status").cookie(&victor)).await;
    assert_eq!(
        (answer.status, answer.text.as_str()),
        (StatusCode::OK, "victor viewer")
    );
    for method in ["POST", "PUT", "DELETE"] {
        let answer = desk.ask(Ask::new(method, "/v1/drain").with(&victor)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method}");
        assert_eq!(answer.json()["error"], "a viewer may change nothing");
    }
    assert_eq!(desk.refused("role"), 3);
}

#[tokio::test]
async fn operator_changes_things_from_the_page_alone() {
    let desk = Desk::new();
    let alice = desk.log_in("alice").await;
    for method in ["POST", "PUT", "DELETE"] {
        let ask = || Ask::new(method, "/v1/drain");
        let answer = desk.ask(ask().with(&alice)).await;
        assert_eq!(
            (answer.status, answer.text.as_str()),
            (StatusCode::OK, "alice operator")
        );
        let other = desk.log_in("alice").await;
        for forged in [
            ask().cookie(&alice),
            ask().cookie(&alice).header("x-csrf-token", ""),
            ask().cookie(&alice).header("x-csrf-token", &other.csrf),
            ask().with(&alice).header("origin", "https://evil.example"),
            ask().with(&alice).header("origin", "null"),
        ] {
            let answer = desk.ask(forged).await;
            assert_eq!(
                answer.status,
                StatusCode::FORBIDDEN,
                "{method}: {}",
                answer.text
            );
        }
    }
    assert_eq!((desk.refused("csrf"), desk.refused("origin")), (9, 6));
    let own = Ask::post("/v1/drain")
        .with(&alice)
        .header("origin", "http://127.0.0.1:8404");
    assert_eq!(desk.ask(own).await.status, StatusCode::OK);
}

#[tokio::test]
async fn token_needs_neither_cookie_nor_proof() {
    let desk = Desk::new();
    let read = desk
        .ask(Ask::get("/v1/status").token("grafana's token"))
        .await;
    assert_eq!(read.text, "grafana viewer");
    let refused = desk
        .ask(Ask::post("/v1/drain").token("grafana's token"))
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let done = desk
        .ask(Ask::post("/v1/drain").token("robot's token"))
        .await;
    assert_eq!(
        (done.status, done.text.as_str()),
        (StatusCode::OK, "robot operator")
    );
    // A bad token is not made up for by a good cookie.
    let alice = desk.log_in("alice").await;
    for bad in ["", "nobody's token", "alice's password"] {
        let answer = desk
            .ask(Ask::get("/v1/status").token(bad).with(&alice))
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{bad}");
    }
    assert_eq!(desk.refused("token"), 3);
    let mut without = super::accounts();
    without.tokens.remove("robot");
    desk.shared.book.set(without);
    let gone = desk
        .ask(Ask::post("/v1/drain").token("robot's token"))
        .await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn method_that_a_route_does_not_take_is_told_to_who_is_known() {
    let desk = Desk::new();
    let post = || Ask::post("/v1/status");
    assert_eq!(desk.ask(post()).await.status, StatusCode::UNAUTHORIZED);
    let answer = desk.ask(post().token("robot's token")).await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(answer.json()["hint"].is_string());
    assert_eq!(
        desk.ask(Ask::new("PATCH", "/")).await.status,
        StatusCode::METHOD_NOT_ALLOWED
    );
}
