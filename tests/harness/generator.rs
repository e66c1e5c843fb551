//! The benchmarks' generator of frames and what is around it: the programs of `lb-ebpf/src/bench.rs`,
//! and the interfaces of this thread's network namespace.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};

/// Ethernet and IPv4 up to the source address.
#[must_use]
pub fn head(destination: [u8; 6], source: [u8; 6]) -> [u8; 26] {
    let mut head = [0; 26];
    head[..6].copy_from_slice(&destination);
    head[6..12].copy_from_slice(&source);
    head[12..14].copy_from_slice(&[8, 0]);
    head[14..24].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6]);
    head
}

/// Loads the object, which lies beside the one that lb-user's build made.
///
/// # Errors
/// When it is not built.
pub fn load() -> anyhow::Result<Ebpf> {
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(|profile| profile.parent());
    let target = target.context("the benchmark lies in no target directory")?;
    let object: PathBuf = target.join("bpf/bpfel-unknown-none/release/tidegate-bench");
    let bytes = std::fs::read(&object)
        .with_context(|| format!("reading {}: run cargo xtask build", object.display()))?;
    Ok(Ebpf::load(&bytes)?)
}

/// One of the programs.
///
/// # Errors
/// When the object has none of that name.
pub fn program<'a>(programs: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = programs.program_mut(name);
    Ok(program
        .with_context(|| format!("the object has no {name}"))?
        .try_into()?)
}

/// Runs one of the programs at an interface, in native mode.
///
/// # Errors
/// When the kernel refuses it.
pub fn attach(programs: &mut Ebpf, name: &str, interface: &str) -> anyhow::Result<()> {
    let program = program(programs, name)?;
    program.load()?;
    program.attach(interface, XdpMode::Driver)?;
    Ok(())
}

/// Runs `ip`.
///
/// # Errors
/// When it fails.
pub fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("running ip")?;
    anyhow::ensure!(status.success(), "ip {} failed", arguments.join(" "));
    Ok(())
}

/// An interface's number.
///
/// # Errors
/// When there is no such interface.
pub fn index(interface: &str) -> anyhow::Result<u32> {
    Ok(link(interface, "ifindex")?.parse()?)
}

/// An interface's MAC address.
///
/// # Errors
/// When there is no such interface.
pub fn mac(interface: &str) -> anyhow::Result<[u8; 6]> {
    parse_mac(&link(interface, "address")?)
}

/// A MAC address as `ip` writes it.
///
/// # Errors
/// When it is none.
pub fn parse_mac(text: &str) -> anyhow::Result<[u8; 6]> {
    let bytes: Result<Vec<u8>, _> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect();
    bytes?
        .try_into()
        .ok()
        .context("a MAC address has six bytes")
}

/// By `ip`, which sees the namespace of this thread; a mounted /sys may show another one.
fn link(interface: &str, what: &str) -> anyhow::Result<String> {
    let output = Command::new("ip")
        .args(["-json", "link", "show", interface])
        .output()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let value = &links[0][what];
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned);
    anyhow::ensure!(text != "null", "{interface} has no {what}");
    Ok(text)
}
