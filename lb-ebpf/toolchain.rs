//! Finds what can build the XDP programs, and says how to call it.
//!
//! The object is built for `bpfel-unknown-none`, for which no ready `core` exists: it takes a compiler with
//! its library sources (a rustup toolchain with `rust-src`, or a distribution's rustc with its source
//! package) and a bpf-linker whose LLVM is at least the compiler's. Included by path into build scripts (by
//! `embed.rs`) and `xtask`, hence std only. It installs nothing: that is `cargo xtask setup`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The bpf-linker that `cargo xtask setup` installs.
#[allow(dead_code, reason = "used by xtask only")]
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// Variables of an outer cargo that would lead the inner one astray.
const INHERITED: [&str; 14] = [
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTC_LINKER",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTUP_TOOLCHAIN",
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_MAKEFLAGS",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
    // Cargo puts the outer compiler's libraries in here.
    "LD_LIBRARY_PATH",
];

/// A compiler that has the sources of its own library.
#[derive(Clone, Debug)]
pub struct Rust {
    cargo: PathBuf,
    rustc: PathBuf,
    /// LLVM major version.
    pub llvm: u32,
    /// Minor version of the 1.x release.
    minor: u32,
}

/// A compiler and a linker that fit together.
#[derive(Clone, Debug)]
pub struct Toolchain {
    rust: Rust,
    linker: PathBuf,
}

/// Why the XDP programs cannot be built here.
#[derive(Debug)]
pub enum Missing {
    /// No compiler with library sources, new enough for the workspace.
    Rust,
    /// These compilers, the most promising first, but no linker that reads their bitcode.
    Linker(Vec<Rust>),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rust => f.write_str(
                "no Rust toolchain with library sources was found to build the XDP programs: run `cargo xtask setup`",
            ),
            Self::Linker(compilers) => {
                let llvm = compilers.iter().map(|rust| rust.llvm).min();
                write!(
                    f,
                    "no bpf-linker with LLVM {} or newer was found to build the XDP programs: run `cargo xtask setup`",
                    llvm.unwrap_or_default()
                )
            }
        }
    }
}

impl std::error::Error for Missing {}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rust, linker } = self;
        let (rustc, linker) = (rust.rustc.display(), linker.display());
        write!(
            f,
            "{rustc} (1.{}, LLVM {}) with {linker}",
            rust.minor, rust.llvm
        )
    }
}

impl Toolchain {
    /// Finds the first compiler for which a linker exists.
    ///
    /// # Errors
    /// Says what is missing, and what to do, in one sentence.
    pub fn find() -> Result<Self, Missing> {
        let compilers = compilers();
        let linkers = linkers();
        for rust in &compilers {
            if let Some((linker, _)) = linkers.iter().find(|(_, llvm)| *llvm >= rust.llvm) {
                return Ok(Self {
                    rust: rust.clone(),
                    linker: linker.clone(),
                });
            }
        }
        Err(if compilers.is_empty() {
            Missing::Rust
        } else {
            Missing::Linker(compilers)
        })
    }

    /// The linker in use.
    #[allow(dead_code, reason = "used by build.rs only")]
    pub fn linker(&self) -> &Path {
        &self.linker
    }

    /// The command that builds the object of `workspace` into `target_dir`.
    pub fn command(&self, workspace: &Path, target_dir: &Path) -> Command {
        let mut command = Command::new(&self.rust.cargo);
        for name in INHERITED {
            command.env_remove(name);
        }
        command
            .current_dir(workspace)
            .env("RUSTC", &self.rust.rustc)
            // `-Z build-std` on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags())
            .args(["build", "--release", "--package", "lb-ebpf", "--bins"])
            .args(["-Z", "build-std=core", "--target", target()])
            .arg("--target-dir")
            .arg(target_dir);
        command
    }

    /// What aya's own build helper passes, and the linker by its path.
    fn flags(&self) -> OsString {
        const SEPARATOR: &str = "\u{1f}";
        let mut flags = OsString::new();
        flags.push(format!(
            "--cfg=bpf_target_arch=\"{}\"",
            std::env::consts::ARCH
        ));
        flags.push(format!(
            "{SEPARATOR}-Cdebuginfo=2{SEPARATOR}-Clink-arg=--btf{SEPARATOR}-Clink-arg=--cpu-features=+allows-misaligned-mem-access"
        ));
        flags.push(format!("{SEPARATOR}-Clinker="));
        flags.push(&self.linker);
        flags
    }
}

