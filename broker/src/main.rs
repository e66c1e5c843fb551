//! The `tidegate-broker` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::cli::main()
}
