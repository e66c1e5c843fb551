//! Two balancers that tell each other of their flows.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lb_user::control::{ServiceStatus, SyncStatus};
use xtask::lab::wait_until;

use crate::balancer::{SOON, config};
use crate::pair::{Pair, SEED, router};

/// What NAT sends from: it goes where the VIP goes.
const NAT_SOURCE: &str = "172.16.40.25";

/// A status tells of a lag that was measured this long ago at most.
const TOLD: Duration = Duration::from_secs(2);

/// How clients are spread, and their packets forwarded.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub balance: &'static str,
    pub forward: &'static str,
}

impl Way {
    /// Whether each session is a record that the other node has to have.
    #[must_use]
    pub fn is_recorded(self) -> bool {
        self.forward == "nat" || !matches!(self.balance, "maglev" | "source")
    }
}

/// The configuration of a node with a peer.
#[must_use]
pub fn node(at: usize, way: Way, backends: &[(&str, u8)]) -> String {
    let (ours, peers, priority) = [(22, 23, 200), (23, 22, 100)][at];
    let plain = config(way.balance, way.forward, backends);
    let plain = plain.replace("[[vip]]\naddress = \"fd00:40::24/128\"\n", "");
    // No backend is to fall because the machine is busy: that would end sessions too.
    let plain = plain
        .replace("\"200ms\"", "\"1s\"")
        .replace("fall = 2", "fall = 10");
    let sync = format!(
        "[sync]\nlisten = \"172.16.40.{ours}:9464\"\npeer = \"172.16.40.{peers}:9464\"\n\
         key_file = \"$DIR/sync.key\"\n"
    );
    let text = format!("seed = \"{SEED}\"\n{plain}\n{sync}{}", router(priority, ""));
    if way.forward != "nat" {
        return text;
    }
    let vips = format!("vips = [\"172.16.40.24\", \"{NAT_SOURCE}\"]");
    let text = text.replace("vips = [\"172.16.40.24\"]", &vips);
    format!("{text}\n[[vip]]\naddress = \"{NAT_SOURCE}/32\"\n[nat]\nsources = [\"{NAT_SOURCE}\"]\n")
}

impl Pair {
    /// Two nodes with the same key, of which the first has the role.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn synced(way: Way, backends: &[(&str, u8)]) -> Result<Self> {
        let mut pair = Self::new()?;
        for at in [0, 1] {
            pair.give_key(at, 'a')?;
            pair.start(at, &node(at, way, backends))?;
        }
        pair.wait_for_roles(["active", "backup"])?;
        Ok(pair)
    }

    /// Gives a node's host a key.
    ///
    /// # Errors
    /// When its directory is not writable.
    pub fn give_key(&self, at: usize, digit: char) -> Result<()> {
        let path = self.host(at).work_dir().join("sync.key");
        fs::write(&path, digit.to_string().repeat(64))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// What a node says of its channels.
    ///
    /// # Errors
    /// When it does not answer or has no peer.
    pub fn sync(&self, at: usize) -> Result<SyncStatus> {
        self.status(at)?.sync.context("there is no peer")
    }

    /// What a node says of its first service.
    ///
    /// # Errors
    /// When it does not answer or has none.
    pub fn service(&self, at: usize) -> Result<ServiceStatus> {
        let mut services = self.status(at)?.services.into_iter();
        services.next().context("there is no service")
    }

    /// Waits until a node's peer has all that the node has when this is called: `flows` at least.
    ///
    /// # Errors
    /// When it has not.
    pub fn wait_for_sync(&self, from: usize, flows: u64) -> Result<()> {
        let (mut last, started) = (None, Instant::now());
        let found = wait_until(SOON, "the peer being in sync", || {
            let (ours, theirs) = (self.sync(from).ok()?, self.sync(1 - from).ok()?);
            let is_told = ours.sending.in_sync_seconds.is_some()
                && started.elapsed() > Duration::from_secs_f64(ours.sending.lag_seconds) + TOLD
                && theirs.receiving.in_sync_seconds.is_some();
            let has = self.status(1 - from).ok()?.flows.tracked;
            last = Some((ours, theirs, has));
            (is_told && has >= flows).then_some(())
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// Waits until so many new flows were reported to a node, and its peer has acknowledged all of
    /// them.
    ///
    /// # Errors
    /// When it has not.
    pub fn wait_for_new_flows(&self, from: usize, flows: u64) -> Result<()> {
        let mut last = None;
        let found = wait_until(SOON, "the peer having the new flows", || {
            let sending = self.sync(from).ok()?.sending;
            let is_told = sending.events >= flows && sending.unacknowledged == 0;
            last = Some(sending);
            is_told.then_some(())
        });
        found.with_context(|| format!("{last:?}"))
    }

    /// Waits until a node would tell a peer of so many flows.
    ///
    /// # Errors
    /// When it would not.
    pub fn wait_for_entries(&self, at: usize, flows: u64) -> Result<()> {
        Ok(wait_until(SOON, "all flows being met", || {
            (self.sync(at).ok()?.sending.entries >= flows).then_some(())
        })?)
    }
}
