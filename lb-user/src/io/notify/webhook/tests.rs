use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{StatusCode, Webhook, WebhookError, post};
use crate::{
    config::{self, model::Means},
    io::notify::authority::Authority,
};

const LONG: Duration = Duration::from_secs(60);

fn hook(keys: &str) -> Webhook {
    let base = include_str!("../../../../configs/tidegate-dsr.toml");
    let text = format!("{base}\n[[notify]]\nname = \"chat\"\ntype = \"webhook\"\n{keys}");
    let config = config::parse(&text, "test.toml").unwrap();
    match config.notifies()[0].means() {
        Means::Webhook(hook) => hook.clone(),
        other @ (Means::Exec(_) | Means::Email(_)) => panic!("{other:?}"),
    }
}

/// Answers one request, and returns it.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
    let mut asked = String::new();
    while !asked.ends_with("{}") {
        let mut buffer = [0; 1_024];
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "{asked}");
        asked += std::str::from_utf8(&buffer[..count]).unwrap();
    }
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    asked
}

#[tokio::test]
async fn a_post_goes_where_its_file_says_and_the_status_decides() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let file = std::env::temp_dir().join(format!("tidegate-url-{}", std::process::id()));
    let url = format!("http://{}/hook?a=b\n", listener.local_addr().unwrap());
    fs::write(&file, url).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let hook = hook(&format!("url_file = \"{}\"\n", file.display()));
    let posted = async |status: &'static str| {
        let serve = async { answer(listener.accept().await.unwrap().0, status).await };
        let (posted, asked) = tokio::join!(post(&hook, "{}".to_owned(), LONG), serve);
        assert!(asked.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{asked}");
        posted
    };
    posted("204 No Content").await.unwrap();
    let failed = posted("503 Service Unavailable").await.unwrap_err();
    let expected = StatusCode::SERVICE_UNAVAILABLE;
    assert!(matches!(failed, WebhookError::Status(status) if status == expected));
    assert!(failed.is_transient());
    fs::write(&file, "http://user:password@127.0.0.1/").unwrap();
    let failed = post(&hook, String::new(), LONG).await.unwrap_err();
    assert!(matches!(failed, WebhookError::NoUrl(_)), "{failed}");
    assert!(!failed.to_string().contains("password@"), "{failed}");
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_token_is_not_sent_to_a_plain_url_of_a_file() {
    let directory = std::env::temp_dir().join(format!("tidegate-plain-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file.display().to_string()
    };
    let (url, token) = (
        write("url", "http://192.0.2.7/hook"),
        write("token", "xyzzy"),
    );
    let keys = format!("url_file = \"{url}\"\ntoken_file = \"{token}\"");
    let asked = |hook: &Webhook| super::request(hook, &super::read(url.as_ref())?, String::new());
    let refused = asked(&hook(&keys)).unwrap_err();
    assert!(matches!(refused, WebhookError::PlainToken), "{refused}");
    assert!(!refused.is_transient() && !refused.to_string().contains("xyzzy"));
    let allowed = asked(&hook(&format!("{keys}\nallow_plain_token = true"))).unwrap();
    assert_eq!(allowed.headers()["authorization"], "Bearer xyzzy");
    fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = hook(&format!(
        "url = \"http://{}/\"",
        listener.local_addr().unwrap()
    ));
    let posted = post(&hook, String::new(), Duration::from_millis(100)).await;
    let failed = posted.unwrap_err();
    assert!(matches!(failed, WebhookError::TimedOut(_)), "{failed}");
}

/// Posts to a server of the address 127.0.0.1 that has this certificate, and returns what it was asked.
async fn post_to(server: TlsAcceptor, keys: &str) -> (Result<(), WebhookError>, Option<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/hook", listener.local_addr().unwrap());
    let hook = hook(&format!("url = \"{url}\"\n{keys}"));
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = server.accept(stream).await.ok()?;
        Some(answer(stream, "204 No Content").await)
    };
    tokio::join!(post(&hook, "{}".to_owned(), LONG), serve)
}

#[tokio::test]
async fn a_server_that_the_file_of_authorities_vouches_for_is_posted_to() {
    let authority = Authority::new("hook-right");
    let (posted, asked) = post_to(authority.server("127.0.0.1"), &authority.key()).await;
    posted.unwrap();
    assert!(asked.unwrap().starts_with("POST /hook HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_server_with_the_certificate_of_another_gets_nothing() {
    let authority = Authority::new("hook-name");
    let (posted, asked) = post_to(authority.server("hook.example.org"), &authority.key()).await;
    assert_eq!(asked, None);
    let failed = posted.unwrap_err();
    let told = failed.to_string();
    assert!(told.starts_with("no TLS with the server: "), "{told}");
    assert!(told.contains("not valid for name"), "{told}");
    assert!(!failed.is_transient());
}

#[tokio::test]
async fn a_server_that_nobody_known_vouches_for_gets_nothing() {
    let (known, other) = (Authority::new("hook-known"), Authority::new("hook-other"));
    for keys in [known.key(), String::new()] {
        let (posted, asked) = post_to(other.server("127.0.0.1"), &keys).await;
        assert_eq!(asked, None);
        let told = posted.unwrap_err().to_string();
        // Where the host trusts nobody either, that is said.
        let is_clear = told.contains("UnknownIssuer") || told.contains("certificate authorities");
        assert!(is_clear, "{told}");
    }
}
