//! Logging in, staying in, and getting out.

use std::time::Duration;

use axum::http::StatusCode;
use proptest::prelude::*;
use serde_json::json;

use super::{Ask, Desk, accounts, cheap};
use crate::{Occurrence, Role, accounts::Accounts, router::Channel, sessions::IDLE};

#[tokio::test]
async fn who_logs_in_gets_a_cookie_and_proof_of_the_page() {
    let desk = Desk::new();
    let answer = desk.ask(Ask::login("alice", "alice's password")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    assert_eq!(
        (&body["name"], &body["role"]),
        (&json!("alice"), &json!("operator"))
    );
    assert_eq!(body["expires_seconds"], 12 * 3_600);
    assert_eq!(body["csrf"].as_str().unwrap().len(), 64);
    let cookie = answer.header("set-cookie").to_owned();
    let (secret, attributes) = cookie.split_once("; ").unwrap();
    assert!(secret.starts_with("tidegate=") && secret.len() > 64);
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Strict");
    let told = Occurrence::LoggedIn {
        name: "alice".to_owned(),
        role: Role::Operator,
        address: [192, 0, 2, 1].into(),
    };
    assert_eq!(desk.daemon.told(), [told]);
    assert_eq!((desk.status().logins["ok"], desk.status().sessions), (1, 1));
    // A page that is loaded again.
    let again = desk
        .ask(Ask::get("/session").header("cookie", secret))
        .await;
    assert_eq!(again.json()["csrf"], body["csrf"]);
}

#[tokio::test]
async fn cookie_over_tls_is_for_this_host_and_tls_only() {
    let desk = Desk::over(Channel::Tls);
    let answer = desk.ask(Ask::login("alice", "alice's password")).await;
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-tidegate="), "{cookie}");
    assert!(
        cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict; Secure"),
        "{cookie}"
    );
    let login = desk.log_in("alice").await;
    let plain = login.cookie.replace("__Host-", "");
    let answer = desk
        .ask(Ask::get("/session").header("cookie", &plain))
        .await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn wrong_names_and_passwords_are_told_alike() {
    let desk = Desk::new();
    let mut answers = Vec::new();
    for (name, password) in [
        ("alice", "victor's password"),
        ("nobody", "alice's password"),
        ("grafana", "grafana's token"),
        ("", ""),
        ("alice", ""),
        ("ALICE", "alice's password"),
    ] {
        let answer = desk.ask(Ask::login(name, password)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{name}");
        assert_eq!(answer.header("set-cookie"), "");
        assert_ne!(answer.header("www-authenticate"), "");
        answers.push(answer.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (desk.status().logins["failed"], desk.status().sessions),
        (6, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_at_a_bounded_rate_and_never_with_what_may_be_a_password() {
    let desk = Desk::new();
    for _ in 0..3 {
        desk.ask(Ask::login("my password by mistake", "x")).await;
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    desk.ask(Ask::login("alice", "x")).await;
    let address = [192, 0, 2, 1].into();
    let failed = |name: Option<&str>, unsaid| Occurrence::LoginFailed {
        name: name.map(str::to_owned),
        address,
        unsaid,
    };
    assert_eq!(
        desk.daemon.told(),
        [failed(None, 0), failed(Some("alice"), 2)]
    );
}

#[tokio::test]
async fn what_is_no_login_is_explained() {
    let desk = Desk::new();
    let whole = r#"{"name": "alice", "password": "alice's password"}"#;
    for ask in [
        Ask::post("/session").header("content-type", "text/plain"),
        Ask::post("/session").json("{"),
        Ask::post("/session").json(r#"{"name": "alice"}"#),
        Ask::post("/session").json(r#"{"name": "alice", "password": 7}"#),
        Ask::post("/session").json(&whole.replace('}', r#", "role": "operator"}"#)),
    ] {
        let answer = desk.ask(ask).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        assert!(
            answer.json()["hint"]
                .as_str()
                .unwrap()
                .contains("application/json")
        );
    }
    // Another site's form can send no such type, and no such origin.
    let mut form = Ask::post("/session").json(whole);
    form.headers.retain(|(name, _)| name != "content-type");
    let form = form.header("content-type", "text/plain");
    assert_eq!(desk.ask(form).await.status, StatusCode::BAD_REQUEST);
    let foreign = Ask::login("alice", "alice's password").header("origin", "https://evil.example");
    assert_eq!(desk.ask(foreign).await.status, StatusCode::FORBIDDEN);
    assert_eq!(desk.refused("origin"), 1);
    let own = Ask::login("alice", "alice's password").header("origin", "http://127.0.0.1:8404");
    assert_eq!(desk.ask(own).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn guessing_is_slowed_down_and_others_log_in_meanwhile() {
    let desk = Desk::new();
    let guess = || desk.ask(Ask::login("alice", "guess").from("198.51.100.7"));
    for _ in 0..10 {
        assert_eq!(guess().await.status, StatusCode::UNAUTHORIZED);
    }
    let slowed = guess().await;
    assert_eq!(slowed.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(slowed.header("retry-after"), "30");
    assert_eq!(desk.status().logins["throttled"], 1);
    // The right one is not looked at either: else one could go on guessing.
    let right = Ask::login("alice", "alice's password").from("198.51.100.7");
    assert_eq!(desk.ask(right).await.status, StatusCode::TOO_MANY_REQUESTS);
    desk.log_in("alice").await;
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(guess().await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(guess().await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test(start_paused = true)]
async fn name_that_is_guessed_from_everywhere_is_slowed_down_but_not_where_it_was() {
    let desk = Desk::new();
    desk.log_in("alice").await;
    for n in 0..20 {
        let guess = Ask::login("alice", "guess").from(&format!("198.51.100.{n}"));
        assert_eq!(desk.ask(guess).await.status, StatusCode::UNAUTHORIZED);
    }
    let guess = Ask::login("alice", "guess").from("203.0.113.1");
    assert_eq!(desk.ask(guess).await.status, StatusCode::TOO_MANY_REQUESTS);
    let unknown = Ask::login("nobody", "guess").from("203.0.113.1");
    assert_eq!(desk.ask(unknown).await.status, StatusCode::UNAUTHORIZED);
    desk.log_in("alice").await;
}

#[tokio::test]
async fn attempts_that_cannot_be_looked_at_are_told_so_and_cost_nothing() {
    let desk = Desk::new();
    let all = desk.shared.checker.fill();
    for _ in 0..30 {
        let answer = desk.ask(Ask::login("alice", "alice's password")).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(desk.status().logins["busy"], 30);
    drop(all);
    desk.log_in("alice").await;
}

#[tokio::test]
async fn whoever_logs_out_is_out_and_another_page_cannot_do_that() {
    let desk = Desk::new();
    let login = desk.log_in("victor").await;
    let forged = desk
        .ask(Ask::new("DELETE", "/session").cookie(&login))
        .await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let out = desk.ask(Ask::new("DELETE", "/session").with(&login)).await;
    assert_eq!(
        (out.status, out.text.as_str()),
        (StatusCode::NO_CONTENT, "")
    );
    assert!(out.header("set-cookie").starts_with("tidegate=; "));
    assert!(out.header("set-cookie").ends_with("; Max-Age=0"));
    for ask in [
        Ask::get("/session"),
        Ask::get("/v1/status"),
        Ask::get("/v1/live"),
    ] {
        let answer = desk.ask(ask.with(&login)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(desk.status().sessions, 0);
    let nobody = desk.ask(Ask::new("DELETE", "/session")).await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
    let token = desk
        .ask(Ask::new("DELETE", "/session").token("robot's token"))
        .await;
    assert_eq!(token.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn who_logs_in_again_is_there_once() {
    let desk = Desk::new();
    let first = desk.log_in("alice").await;
    let again = Ask::login("victor", "victor's password").cookie(&first);
    assert_eq!(desk.ask(again).await.status, StatusCode::OK);
    assert_eq!(desk.status().sessions, 1);
    assert_eq!(
        desk.ask(Ask::get("/session").cookie(&first)).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test(start_paused = true)]
async fn session_ends_with_its_time_its_account_and_its_password() {
    let desk = Desk::new();
    let shows = async |login: &super::Login| desk.ask(Ask::get("/v1/status").cookie(login)).await;
    let login = desk.log_in("alice").await;
    tokio::time::advance(IDLE).await;
    assert_eq!(shows(&login).await.status, StatusCode::UNAUTHORIZED);

    let login = desk.log_in("alice").await;
    let mut changed = accounts();
    let account = changed.accounts.get_mut("alice").unwrap();
    account.password = cheap("another password").into();
    desk.shared.book.set(changed);
    assert_eq!(shows(&login).await.status, StatusCode::UNAUTHORIZED);

    desk.shared.book.set(accounts());
    let login = desk.log_in("alice").await;
    let mut lower = accounts();
    lower.accounts.get_mut("alice").unwrap().role = Role::Viewer;
    desk.shared.book.set(lower);
    assert_eq!(shows(&login).await.text, "alice viewer");

    let mut without = accounts();
    without.accounts.remove("alice");
    desk.shared.book.set(without);
    assert_eq!(shows(&login).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_accounts_the_command_that_makes_one_is_told() {
    let desk = Desk::new();
    desk.shared.book.set(Accounts::default());
    for ask in [
        Ask::get("/session"),
        Ask::login("alice", "alice's password"),
    ] {
        let answer = desk.ask(ask).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json()["error"], "there is no account yet");
        let hint = answer.json()["hint"].to_string();
        assert!(
            hint.contains("tidegate account add NAME --role operator"),
            "{hint}"
        );
    }
}

#[tokio::test]
async fn asking_whether_one_is_logged_in_is_no_refusal() {
    let desk = Desk::new();
    let answer = desk.ask(Ask::get("/session")).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(desk.refused("session"), 0);
}

proptest! {
    #[test]
    fn no_body_cookie_or_token_is_too_odd(
        body in "\\PC{0,200}",
        cookie in "[ -~]{0,100}",
        token in "[ -~]{0,100}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let desk = Desk::new();
            let answer = desk.ask(Ask::post("/session").json(&body)).await;
            assert!(answer.status.is_client_error());
            for route in ["/session", "/v1/status", "/v1/live"] {
                let ask = Ask::get(route).header("cookie", &cookie);
                assert_eq!(desk.ask(ask).await.status, StatusCode::UNAUTHORIZED);
            }
            let ask = Ask::get("/v1/status").header("authorization", &token);
            assert_eq!(desk.ask(ask).await.status, StatusCode::UNAUTHORIZED);
        });
    }
}
