use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::{EmailError, send};
use crate::{
    config::{
        self,
        model::{Email, Means},
    },
    io::notify::authority::Authority,
};

const LONG: Duration = Duration::from_secs(60);

const PASSWORD: &str = "open sesame";

/// `\0tidegate\0open sesame` (RFC 4616), as it travels.
const LOGIN: &str = "AUTH PLAIN AHRpZGVnYXRlAG9wZW4gc2VzYW1l";

/// A server that says what it is told to, and remembers what it heard.
struct Server {
    listener: TcpListener,
    /// What it has, if it has TLS.
    tls: Option<TlsAcceptor>,
    to_login: &'static str,
    /// Before TLS, and after.
    plain: Vec<String>,
    secret: Vec<String>,
}

impl Server {
    async fn new(tls: Option<TlsAcceptor>) -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            tls,
            to_login: "235 2.7.0 welcome",
            plain: Vec::new(),
            secret: Vec::new(),
        }
    }

    /// Serves one client to its end.
    async fn serve(&mut self) {
        let (stream, _) = self.listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 test ESMTP\r\n").await.unwrap();
        let hello = match self.tls {
            Some(_) => "250-test\r\n250 STARTTLS",
            None => "250-test\r\n250 AUTH PLAIN LOGIN",
        };
        if !talk(&mut stream, hello, self.to_login, &mut self.plain).await {
            return;
        }
        self.go_on_in_secret(stream.into_inner()).await;
    }

    async fn go_on_in_secret(&mut self, stream: TcpStream) {
        let tls = self.tls.as_ref().unwrap();
        // A client that does not trust it goes.
        if let Ok(stream) = tls.accept(stream).await {
            let mut stream = BufReader::new(stream);
            let hello = "250-test\r\n250 AUTH PLAIN LOGIN";
            talk(&mut stream, hello, self.to_login, &mut self.secret).await;
        }
    }

    fn heard(&self) -> String {
        [&self.plain[..], &self.secret[..]].concat().join("\n")
    }
}

/// Talks until the client goes, or is to begin with TLS: whether that is so.
async fn talk(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    hello: &str,
    to_login: &str,
    heard: &mut Vec<String>,
) -> bool {
    let mut is_data = false;
    let mut line = String::new();
    while matches!(stream.read_line(&mut line).await, Ok(1..)) {
        let said = line.trim_end().to_owned();
        let verb = said.split([' ', ':']).next().unwrap_or_default();
        let answer = match verb {
            "." => "250 taken",
            _ if is_data => "",
            "EHLO" => hello,
            "STARTTLS" => "220 go ahead",
            "AUTH" => to_login,
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        is_data = (is_data || verb == "DATA") && verb != ".";
        let is_start = !is_data && verb == "STARTTLS";
        heard.push(said);
        line.clear();
        if !answer.is_empty() {
            let answer = format!("{answer}\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return false;
            }
            drop(stream.flush().await);
        }
        if is_start {
            return true;
        }
    }
    false
}

/// A file with the password, which goes with the test.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn new(test: &str) -> Self {
        let name = format!("tidegate-{test}-{}.password", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, format!("{PASSWORD}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn mail(server: &Server, password: &PasswordFile, keys: &str) -> Email {
    let base = include_str!("../../../../configs/tidegate-dsr.toml");
    let (port, file) = (
        server.listener.local_addr().unwrap().port(),
        password.0.display(),
    );
    let text = format!(
        "{base}\n[[notify]]\nname = \"mail\"\ntype = \"email\"\nserver = \"127.0.0.1\"\n\
         port = {port}\nfrom = \"tidegate@example.org\"\nto = [\"ops@example.org\"]\n\
         username = \"tidegate\"\npassword_file = \"{file}\"\n{keys}"
    );
    let config = config::parse(&text, "test.toml").unwrap();
    match config.notifies()[0].means() {
        Means::Email(mail) => mail.clone(),
        other @ (Means::Exec(_) | Means::Webhook(_)) => panic!("{other:?}"),
    }
}

async fn sent(server: &mut Server, mail: &Email) -> Result<(), EmailError> {
    let send = send(mail, "It is so", "All of it.".to_owned(), LONG);
    let (sent, ()) = tokio::join!(send, server.serve());
    sent
}

#[tokio::test]
async fn a_mail_is_sent_after_the_login_and_that_after_tls() {
    let (authority, password) = (
        Authority::new("mail-right"),
        PasswordFile::new("mail-right"),
    );
    let mut server = Server::new(Some(authority.server("127.0.0.1"))).await;
    let mail = mail(&server, &password, &authority.key());
    sent(&mut server, &mail).await.unwrap();
    assert_eq!(server.plain.len(), 2, "{:?}", server.plain);
    assert!(server.plain[0].starts_with("EHLO ") && server.plain[1] == "STARTTLS");
    let heard = server.secret.join("\n");
    for part in [
        LOGIN,
        "MAIL FROM:<tidegate@example.org>",
        "RCPT TO:<ops@example.org>",
        "Subject: It is so",
        "All of it.",
    ] {
        assert!(heard.contains(part), "{part}: {heard}");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_as_such_and_not_tried_again() {
    let (authority, password) = (
        Authority::new("mail-login"),
        PasswordFile::new("mail-login"),
    );
    let mut server = Server::new(Some(authority.server("127.0.0.1"))).await;
    server.to_login = "535-5.7.8 no\r\n535 5.7.8 such \x1b[2Juser";
    let mail = mail(&server, &password, &authority.key());
    let failed = sent(&mut server, &mail).await.unwrap_err();
    let told = failed.to_string();
    assert!(
        told.starts_with("the server has refused the login: "),
        "{told}"
    );
    assert!(told.contains("535") && told.contains("5.7.8"), "{told}");
    assert!(!told.contains(char::is_control), "{told}");
    assert!(!told.contains(PASSWORD), "{told}");
    assert!(!failed.is_transient());
    assert!(!server.heard().contains("MAIL FROM"), "{}", server.heard());
}

#[tokio::test]
async fn no_password_reaches_a_server_without_tls() {
    let password = PasswordFile::new("mail-plain");
    let mut server = Server::new(None).await;
    let mail = mail(&server, &password, "");
    let told = sent(&mut server, &mail).await.unwrap_err().to_string();
    assert!(told.to_ascii_uppercase().contains("STARTTLS"), "{told}");
    assert!(!server.heard().contains("AUTH"), "{}", server.heard());
}

#[tokio::test]
async fn no_password_reaches_a_server_that_nobody_vouches_for() {
    let password = PasswordFile::new("mail-other");
    let (known, other) = (Authority::new("mail-known"), Authority::new("mail-other"));
    let cases = [
        (other.server("127.0.0.1"), "UnknownIssuer"),
        (known.server("mail.example.org"), "not valid for name"),
    ];
    for (tls, reason) in cases {
        let mut server = Server::new(Some(tls)).await;
        let mail = mail(&server, &password, &known.key());
        let told = sent(&mut server, &mail).await.unwrap_err().to_string();
        assert!(told.contains(reason), "{told}");
        assert!(!server.heard().contains("AUTH"), "{}", server.heard());
    }
}
