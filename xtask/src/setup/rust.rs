//! The compiler with library sources, the linker for BPF, and cargo's own helpers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{announce_and_run, apt};
use crate::exec::{self, which};
use crate::toolchain::{BPF_LINKER_VERSION, Missing, Rust, Toolchain, required_minor, tools_root};

/// Packages of one compiler: rustc, its library's sources, cargo. Debian's `-web` ones follow the releases.
const COMPILERS: [[&str; 3]; 2] = [
    ["rustc-web", "rust-web-src", "cargo-web"],
    ["rustc", "rust-src", "cargo"],
];

/// The newest LLVM that the pinned bpf-linker knows.
const NEWEST_LLVM: u32 = 23;

/// The dependency checker that the checks run, and its version.
const CARGO_DENY: &str = "cargo-deny";
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Installs `packages`, and a compiler for the XDP programs when there is none.
pub(super) fn ensure_compiler(packages: Vec<String>) -> Result<()> {
    let missing = Toolchain::find().err();
    if packages.is_empty() && missing.is_none() {
        return Ok(());
    }
    if apt::is_here() {
        apt::update()?;
    } else if !packages.is_empty() {
        apt::refuse(&packages)?;
    }
    let wants_compiler = match &missing {
        None => false,
        Some(Missing::Rust) => true,
        // A compiler may be newer than any LLVM to be had here.
        Some(Missing::Linker(compilers)) => !compilers.iter().any(|rust| llvm_for(rust).is_some()),
    };
    apt::install(&packages)?;
    if wants_compiler {
        install_compiler()?;
    }
    Ok(())
}

/// A package has the compiler whose LLVM is to be had as a package, too; rustup's is newer.
fn install_compiler() -> Result<()> {
    let offered = COMPILERS.iter().find(|names| is_new_enough(names[0]));
    let Some(names) = offered else {
        return install_nightly();
    };
    apt::install(&names.map(str::to_owned)).or_else(|error| {
        // The `-web` packages take the place of the user's own rustc, cargo or rustup, which stay.
        eprintln!("setup: {error:#}");
        install_nightly()
    })
}

fn is_new_enough(package: &str) -> bool {
    apt::candidate(package)
        .and_then(|version| {
            let minor = version.split(['.', '+', '-']).nth(1)?;
            minor.parse::<u32>().ok()
        })
        .is_some_and(|minor| minor >= required_minor())
}

fn install_nightly() -> Result<()> {
    if which("rustup").is_none() {
        bail!(
            "no package of rustc 1.{} or newer can be installed and there is no rustup: install rustup, then run this again",
            required_minor()
        );
    }
    announce_and_run(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]))
}

/// Builds bpf-linker with the LLVM of the compiler.
pub(super) fn ensure_linker() -> Result<()> {
    let compilers = match Toolchain::find() {
        Ok(_) => return Ok(()),
        Err(Missing::Linker(compilers)) => compilers,
        Err(missing @ Missing::Rust) => return Err(missing.into()),
    };
    let Some(llvm) = compilers.iter().find_map(llvm_for) else {
        let wanted = compilers.first().map_or(NEWEST_LLVM, |rust| rust.llvm);
        bail!(
            "rustc's LLVM is {wanted} and no package has its development files: install LLVM {wanted} below {}",
            llvm_prefix(wanted).display()
        );
    };
    if !has_llvm(llvm) {
        apt::install(&[llvm_package(llvm)])?;
    }
    let prefix = llvm_prefix(llvm);
    let mut install = cargo_install("bpf-linker")?;
    install
        .env("LLVM_PREFIX", prefix)
        .args(["--version", BPF_LINKER_VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{llvm}"));
    announce_and_run(&mut install)?;
    let toolchain = Toolchain::find().context("bpf-linker was built and still does not fit")?;
    eprintln!("setup: the XDP programs are built by {toolchain}");
    Ok(())
}

/// The LLVM to link for a compiler, its own or a newer one: installed, or to be had.
fn llvm_for(rust: &Rust) -> Option<u32> {
    let known = rust.llvm..=NEWEST_LLVM;
    let is_offered = |llvm: &u32| apt::is_here() && apt::candidate(&llvm_package(*llvm)).is_some();
    known
        .clone()
        .find(|llvm| has_llvm(*llvm))
        .or_else(|| known.clone().find(is_offered))
}

fn has_llvm(llvm: u32) -> bool {
    llvm_prefix(llvm).join("bin/llvm-config").exists()
}

fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

fn llvm_prefix(llvm: u32) -> PathBuf {
    Path::new("/usr/lib").join(format!("llvm-{llvm}"))
}

/// Installs what the checks run beside the compiler.
pub(super) fn ensure_checkers() -> Result<()> {
    for (program, component) in [("cargo-fmt", "rustfmt"), ("cargo-clippy", "clippy")] {
        // rustup leaves its own stand-ins for components that are not installed.
        let runs = exec::run(Command::new(program).arg("--version")).is_ok();
        if !runs {
            announce_and_run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    if cargo_deny().is_none() {
        // Not optimised: it is run seldom, and takes half as long to build.
        let options = ["--version", CARGO_DENY_VERSION, "--locked", "--debug"];
        announce_and_run(cargo_install(CARGO_DENY)?.args(options))?;
    }
    Ok(())
}

/// The dependency checker, ours or the user's own.
pub fn cargo_deny() -> Option<PathBuf> {
    let ours = tools_root()?.join("bin").join(CARGO_DENY);
    Some(ours)
        .filter(|path| path.is_file())
        .or_else(|| which(CARGO_DENY))
}

fn cargo_install(package: &str) -> Result<Command> {
    let root = tools_root().context("there is no home directory to install tools into")?;
    let mut command = Command::new("cargo");
    command.args(["install", package, "--root"]).arg(root);
    Ok(command)
}
