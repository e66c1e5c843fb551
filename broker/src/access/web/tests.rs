//! A server of HTTP for tests, which says what it is told to, and what becomes of questions to it.

use std::sync::atomic::AtomicU64;

use futures_util::{FutureExt, future::join_all};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    config::{Authenticator, Config},
    tls::tests::Authority,
};

/// What a server does with a question.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Json(String),
    Status(u16),
    /// These bytes, and the end of the connection.
    Raw(Vec<u8>),
    /// Nothing, for as long as the client waits.
    Silence,
}

/// What a server was asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct TestServer {
    pub(crate) url: String,
    reply: watch::Sender<Reply>,
    pub(crate) asked: mpsc::UnboundedReceiver<Asked>,
    connections: Arc<AtomicU64>,
    open: Arc<AtomicUsize>,
}

impl TestServer {
    pub(crate) async fn start(reply: Reply) -> Self {
        Self::start_with(reply, None).await
    }

    /// Over TLS, as the server of that name.
    pub(crate) async fn secure(reply: Reply, authority: &Authority, name: &str) -> Self {
        let acceptor = TlsAcceptor::from(authority.server(name).server());
        Self::start_with(reply, Some(acceptor)).await
    }

    async fn start_with(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match &tls {
            Some(_) => format!("https://localhost:{port}/login?x=1"),
            None => format!("http://127.0.0.1:{port}/login?x=1"),
        };
        let (reply, replies) = watch::channel(reply);
        let (told, asked) = mpsc::unbounded_channel();
        let (connections, open) = (Arc::new(AtomicU64::new(0)), Arc::default());
        let server = Self {
            url,
            reply,
            asked,
            connections: Arc::clone(&connections),
            open: Arc::clone(&open),
        };
        tokio::spawn(async move {
            while let Ok((stream, _address)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (replies, told) = (replies.clone(), told.clone());
                let (tls, open) = (tls.clone(), Arc::clone(&open));
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::Relaxed);
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &replies, &told).await;
                            }
                        }
                        None => serve(stream, &replies, &told).await,
                    }
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        });
        server
    }

    pub(crate) fn answer(&self, reply: Reply) {
        self.reply.send_replace(reply);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Answers the questions of one connection, one after the other.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    replies: &watch::Receiver<Reply>,
    told: &mpsc::UnboundedSender<Asked>,
) {
    while let Some(asked) = read_question(&mut stream).await {
        let reply = replies.borrow().clone();
        // The test need not look.
        let _ = told.send(asked);
        let answer = match reply {
            Reply::Json(body) => {
                let length = body.len();
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
            }
            Reply::Status(status) => {
                format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").into_bytes()
            }
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Silence => {
                // Until the client hangs up.
                let _ = stream.read_u8().await;
                return;
            }
        };
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

async fn read_question<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_it = name.eq_ignore_ascii_case("content-length");
        is_it.then(|| value.parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Asked { head, body })
}

/// A server as the broker asks it.
fn client(url: &str, more: &str) -> Server {
    let text = format!(
        "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [[access.authenticator]]\ntype = \"http\"\nurl = {url:?}\n{more}"
    );
    let config = Config::parse(&text).unwrap();
    let [Authenticator::Http(settings)] = &config.access().authenticators[..] else {
        panic!("one authenticator");
    };
    Server::new(settings).unwrap()
}

fn json(text: &str) -> Reply {
    Reply::Json(text.to_owned())
}

#[tokio::test]
async fn questions_go_over_connections_that_are_kept() {
    let mut server = TestServer::start(json("{}")).await;
    let client = client(&server.url, "connections = 2\n");
    for _ in 0..3 {
        assert_eq!(client.post(|| b"[1]".to_vec()).await.unwrap(), "{}");
    }
    assert_eq!(server.connections(), 1);
    let asked = server.asked.recv().await.unwrap();
    let first = asked.head.lines().next().unwrap();
    assert_eq!(first, "POST /login?x=1 HTTP/1.1");
    assert!(asked.head.contains("content-type: application/json\r\n"));
    assert_eq!(asked.body, "[1]");
    let all = join_all((0..20).map(|_| client.post(|| b"[2]".to_vec()))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(server.connections(), 2);
    assert_eq!(client.get().await.unwrap(), "{}");
}

#[tokio::test]
async fn connection_that_the_server_has_closed_is_made_anew() {
    let last = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec();
    let server = TestServer::start(Reply::Raw(last)).await;
    let client = client(&server.url, "");
    for _ in 0..5 {
        assert_eq!(client.post(|| b"[]".to_vec()).await.unwrap(), "{}");
    }
    assert_eq!(server.connections(), 5);
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_in_time() {
    let server = TestServer::start(Reply::Status(500)).await;
    let client = client(&server.url, "timeout = \"300ms\"\n");
    let ask = || client.post(|| b"[]".to_vec());
    assert!(matches!(ask().await, Err(AskError::Status(status)) if status == 500));
    server.answer(Reply::Status(204));
    assert!(matches!(ask().await, Err(AskError::Status(_))));
    server.answer(Reply::Raw(b"220 mail.example.org ESMTP\r\n".to_vec()));
    assert!(matches!(ask().await, Err(AskError::Http(_))));
    server.answer(Reply::Raw(Vec::new()));
    assert!(matches!(ask().await, Err(AskError::Http(_))));
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_vec();
    server.answer(Reply::Raw(short));
    assert!(matches!(ask().await, Err(AskError::Broken)));
    server.answer(Reply::Json(" ".repeat(LONGEST + 1)));
    assert!(matches!(ask().await, Err(AskError::TooLong)));
    server.answer(Reply::Silence);
    assert!(matches!(ask().await, Err(AskError::TimedOut(_))));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", free.local_addr().unwrap());
    drop(free);
    let refused = self::client(&nobody, "").post(Vec::new).await;
    assert!(matches!(
        refused,
        Err(AskError::Connect(ConnectError::Connect(_)))
    ));
}

#[tokio::test]
async fn who_would_wait_too_long_does_not_wait() {
    let server = TestServer::start(Reply::Silence).await;
    let settings = "connections = 2\nwaiting = 4\ntimeout = \"500ms\"\n";
    let client = client(&server.url, settings);
    let answers = join_all((0..7).map(|_| client.post(|| b"[]".to_vec()))).await;
    let full = answers
        .iter()
        .filter(|answer| matches!(answer, Err(AskError::Full)))
        .count();
    assert_eq!(full, 3);
    assert_eq!(server.connections(), 2);
    // Nobody holds a place any more.
    server.answer(json("{}"));
    assert_eq!(client.post(|| b"[]".to_vec()).await.unwrap(), "{}");
    let gone = async {
        while server.open.load(Ordering::Relaxed) > 1 {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

#[tokio::test]
async fn question_that_was_put_has_its_place_until_its_time_is_over() {
    let mut server = TestServer::start(Reply::Silence).await;
    let client = client(&server.url, "connections = 2\ntimeout = \"1s\"\n");
    // Whoever asks leaves as soon as the server has been asked.
    for _ in 0..2 {
        let gone = tokio::select! {
            _answer = client.post(|| b"[]".to_vec()) => false,
            asked = server.asked.recv() => asked.is_some(),
        };
        assert!(gone);
    }
    assert_eq!(client.0.places.available_permits(), 0);
    // Who leaves before has asked nothing.
    for _ in 0..10 {
        let asking = client.post(|| panic!("it is not its turn"));
        assert!(asking.now_or_never().is_none());
    }
    assert_eq!(client.0.waiting.load(Ordering::Relaxed), 2);
    server.answer(json("{}"));
    let free = async {
        while client.0.waiting.load(Ordering::Relaxed) > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    time::timeout(Duration::from_secs(20), free).await.unwrap();
    assert_eq!(client.post(|| b"[]".to_vec()).await.unwrap(), "{}");
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn server_has_to_prove_who_it_is() {
    let (own, other) = (Authority::new("web-own"), Authority::new("web-other"));
    let server = TestServer::secure(json("{}"), &own, "localhost").await;
    let trusting =
        |authority: &Authority| client(&server.url, &format!("ca_file = {:?}\n", authority.path()));
    assert_eq!(trusting(&own).post(Vec::new).await.unwrap(), "{}");
    let wrong = trusting(&other).post(Vec::new).await;
    assert!(matches!(
        wrong,
        Err(AskError::Connect(ConnectError::Handshake(_)))
    ));
    let elsewhere = TestServer::secure(json("{}"), &own, "elsewhere").await;
    let named = client(&elsewhere.url, &format!("ca_file = {:?}\n", own.path()));
    assert!(named.post(Vec::new).await.is_err());
}

#[tokio::test]
async fn token_goes_along_and_is_told_nowhere() {
    let dir = crate::testing::Dir::new();
    let token = crate::access::jwt::tests::private(&dir, "token", "open-sesame\n");
    let mut server = TestServer::start(json("{}")).await;
    let asking = client(&server.url, &format!("token_file = {token:?}\n"));
    asking.post(|| b"[]".to_vec()).await.unwrap();
    let asked = server.asked.recv().await.unwrap();
    let expected = "authorization: Bearer open-sesame\r\n";
    assert!(asked.head.contains(expected), "{}", asked.head);
    let request = asking.0.request(&Method::GET, &Bytes::new()).unwrap();
    assert!(!format!("{request:?}").contains("sesame"));
}
