//! The dashboard of a running balancer: who is let in, and that orders given there are carried out.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::wait_until;

const ADDRESS: &str = "127.0.0.1:8404";
const PASSWORD: &str = "open sesame";

fn with_dashboard() -> String {
    let own = format!("[dashboard]\nlisten = \"{ADDRESS}\"\naccounts = \"$DIR/accounts.toml\"\n");
    config("round_robin", "dsr", &BOTH).replace("[limits]", &format!("{own}[limits]"))
}

/// What was answered.
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

/// Asks the dashboard from the balancer's own host.
fn ask(lab: &Lab, method: &str, route: &str, headers: &str, body: &str) -> Result<Answer> {
    let length = body.len();
    let request = format!(
        "{method} {route} HTTP/1.1\r\nHost: {ADDRESS}\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let text = lab.host().netns().enter(|| {
        let mut stream = TcpStream::connect(ADDRESS)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?;
    let (head, body) = text.split_once("\r\n\r\n").context("an answer")?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok(Answer {
        status,
        head: head.to_owned(),
        body: serde_json::from_str(body).unwrap_or_default(),
    })
}

/// What a browser sends of somebody who has logged in; `None` while they are not let in.
fn log_in(lab: &Lab, name: &str) -> Option<String> {
    let body = json!({"name": name, "password": PASSWORD}).to_string();
    let answer = ask(lab, "POST", "/session", "", &body).ok()?;
    let mut lines = answer.head.lines();
    let cookie = lines.find_map(|line| line.strip_prefix("set-cookie: "))?;
    let cookie = cookie.split(';').next()?;
    let csrf = answer.body["csrf"].as_str()?;
    Some(format!("Cookie: {cookie}\r\nX-CSRF-Token: {csrf}\r\n"))
}

fn account(lab: &Lab, arguments: &[&str]) -> Result<String> {
    let file = ["--accounts", "accounts.toml"];
    let done = lab.tidegate(&[&["account"], arguments, &file].concat())?;
    ensure!(done.status.success(), "{done:?}");
    Ok(String::from_utf8_lossy(&done.stdout).trim_end().to_owned())
}

#[test]
fn operator_makes_an_account_logs_in_and_drains_a_backend() -> Result<()> {
    let lab = Lab::serving(&with_dashboard())?;
    let password = lab.host().work_dir().join("password");
    fs::write(&password, PASSWORD)?;
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;

    let nobody = ask(&lab, "GET", "/session", "", "")?;
    ensure!(nobody.status == 401, "{}", nobody.head);
    let hint = nobody.body["hint"].to_string();
    ensure!(hint.contains("tidegate account add NAME"), "{hint}");

    let file = ["--password-file", "password"];
    account(
        &lab,
        &[&["add", "alice", "--role", "operator"], &file[..]].concat(),
    )?;
    let alice = wait_until(SOON, "Alice being let in", || log_in(&lab, "alice"))?;
    let page = ask(&lab, "GET", "/", "", "")?;
    ensure!(
        page.head
            .contains("content-security-policy: default-src 'none'")
    );

    let load = lab.stay("clients", 20)?;
    lab.wait_for_clients([10, 10])?;
    let drained = ask(&lab, "POST", "/v1/backends/mqtt/broker1/drain", &alice, "")?;
    ensure!(drained.status == 200, "{} {}", drained.head, drained.body);
    ensure!(lab.backend("broker1")?.admin.to_string() == "draining");
    let more = lab.stay("more", 10)?;
    lab.wait_for_clients([10, 20])?;

    // A token does what its role may, and no more.
    let token = account(&lab, &["token", "grafana", "--role", "viewer"])?;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let status = wait_until(SOON, "the token being known", || {
        let answer = ask(&lab, "GET", "/v1/status", &bearer, "").ok()?;
        (answer.status == 200).then_some(answer.body)
    })?;
    ensure!(status["services"][0]["backends"][0]["admin"] == "draining");
    ensure!(
        status["dashboard"]["sessions"] == 1,
        "{}",
        status["dashboard"]
    );
    let route = "/v1/backends/mqtt/broker1/enable";
    let refused = ask(&lab, "POST", route, &bearer, "")?;
    ensure!(refused.status == 403, "{}", refused.head);
    ensure!(ask(&lab, "POST", route, &alice, "")?.status == 200);

    let events = lab.ask(&["events", "--json"])?;
    let events = String::from_utf8_lossy(&events.stdout).into_owned();
    ensure!(
        events.contains("alice (operator) has logged in from 127.0.0.1"),
        "{events}"
    );

    account(&lab, &["remove", "alice"])?;
    wait_until(SOON, "Alice being out", || {
        let answer = ask(&lab, "GET", "/v1/status", &alice, "").ok()?;
        (answer.status == 401).then_some(())
    })?;
    drop((load, more));
    Ok(())
}
