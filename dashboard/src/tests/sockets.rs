//! The same over sockets: TLS, files that change, and those who are slow or too many.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{Fake, PAGE, Scratch, accounts, certificate, own};
use crate::{
    Counters, Daemon, Door, Occurrence, Settings, TlsFiles,
    door::{HEAD_TIMEOUT, MOST},
};

/// A dashboard with everything.
struct House {
    scratch: Scratch,
    address: SocketAddr,
    daemon: Arc<Fake>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl House {
    async fn open(tls: bool) -> Self {
        let scratch = Scratch::new();
        let settings = Settings {
            listen: vec![([127, 0, 0, 1], 0).into()],
            accounts: scratch.file("accounts.toml"),
            tls: tls.then(|| certificate(&scratch, "server")),
            names: Vec::new(),
        };
        write(&scratch, &accounts().render());
        let door = Door::open(settings).await.unwrap();
        let address = door.addresses().next().unwrap();
        let (daemon, stop) = (Fake::new(), CancellationToken::new());
        let counters = door.counters();
        let asked = Arc::clone(&daemon) as Arc<dyn Daemon>;
        let served = tokio::spawn(door.serve(asked, PAGE, own(), stop.clone()));
        let house = Self {
            scratch,
            address,
            daemon,
            counters,
            stop,
            served,
        };
        house
            .until(|house| house.counters.status().accounts == 2)
            .await;
        house
    }

    /// Waits for something that comes about by itself.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(Instant::now() < deadline, "it does not come about");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Asks on a connection of its own.
    async fn ask(&self, request: &str) -> String {
        let mut socket = self.connect().await;
        converse(&mut socket, request).await
    }
}

/// Puts a file of accounts in place as the command does.
fn write(scratch: &Scratch, text: &str) {
    let (new, path) = (scratch.file("new"), scratch.file("accounts.toml"));
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

async fn converse(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let read = timeout(Duration::from_secs(20), stream.read_to_end(&mut text));
    // TLS that was ended by nobody's word is as good here.
    let _ = read.await.expect("an answer");
    String::from_utf8_lossy(&text).into_owned()
}

fn get(route: &str, more: &str) -> String {
    format!("GET {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n")
}

fn trusting(files: &TlsFiles) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in console::pem::certificates(&files.certificate).unwrap() {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn page_comes_through_a_socket_until_the_stop() {
    let house = House::open(false).await;
    let answer = house.ask(&get("/", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("<!doctype html>"), "{answer}");
    let answer = house
        .ask(&get(
            "/v1/status",
            "Authorization: Bearer grafana's token\r\n",
        ))
        .await;
    assert!(answer.ends_with("grafana viewer"), "{answer}");
    // Who watches is let go.
    let mut watch = house.connect().await;
    let live = get("/v1/live", "Authorization: Bearer grafana's token\r\n");
    watch.write_all(live.as_bytes()).await.unwrap();
    house
        .until(|house| house.counters.status().live_streams == 1)
        .await;
    house.stop.cancel();
    timeout(Duration::from_secs(5), house.served)
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(5), watch.read_to_end(&mut rest))
        .await
        .unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains("event: status\ndata: {\"asked\":1}\n"),
        "{rest}"
    );
    assert!(TcpStream::connect(house.address).await.is_err());
}

#[tokio::test]
async fn page_comes_over_tls_and_over_nothing_else() {
    let house = House::open(true).await;
    let files = TlsFiles {
        certificate: house.scratch.file("server.pem"),
        key: house.scratch.file("server.key"),
    };
    let name = ServerName::try_from("localhost").unwrap();
    let connect = async || {
        let socket = house.connect().await;
        trusting(&files).connect(name.clone(), socket).await
    };
    let mut stream = connect().await.unwrap();
    let body = r#"{"name":"alice","password":"alice's password"}"#;
    let length = body.len();
    let login = format!(
        "POST /session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = converse(&mut stream, &login).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("__Host-tidegate="), "{answer}");
    let plain = house.ask(&get("/", "")).await;
    assert!(!plain.contains("HTTP/1.1 200"), "{plain}");
    // Another certificate is shown as soon as it is there.
    let other = certificate(&house.scratch, "other");
    fs::copy(&other.key, &files.key).unwrap();
    fs::copy(&other.certificate, &files.certificate).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while connect().await.is_err() {
        assert!(Instant::now() < deadline, "the old certificate is shown");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn accounts_follow_their_file_and_a_bad_one_changes_nothing() {
    let house = House::open(false).await;
    let ask = get("/v1/status", "Authorization: Bearer robot's token\r\n");
    assert!(house.ask(&ask).await.ends_with("robot operator"));
    write(&house.scratch, "[[account]]\nname = 7\n");
    let is_refused = |house: &House| house.counters.status().accounts_error.is_some();
    house.until(is_refused).await;
    let told = house.daemon.told();
    assert!(
        matches!(&told[..], [Occurrence::AccountsRefused { error }] if error.contains("line 2")),
        "{told:?}"
    );
    assert!(house.ask(&ask).await.ends_with("robot operator"));
    let mut fewer = accounts();
    fewer.tokens.remove("robot");
    write(&house.scratch, &fewer.render());
    house.until(|house| !is_refused(house)).await;
    let taken = Occurrence::AccountsTaken {
        accounts: 2,
        tokens: 1,
    };
    assert_eq!(house.daemon.told(), [taken]);
    assert!(house.ask(&ask).await.starts_with("HTTP/1.1 401 "));
    fs::remove_file(house.scratch.file("accounts.toml")).unwrap();
    house
        .until(|house| house.counters.status().accounts == 0)
        .await;
}

#[tokio::test]
async fn connections_are_bounded_and_who_says_nothing_is_let_go() {
    let house = House::open(false).await;
    let mut silent = Vec::new();
    for _ in 0..MOST {
        silent.push(house.connect().await);
    }
    house
        .until(|house| house.counters.status().connections == MOST as u64)
        .await;
    assert_eq!(house.ask_if_there().await, "");
    assert_eq!(house.counters.status().connections_refused, 1);
    silent.truncate(MOST - 1);
    house
        .until(|house| house.counters.status().connections < MOST as u64)
        .await;
    assert!(house.ask_if_there().await.starts_with("HTTP/1.1 200 "));
}

impl House {
    /// Asks on a connection that may be closed at once.
    async fn ask_if_there(&self) -> String {
        let mut socket = self.connect().await;
        let _ = socket.write_all(get("/", "").as_bytes()).await;
        let mut text = Vec::new();
        let _ = timeout(Duration::from_secs(20), socket.read_to_end(&mut text))
            .await
            .unwrap();
        String::from_utf8(text).unwrap()
    }
}

#[tokio::test]
async fn heads_that_are_too_long_are_refused() {
    let house = House::open(false).await;
    let long = format!("X: {}\r\n", "x".repeat(64 * 1024));
    let answer = house.ask_if_there_with(&get("/", &long)).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
    let answer = house.ask("\x16\x03\x01 no HTTP at all\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

impl House {
    async fn ask_if_there_with(&self, request: &str) -> String {
        let mut socket = self.connect().await;
        let _ = socket.write_all(request.as_bytes()).await;
        let mut text = Vec::new();
        let _ = timeout(Duration::from_secs(20), socket.read_to_end(&mut text))
            .await
            .unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[tokio::test]
async fn address_that_is_taken_is_named() {
    let house = House::open(false).await;
    let settings = Settings {
        listen: vec![house.address],
        accounts: house.scratch.file("accounts.toml"),
        tls: None,
        names: Vec::new(),
    };
    let error = Door::open(settings).await.unwrap_err().to_string();
    assert!(error.contains(&house.address.to_string()), "{error}");
    assert!(HEAD_TIMEOUT < Duration::from_secs(60));
}
