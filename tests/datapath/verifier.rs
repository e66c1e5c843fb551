//! How near the programs come to what a kernel's verifier gives up at.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use aya::programs::loaded_programs;
use lb_common::{
    abi::{PROGRAM, Stage},
    decap::PROGRAM as DECAP,
};

use tests::world::World;

use super::services::{DSR_MAGLEV, desired_small};

/// Instructions that the verifier follows at most, of all ways through a program (linux/bpf.h:
/// `BPF_COMPLEXITY_LIMIT_INSNS`).
const LIMIT: u32 = 1_000_000;

#[test]
fn each_program_is_verified_with_half_of_the_patience_left() -> Result<()> {
    // With all that is left out elsewhere.
    let _world = World::reporting(desired_small(DSR_MAGLEV), 1)?;
    let _decap = super::decap::open()?;
    let mut seen = BTreeSet::new();
    for program in loaded_programs() {
        // Those of others may be unloaded meanwhile.
        let Ok(program) = program else {
            continue;
        };
        let Some(name) = program.name_as_str() else {
            continue;
        };
        if ![PROGRAM, DECAP].contains(&name) && !name.starts_with("stage_") {
            continue;
        }
        // Unknown before Linux 5.16.
        let verified = program.verified_instruction_count().unwrap_or_default();
        // There is one of each for every world.
        if seen.insert(name.to_owned()) {
            println!("{name}: {verified} instructions verified");
        }
        ensure!(
            verified < LIMIT / 2,
            "{name}: {verified} instructions verified"
        );
    }
    ensure!(
        seen.len() == Stage::ALL.len() + 2,
        "only {seen:?} are loaded"
    );
    Ok(())
}