/// Where [`Toolchain::command`] leaves the object of a `[[bin]]`.
#[allow(dead_code, reason = "used by build.rs only")]
pub fn object(target_dir: &Path, name: &str) -> PathBuf {
    target_dir.join(target()).join("release").join(name)
}

/// The directory that `cargo xtask setup` installs tools into.
pub fn tools_root() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".cache")))?;
    Some(cache.join("tidegate").join("tools"))
}

fn target() -> &'static str {
    if cfg!(target_endian = "little") {
        "bpfel-unknown-none"
    } else {
        "bpfeb-unknown-none"
    }
}

/// Every compiler that would do, the most promising first: nightlies, other rustup toolchains, the system's.
fn compilers() -> Vec<Rust> {
    let mut sysroots = rustup_sysroots();
    sysroots.push(PathBuf::from("/usr"));
    sysroots
        .iter()
        .filter_map(|root| Rust::at(root))
        .filter(|rust| rust.minor >= required_minor())
        .collect()
}

fn rustup_sysroots() -> Vec<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(std::env::home_dir()?.join(".rustup")));
    let Some(entries) = home.and_then(|home| std::fs::read_dir(home.join("toolchains")).ok())
    else {
        return Vec::new();
    };
    let mut roots: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    roots.sort_by_key(|path| {
        let nightly = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("nightly"));
        (!nightly, path.clone())
    });
    roots
}

impl Rust {
    fn at(sysroot: &Path) -> Option<Self> {
        let cargo = sysroot.join("bin/cargo");
        let rustc = sysroot.join("bin/rustc");
        let sources = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !(sources.exists() && cargo.exists() && rustc.exists()) {
            return None;
        }
        let output = Command::new(&rustc)
            .arg("-vV")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("LD_LIBRARY_PATH")
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            cargo,
            rustc,
            llvm: leading_number(field("LLVM version: ")?)?,
            minor: leading_number(field("release: 1.")?)?,
        })
    }
}

/// The minor version of the workspace's `rust-version`.
pub fn required_minor() -> u32 {
    option_env!("CARGO_PKG_RUST_VERSION")
        .and_then(|version| version.strip_prefix("1."))
        .and_then(leading_number)
        .unwrap_or(0)
}

/// Every bpf-linker and its LLVM major version: ours, then those on the PATH.
fn linkers() -> Vec<(PathBuf, u32)> {
    let ours = tools_root().map(|root| root.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    ours.into_iter()
        .chain(std::env::split_paths(&path))
        .map(|dir| dir.join("bpf-linker"))
        .filter_map(|linker| {
            let llvm = llvm_of(&std::fs::read(&linker).ok()?)?;
            runs(&linker).then_some((linker, llvm))
        })
        .collect()
}

/// Whether a linker starts: its LLVM library may have been removed by an upgrade of the system.
fn runs(linker: &Path) -> bool {
    Command::new(linker)
        .arg("--version")
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The LLVM inside a bpf-linker: it has no flag to tell, but names its shared library, or, linked
/// statically, the version that it writes into bitcode.
fn llvm_of(binary: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-", "LLVM"].iter().find_map(|mark| {
        binary
            .windows(mark.len() + 3)
            .filter(|window| window.starts_with(mark.as_bytes()))
            .find_map(|window| {
                let tail = std::str::from_utf8(&window[mark.len()..]).ok()?;
                (tail.ends_with(['.', '\0', '-']) || mark.ends_with('-'))
                    .then(|| leading_number(tail))?
            })
    })
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_library_or_its_bitcode_mark() {
        assert_eq!(llvm_of(b"\x7fELF\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(llvm_of(b"\0libLLVM-19.so\0LLVMContextCreate\0"), Some(19));
        assert_eq!(llvm_of(b"\0LLVMGetTarget\0LLVM21.1.0\0"), Some(21));
        assert_eq!(llvm_of(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn what_is_missing_says_what_to_do() {
        assert!(Missing::Rust.to_string().ends_with("`cargo xtask setup`"));
    }
}
