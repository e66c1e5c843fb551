//! The HTTP request that asks for a WebSocket, and its answer (RFC 6455, 4.2).

use std::{io, str};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use httparse::{EMPTY_HEADER, Request, Status};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::Door;

/// Browsers send cookies too.
const LONGEST_HEAD: usize = 8 * 1024;

const MOST_HEADERS: usize = 64;

const FIRST_READ: usize = 1024;

/// What the key is hashed with, so that only who means it answers so (1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What MQTT is called, in the order that a choice is made in; the second is MQTT 3.1's.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why there is no WebSocket.
#[derive(Debug, Error)]
pub(crate) enum UpgradeError {
    #[error("closed within its HTTP request")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no HTTP request")]
    NotHttp(#[from] httparse::Error),
    #[error("HTTP request longer than {LONGEST_HEAD} bytes")]
    TooLong,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// What is wrong with a request; the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Refusal {
    #[error("a WebSocket is asked for with GET and HTTP/1.1")]
    Method,
    #[error("there is nothing at this path")]
    Path,
    #[error("this port speaks MQTT over WebSocket: ask for an upgrade to websocket")]
    NoUpgrade,
    #[error("this port speaks version 13 of WebSocket")]
    Version,
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    #[error("web pages from there may not connect to this port")]
    Origin,
    #[error("this port speaks MQTT: offer the subprotocol mqtt, or mqttv3.1")]
    Subprotocol,
}

impl Refusal {
    fn answer(self) -> String {
        let status = match self {
            Self::Method => "405 Method Not Allowed\r\nAllow: GET",
            Self::Origin => "403 Forbidden",
            Self::Path => "404 Not Found",
            Self::NoUpgrade => "426 Upgrade Required\r\nUpgrade: websocket",
            Self::Version => "426 Upgrade Required\r\nSec-WebSocket-Version: 13",
            Self::Key | Self::Subprotocol => "400 Bad Request",
        };
        let text = format!("{self}\n");
        let length = text.len();
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        )
    }
}

/// What a request that is good is answered with.
#[derive(Debug, PartialEq, Eq)]
struct Accepted {
    key: String,
    subprotocol: &'static str,
}

impl Accepted {
    fn answer(&self) -> String {
        let Self { key, subprotocol } = self;
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        )
    }
}

/// Reads the request and answers it; the result is what was read behind it.
///
/// # Errors
/// When there will be no WebSocket; the client has been told why, if it spoke HTTP.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    door: &Door,
) -> Result<Bytes, UpgradeError> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ);
    let (length, outcome) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(UpgradeError::Closed);
        }
        if let Some(parsed) = parse(&bytes, door)? {
            break parsed;
        }
        if bytes.len() >= LONGEST_HEAD {
            return Err(UpgradeError::TooLong);
        }
        bytes.reserve(FIRST_READ);
    };
    match outcome {
        Ok(accepted) => {
            stream.write_all(accepted.answer().as_bytes()).await?;
            stream.flush().await?;
            // A copy, so that what usually is nothing does not hold the buffer.
            let rest = bytes.get(length..).unwrap_or_default();
            Ok(Bytes::copy_from_slice(rest))
        }
        Err(refusal) => {
            stream.write_all(refusal.answer().as_bytes()).await?;
            stream.shutdown().await?;
            Err(refusal.into())
        }
    }
}

type Parsed = (usize, Result<Accepted, Refusal>);

/// Finds the request at the start of `bytes`; `None` while its end has not arrived.
fn parse(bytes: &[u8], door: &Door) -> Result<Option<Parsed>, httparse::Error> {
    let mut headers = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut headers);
    Ok(match request.parse(bytes)? {
        Status::Complete(length) => Some((length, judge(&request, door))),
        Status::Partial => None,
    })
}

