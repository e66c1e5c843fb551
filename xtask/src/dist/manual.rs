//! `cargo xtask manual`: manual pages and shell completions, as the programs themselves write them.
//!
//! ```text
//!   OUT/man1/PROGRAM.1, PROGRAM-COMMAND.1, ...
//!   OUT/bash/PROGRAM        zsh/_PROGRAM        fish/PROGRAM.fish
//! ```
//! The programs are asked: xtask is built before there is a linker for the programs that they hold,
//! so it cannot link them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, Profile};
use crate::exec;

/// Where pages are, as `man` wants it.
pub(super) const PAGES: &str = "man1";

/// A shell with a place in distributions for completions of others' programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub(super) const ALL: [Self; 3] = [Self::Bash, Self::Zsh, Self::Fish];

    /// As the programs know it, and as its directory here is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }

    /// Where Debian's shells look for completions that come with programs, below `/usr/share`.
    pub(super) fn vendor_directory(self) -> &'static str {
        match self {
            Self::Bash => "bash-completion/completions",
            Self::Zsh => "zsh/vendor-completions",
            Self::Fish => "fish/vendor_completions.d",
        }
    }

    /// What the shell looks for when it completes `program`.
    pub(super) fn file(self, program: &str) -> String {
        match self {
            Self::Bash => program.to_owned(),
            Self::Zsh => format!("_{program}"),
            Self::Fish => format!("{program}.fish"),
        }
    }
}

/// Where to write.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory; `target/manual` when left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Builds the programs and has them write.
///
/// # Errors
/// When they cannot be built, or a file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let binaries = build::programs(Profile::Dev)?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => build::target_dir()?.join("manual"),
    };
    for program in [&binaries.tidegate, &binaries.broker] {
        write(program, &out)?;
    }
    println!("{}", out.display());
    Ok(())
}

/// Has a program write its pages and completions into a directory.
///
/// # Errors
/// When it fails, or a file cannot be written.
pub(super) fn write(program: &Path, out: &Path) -> Result<()> {
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is not a program", program.display()))?;
    exec::run(Command::new(program).arg("manual").arg(out.join(PAGES)))?;
    for shell in Shell::ALL {
        let text = exec::output(Command::new(program).args(["completions", shell.name()]))?;
        let directory = out.join(shell.name());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join(shell.file(name));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::WorkDir;

    /// Programs that are there already: one that a test writes may be busy when it is to run, as long as
    /// a program that another thread starts just then has it open.
    const BOATS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dist/manual/boats");

    #[test]
    fn each_shell_finds_its_completions_under_its_own_name() {
        let directory = WorkDir::new().unwrap();
        let out = directory.path().join("out");
        write(&Path::new(BOATS).join("boat"), &out).unwrap();
        let read = |path: &str| fs::read_to_string(out.join(path)).unwrap();
        assert_eq!(read("man1/boat.1"), "page\n");
        assert_eq!(read("bash/boat"), "for bash\n");
        assert_eq!(read("zsh/_boat"), "for zsh\n");
        assert_eq!(read("fish/boat.fish"), "for fish\n");
    }

    #[test]
    fn a_program_that_fails_is_an_error_with_what_it_said() {
        let directory = WorkDir::new().unwrap();
        let program = Path::new(BOATS).join("sunk/boat");
        let error = write(&program, &directory.path().join("out")).unwrap_err();
        assert!(format!("{error:#}").contains("sunk"), "{error:#}");
    }
}
