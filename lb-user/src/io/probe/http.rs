//! The HTTP probe: one `GET`, of whose response only the status line is read.

use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt;

use super::{Exchange, ProbeFailure, Stage};

/// What is asked for, and the status that means health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    pub path: String,
    /// The `Host` header; by default the backend's address.
    pub host: Option<String>,
    pub expect: u16,
    /// The status that means that no new clients are taken.
    pub drain_on: Option<u16>,
}

impl Http {
    pub(super) async fn exchange(&self, exchange: &mut Exchange) -> Result<(), ProbeFailure> {
        let stage = Stage::HttpResponse;
        let target = exchange
            .stream
            .peer_addr()
            .map_err(|source| ProbeFailure::Io { stage, source })?;
        exchange
            .send(stage, self.request(target).as_bytes())
            .await?;
        let line = exchange
            .step(stage, async |stream| {
                // "HTTP/1.1 200": the reason phrase and all that follows does not matter.
                let mut line = [0; 12];
                stream.read_exact(&mut line).await?;
                Ok(line)
            })
            .await?;
        let status = status(&line).ok_or(ProbeFailure::Unexpected { stage })?;
        if status == self.expect {
            Ok(())
        } else if self.drain_on == Some(status) {
            Err(ProbeFailure::HttpDrain { status })
        } else {
            Err(ProbeFailure::HttpStatus {
                status,
                expected: self.expect,
            })
        }
    }

    fn request(&self, target: SocketAddr) -> String {
        let host = self.host.clone().unwrap_or_else(|| authority(target));
        format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate/{}\r\nAccept: */*\r\n\
             Connection: close\r\n\r\n",
            self.path,
            env!("CARGO_PKG_VERSION"),
        )
    }
}

/// The address as RFC 9110, 4.2.1 wants it in `Host`: an IPv6 address in brackets.
fn authority(target: SocketAddr) -> String {
    match target.ip() {
        IpAddr::V4(_) => target.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]:{}", target.port()),
    }
}

fn status(line: &[u8; 12]) -> Option<u16> {
    let line = std::str::from_utf8(line).ok()?;
    let (version, status) = line.split_once(' ')?;
    version
        .starts_with("HTTP/1.")
        .then(|| status.parse().ok())
        .flatten()
}
