//! The dashboard of a daemon that answers from a table, over a socket.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use dashboard::{
    Role,
    command::{self, Action, Form},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{
    control::{self, Change, EventsPage, Lasting, Order, Request, Status, example},
    core::balancer::Admin,
    journal::Journal,
};

const PASSWORD: &str = "open sesame";

/// A directory of its own, removed with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("tidegate-page-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A daemon with a dashboard, and two accounts made by the command.
struct House {
    _scratch: Scratch,
    address: SocketAddr,
    journal: Journal,
    orders: mpsc::UnboundedReceiver<Order>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl House {
    async fn open(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let accounts = scratch.0.join("accounts.toml");
        for (name, role) in [("alice", Role::Operator), ("victor", Role::Viewer)] {
            add(&scratch.0, &accounts, name, role);
        }
        let settings = Settings {
            listen: vec![([127, 0, 0, 1], 0).into()],
            accounts,
            tls: None,
            names: Vec::new(),
        };
        let door = Door::open(settings).await.unwrap();
        let address = door.addresses().next().unwrap();
        let journal = Journal::default();
        let (handle, requests) = control::channel(journal.clone());
        let (told, orders) = mpsc::unbounded_channel();
        tokio::spawn(answer(requests, told));
        let stop = CancellationToken::new();
        let counters = door.counters();
        let served = tokio::spawn(serve(door, handle, stop.clone()));
        let read = async {
            while counters.status().accounts < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(20), read).await.unwrap();
        Self {
            _scratch: scratch,
            address,
            journal,
            orders,
            stop,
            served,
        }
    }

    async fn ask(&self, method: &str, route: &str, more: &str, body: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let read = timeout(Duration::from_secs(20), socket.read_to_string(&mut text));
        read.await.unwrap().unwrap();
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        (status, text)
    }

    /// What a browser sends of somebody who has logged in.
    async fn log_in(&self, name: &str) -> String {
        let body = json!({"name": name, "password": PASSWORD}).to_string();
        let (status, text) = self.ask("POST", "/session", "", &body).await;
        assert_eq!(status, 200, "{text}");
        let cookie = text
            .lines()
            .find_map(|line| line.strip_prefix("set-cookie: "));
        let cookie = cookie.unwrap().split(';').next().unwrap();
        let csrf = body_of(&text)["csrf"].as_str().unwrap().to_owned();
        format!("Cookie: {cookie}\r\nX-CSRF-Token: {csrf}\r\n")
    }
}

fn add(scratch: &Path, accounts: &Path, name: &str, role: Role) {
    let password = scratch.join("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let action = Action::Add {
        name: name.to_owned(),
        role,
        password_file: Some(password),
        replace: false,
    };
    command::run(&action, accounts, Form::Text).unwrap();
}

async fn answer(mut requests: control::Requests, orders: mpsc::UnboundedSender<Order>) {
    while let Some(request) = requests.receiver.recv().await {
        match request {
            Request::Status(answer) => drop(answer.send(example::status())),
            Request::Change(order, answer) => {
                orders.send(order).unwrap();
                drop(answer.send(Ok(example::backend())));
            }
            Request::Reload(_)
            | Request::Trace(..)
            | Request::Router(..)
            | Request::Notify(..)
            | Request::Stop(..) => panic!("that is not to be had at the dashboard"),
        }
    }
}

fn body_of(text: &str) -> Value {
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_default()
}

#[tokio::test]
async fn operator_logs_in_and_drains_a_backend() {
    let mut house = House::open("drain").await;
    let (status, page) = house.ask("GET", "/", "", "").await;
    assert_eq!(status, 200);
    assert!(page.contains("<!doctype html>"), "{page}");
    let route = "/v1/backends/mqtt/broker1/drain?temporary=true";
    assert_eq!(house.ask("POST", route, "", "").await.0, 401);
    let victor = house.log_in("victor").await;
    assert_eq!(house.ask("POST", route, &victor, "").await.0, 403);
    let alice = house.log_in("alice").await;
    let (status, text) = house.ask("POST", route, &alice, "").await;
    assert_eq!((status, &body_of(&text)["name"]), (200, &json!("broker1")));
    let expected = Order {
        backend: "mqtt/broker1".to_owned(),
        change: Change::Admin(Admin::Draining),
        lasting: Lasting::Temporary,
    };
    assert_eq!(house.orders.recv().await.unwrap(), expected);
    let (_, text) = house.ask("GET", "/v1/events?kind=login", &victor, "").await;
    let page: EventsPage = serde_json::from_value(body_of(&text)).unwrap();
    let said: Vec<_> = page
        .events
        .iter()
        .map(|event| event.message.as_str())
        .collect();
    assert_eq!(
        said,
        [
            "victor (viewer) has logged in from 127.0.0.1",
            "alice (operator) has logged in from 127.0.0.1"
        ]
    );
    house.orders.try_recv().unwrap_err();
}

#[tokio::test]
async fn what_belongs_to_the_host_is_not_to_be_had() {
    let house = House::open("host").await;
    let alice = house.log_in("alice").await;
    for (method, route) in [
        ("POST", "/v1/stop"),
        ("POST", "/v1/stop?detach=true"),
        ("POST", "/v1/reload"),
        ("POST", "/v1/notify/test"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
    ] {
        assert_eq!(house.ask(method, route, &alice, "").await.0, 404, "{route}");
    }
}

#[tokio::test]
async fn page_is_fed_with_status_and_events_until_the_daemon_stops() {
    let house = House::open("live").await;
    let victor = house.log_in("victor").await;
    let mut socket = TcpStream::connect(house.address).await.unwrap();
    let request = format!("GET /v1/live HTTP/1.1\r\nHost: localhost\r\n{victor}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut told = false;
    while !text.contains("event: event\n") {
        let mut some = [0; 4_096];
        let read = timeout(Duration::from_secs(20), socket.read(&mut some));
        let count = read.await.unwrap().unwrap();
        assert_ne!(count, 0, "{text}");
        text += std::str::from_utf8(&some[..count]).unwrap();
        if text.contains("event: status\n") && !told {
            told = true;
            house.journal.tell(Event::BackendsHeard {});
        }
    }
    let data = |kind: &str| {
        let (_, rest) = text.split_once(&format!("event: {kind}\n")).unwrap();
        let line = rest.lines().find_map(|line| line.strip_prefix("data: "));
        serde_json::from_str::<Value>(line.unwrap()).unwrap()
    };
    let status: Status = serde_json::from_value(data("status")).unwrap();
    assert_eq!(status, example::status());
    assert_eq!(data("event")["kind"], "backends_heard");
    house.journal.close();
    house.stop.cancel();
    timeout(Duration::from_secs(5), house.served)
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
    drop(ended.unwrap());
}
