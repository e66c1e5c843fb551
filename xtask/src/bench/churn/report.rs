//! What a churn has come to.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

/// Lost sessions that are listed one by one on a terminal.
const LISTED: usize = 10;

/// The result of one churn.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub(super) forward: String,
    pub(super) balance: String,
    pub(super) seed: u64,
    pub(super) clients: u32,
    pub(super) changes: BTreeMap<&'static str, u32>,
    /// Sessions that ended because their backend had died.
    pub(super) reconnects: usize,
    /// Sessions that ended because they were asked to.
    pub(super) moved: u64,
    /// How often the balancer took a backend for dead: more than there were deaths on a machine so busy
    /// that checks fail, and a session of a backend that is taken for dead is nobody's fault but the check's.
    pub(super) health_changes: usize,
    /// Packets that the program dropped, by verdict.
    pub(super) drops: BTreeMap<String, u64>,
    /// Sessions that ended and should not have.
    pub lost: Vec<Victim>,
    /// Clients that backends still had when `backend drain --wait` said that they had none.
    pub cut_off: usize,
    pub(super) seconds: f64,
}

/// A session that ended and should not have.
#[derive(Clone, Debug, Serialize)]
pub struct Victim {
    /// The client's address and port, as `tidegate trace` takes them.
    pub client: Option<SocketAddr>,
    /// The client's number.
    pub number: u32,
    /// What the client saw.
    pub reason: String,
    /// How long the client had heard nothing.
    pub silent_seconds: f64,
    /// The backend that had the session.
    pub backend: Option<String>,
    /// The last change before.
    pub during: Option<String>,
    /// What `tidegate trace` says of it.
    pub trace: Option<String>,
}

impl Outcome {
    /// Prints it.
    pub(super) fn print(&self, json: bool) {
        if json {
            // Numbers and strings alone.
            println!("{}", serde_json::json!(self));
            return;
        }
        let Self {
            forward,
            balance,
            seed,
            clients,
            changes,
            reconnects,
            moved,
            health_changes,
            drops,
            lost,
            cut_off,
            seconds,
        } = self;
        println!("{forward} {balance}, {clients} clients, seed {seed}, {seconds:.1} s");
        let number: u32 = changes.values().sum();
        let kinds: Vec<String> = changes
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        println!(
            "  changes                      {number:>8}  ({})",
            kinds.join(", ")
        );
        for (verdict, packets) in drops {
            println!("  {verdict:<28} {packets:>8}");
        }
        println!("  sessions lost                {:>8}", lost.len());
        println!("  clients of drained backends  {cut_off:>8}");
        println!("  sessions of dead backends    {reconnects:>8}");
        println!("  sessions asked to leave      {moved:>8}");
        println!("  backends taken for dead      {health_changes:>8}");
        for victim in lost.iter().take(LISTED) {
            println!("{victim:#?}");
        }
    }
}

/// Counts the lines that tell of a backend that went down.
pub(super) fn health_changes(log: &str) -> usize {
    let down = |line: &&str| line.contains("backend changed state") && line.contains("to=down");
    log.lines().filter(down).count()
}
