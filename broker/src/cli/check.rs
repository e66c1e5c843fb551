//! `tidegate-broker check`.

use std::{
    io::{Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    Config::load(&args.config)?;
    // A closed pipe is not a failure of the check.
    let _ = writeln!(stdout(), "{}: ok", args.config.display());
    Ok(ExitCode::SUCCESS)
}
