//! What an absent key stands for.

use std::time::Duration;

use super::Limits;

pub(super) const STATE_DIR: &str = "/var/lib/tidegate";
pub(super) const PIN_DIR: &str = "/sys/fs/bpf/tidegate";
pub(super) const LOG_LEVEL: &str = "info";
pub(super) const API_SOCKET: &str = "/run/tidegate/tidegate.sock";
pub(super) const API_MODE: u32 = 0o660;
pub(super) const LIMITS: Limits = Limits {
    services: 32,
    backends: 1_024,
    flows: 1_000_000,
    half_open: 65_536,
    // Room that is not used takes no memory.
    access_entries: 200_000,
    fragments: 4_096,
    sources: 65_536,
};
/// Longer than the keep-alive of sane clients, and than Linux' own TCP keep-alive of two hours.
pub(super) const TRACKING_IDLE: Duration = Duration::from_secs(3 * 3_600);
/// SYNs a second: more than a fleet sends that comes back after a cut, less than hurts a broker.
pub(super) const CHALLENGE_ABOVE: u32 = 20_000;
/// A broken link that comes back within it costs no session.
pub(super) const TRACKING_SHORTEST: Duration = Duration::from_secs(60);
/// One and a half times the longest keep-alive that MQTT has, give or take an hour.
pub(super) const TRACKING_LONGEST: Duration = Duration::from_secs(28 * 3_600);
/// What the large MQTT clouds allow at most, give or take a minute; clients' own defaults are 60 s.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(20 * 60);
/// Times the keep-alive: room for a client that nobody thought of, not for whatever a packet says.
pub(super) const KEEP_ALIVE_MAX: u32 = 2;
/// Outside the range that Linux takes ports for its own connections from.
pub(super) const NAT_PORTS: (u16, u16) = (1_024, 32_767);
/// Where Linux expects GUE (IANA: gue).
pub(super) const TUNNEL_PORT: u16 = 6_080;
pub(super) const WEIGHT: u16 = 1;
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Or the interval, if that is shorter.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const CHECK_FALL: u32 = 3;
pub(super) const CHECK_RISE: u32 = 2;
pub(super) const CHECK_JITTER: f64 = 0.1;
pub(super) const HTTP_PATH: &str = "/";
pub(super) const HTTP_EXPECT: u16 = 200;
/// A gateway that is gone is noticed in little more time than an Active that is.
pub(super) const GATEWAY_INTERVAL: Duration = Duration::from_secs(1);
pub(super) const GATEWAY_TIMEOUT: Duration = Duration::from_secs(1);
pub(super) const SCRIPT_INTERVAL: Duration = Duration::from_secs(5);
pub(super) const SCRIPT_TIMEOUT: Duration = Duration::from_secs(5);
pub(super) const TRACK_FALL: u32 = 3;
pub(super) const TRACK_RISE: u32 = 2;
/// More than a person reads; what is beyond is told in one sentence.
pub(super) const NOTIFY_PER_MINUTE: u32 = 30;
pub(super) const NOTIFY_AT_ONCE: u32 = 4;
/// What the stack that Tidegate replaces gave its mail server.
pub(super) const NOTIFY_TIMEOUT: Duration = Duration::from_secs(30);
/// With pauses that double: half a minute of trouble loses nothing.
pub(super) const NOTIFY_RETRIES: u32 = 5;
/// RFC 5321, 6409, 8314.
pub(super) const SMTP_PORT: u16 = 25;
pub(super) const SUBMISSION_PORT: u16 = 587;
pub(super) const SUBMISSIONS_PORT: u16 = 465;
pub(super) const VRRP_PRIORITY: u8 = 100;
pub(super) const ADVERT_INTERVAL: Duration = Duration::from_secs(1);
/// One announcement may be lost, and hosts that were busy hear the later ones.
pub(super) const ANNOUNCE_REPEATS: u8 = 5;
pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
