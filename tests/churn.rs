//! Sessions that are held while backends come and go: a short run of `cargo xtask bench churn`.

use anyhow::{Result, ensure};
use xtask::bench::churn::{self, Args};
use xtask::lab::Binaries;
use xtask::network::{Balance, Forward};

/// The same changes in every run: one that fails can be repeated.
const SEED: u64 = 40;

fn no_session_is_lost(forward: Forward, balance: Balance) -> Result<()> {
    let args = Args {
        clients: 300,
        changes: 20,
        pace: 300,
        seed: Some(SEED),
        forward,
        balance,
        all: false,
        json: true,
    };
    let outcome = churn::measure(&args, &Binaries::find()?)?;
    ensure!(outcome.lost.is_empty(), "{outcome:#?}");
    ensure!(outcome.cut_off == 0, "{outcome:#?}");
    Ok(())
}

#[test]
fn changes_of_backends_cost_no_session_in_nat() -> Result<()> {
    no_session_is_lost(Forward::Nat, Balance::Maglev)
}

#[test]
fn changes_of_backends_cost_no_session_with_least_conn() -> Result<()> {
    no_session_is_lost(Forward::Dsr, Balance::LeastConn)
}

#[test]
fn changes_of_backends_cost_no_session_in_dsr() -> Result<()> {
    no_session_is_lost(Forward::Dsr, Balance::Maglev)
}
