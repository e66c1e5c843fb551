//! The compiler with library sources, the linker for BPF, and cargo's own helpers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{announce_and_run, apt, which};
use crate::exec;
use crate::toolchain::{BPF_LINKER_VERSION, Missing, Toolchain, required_minor, tools_root};

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
pub(super) fn ensure_compiler(mut packages: Vec<String>) -> Result<()> {
    let needs_compiler = matches!(Toolchain::find(), Err(Missing::Rust));
    if packages.is_empty() && !needs_compiler {
        return Ok(());
    }
    let mut nightly = needs_compiler;
    if apt::is_here() {
        apt::update()?;
        let compiler = COMPILERS.iter().find(|names| is_new_enough(names[0]));
        if let (true, Some(names)) = (needs_compiler, compiler) {
            packages.extend(names.map(str::to_owned));
            nightly = false;
        }
        apt::install(&packages)?;
    } else if !packages.is_empty() {
        apt::refuse(&packages)?;
    }
    if nightly {
        install_nightly()?;
    }
    Ok(())
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
            "no package of rustc 1.{} or newer and no rustup here: install rustup, then run this again",
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
    let rust = match Toolchain::find() {
        Ok(_) => return Ok(()),
        Err(Missing::Linker(rust)) => rust,
        Err(missing @ Missing::Rust) => return Err(missing.into()),
    };
    let llvm = ensure_llvm(rust.llvm)?;
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

/// Finds the development files of the wanted LLVM or a newer one, installing them if need be.
fn ensure_llvm(wanted: u32) -> Result<u32> {
    let have = |llvm: &u32| llvm_prefix(*llvm).join("bin/llvm-config").exists();
    if let Some(llvm) = (wanted..=NEWEST_LLVM).find(have) {
        return Ok(llvm);
    }
    let package = |llvm: u32| format!("llvm-{llvm}-dev");
    let offered = (wanted..=NEWEST_LLVM)
        .find(|llvm| apt::is_here() && apt::candidate(&package(*llvm)).is_some());
    let Some(llvm) = offered else {
        bail!(
            "rustc's LLVM is {wanted} and no package has its development files: install LLVM {wanted} below {}",
            llvm_prefix(wanted).display()
        );
    };
    apt::install(&[package(llvm)])?;
    Ok(llvm)
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