fn judge(request: &Request<'_, '_>, door: &Door) -> Result<Accepted, Refusal> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(Refusal::Method);
    }
    let target = request.path.unwrap_or_default();
    // What follows a question mark is nobody's business here.
    if target.split('?').next() != Some(&door.path) {
        return Err(Refusal::Path);
    }
    if let Some(origins) = &door.origins {
        let is_welcome = |page: &str| {
            origins
                .iter()
                .any(|origin| origin.eq_ignore_ascii_case(page))
        };
        let mut pages = request.headers.iter();
        let mut pages = pages
            .by_ref()
            .filter(|header| header.name.eq_ignore_ascii_case("Origin"));
        if !pages.all(|page| str::from_utf8(page.value).is_ok_and(|page| is_welcome(page.trim()))) {
            return Err(Refusal::Origin);
        }
    }
    let has_token =
        |name, token: &str| tokens(request, name).any(|found| found.eq_ignore_ascii_case(token));
    if !has_token("Upgrade", "websocket") || !has_token("Connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    if !has_token("Sec-WebSocket-Version", "13") {
        return Err(Refusal::Version);
    }
    let key = tokens(request, "Sec-WebSocket-Key").next();
    let key = key.ok_or(Refusal::Key)?;
    if STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(Refusal::Key);
    }
    let is_offered =
        |name: &&str| tokens(request, "Sec-WebSocket-Protocol").any(|offer| offer == *name);
    let subprotocol = SUBPROTOCOLS.into_iter().find(is_offered);
    Ok(Accepted {
        key: accept_key(key),
        subprotocol: subprotocol.ok_or(Refusal::Subprotocol)?,
    })
}

/// The comma-separated values of all headers of a name.
fn tokens<'a>(request: &'a Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let headers = request.headers.iter();
    headers
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn accept_key(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: WebSocket\r\n\
        Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

    fn door() -> Door {
        Door {
            path: "/mqtt".into(),
            origins: None,
        }
    }

    fn outcome(request: &str) -> Result<Accepted, Refusal> {
        parse(request.as_bytes(), &door()).unwrap().unwrap().1
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        let guarded = Door {
            origins: Some(vec!["https://example.org".into(), "http://a:81".into()]),
            ..door()
        };
        let from = |header: &str| {
            let request = REQUEST.replacen("Host", &format!("{header}Host"), 1);
            let judged = |door: &Door| parse(request.as_bytes(), door).unwrap().unwrap().1;
            assert!(judged(&door()).is_ok());
            judged(&guarded).err()
        };
        for welcome in [
            "",
            "Origin: https://Example.org\r\n",
            "origin: http://a:81\r\n",
        ] {
            assert_eq!(from(welcome), None, "{welcome}");
        }
        for refused in [
            "Origin: null\r\n",
            "Origin: http://example.org\r\n",
            "Origin: https://example.org.evil\r\n",
            "Origin: http://a\r\n",
            "Origin: http://a:81\r\nOrigin: http://evil\r\n",
            "Origin: ä\r\n",
        ] {
            assert_eq!(from(refused), Some(Refusal::Origin), "{refused}");
        }
    }

    #[test]
    fn request_is_answered_as_in_the_rfc() {
        let accepted = outcome(REQUEST).unwrap();
        assert_eq!(accepted.key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.subprotocol, "mqtt");
        let old = REQUEST.replace("chat, mqtt", "mqttv3.1");
        assert_eq!(outcome(&old).unwrap().subprotocol, "mqttv3.1");
        let query = REQUEST.replace("/mqtt", "/mqtt?token=x");
        assert!(outcome(&query).is_ok());
        for end in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST.as_bytes()[..end], &door()).unwrap(), None);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, other, refusal) in [
            ("GET", "POST", Refusal::Method),
            ("HTTP/1.1", "HTTP/1.0", Refusal::Method),
            ("/mqtt", "/", Refusal::Path),
            ("/mqtt", "/mqtt/", Refusal::Path),
            ("Upgrade: WebSocket", "Upgrade: h2c", Refusal::NoUpgrade),
            (
                "Connection: keep-alive, Upgrade",
                "Connection: close",
                Refusal::NoUpgrade,
            ),
            ("Version: 13", "Version: 8", Refusal::Version),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", Refusal::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "no base64", Refusal::Key),
            ("chat, mqtt", "chat", Refusal::Subprotocol),
            ("Sec-WebSocket-Protocol", "X-Protocol", Refusal::Subprotocol),
        ] {
            assert_eq!(
                outcome(&REQUEST.replacen(text, other, 1)),
                Err(refusal),
                "{other}"
            );
            let answer = refusal.answer();
            assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(&refusal.to_string()));
        }
    }

    #[tokio::test]
    async fn endless_request_is_not_held() {
        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        let head = format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(LONGEST_HEAD));
        client.write_all(head.as_bytes()).await.unwrap();
        let result = upgrade(&mut server, &door()).await;
        assert!(matches!(result, Err(UpgradeError::TooLong)), "{result:?}");
        client.write_all(b"\x10\x0e\0\x04MQTT").await.unwrap();
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(b"\x10\x0e\0\x04MQTT").await.unwrap();
        let result = upgrade(&mut server, &door()).await;
        assert!(
            matches!(result, Err(UpgradeError::NotHttp(_))),
            "{result:?}"
        );
    }
}
