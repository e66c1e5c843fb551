//! One network namespace: made, entered, removed.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{dead_owner, sys};
use crate::exec;

/// Where `ip netns` keeps its names.
pub(super) const NAMES: &str = "/run/netns";

/// A named network namespace, removed when dropped.
#[derive(Debug)]
pub struct NetNs {
    door: Door,
}

/// A way into a namespace, for who does not hold it.
#[derive(Debug)]
pub struct Door {
    name: String,
    file: File,
}

impl NetNs {
    /// Makes the namespace, with its loopback up.
    ///
    /// # Errors
    /// Needs root and iproute2.
    pub fn new(name: String) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root: run this with sudo");
        }
        exec::run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NAMES).join(&name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let netns = Self {
            door: Door { name, file },
        };
        netns.ip(&["link set lo up"])?;
        Ok(netns)
    }

    /// The name, for `ip -n` and `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.door.name
    }

    /// Runs `ip` commands, one per line, in one go.
    ///
    /// # Errors
    /// Names the first line that failed.
    pub fn ip(&self, lines: &[&str]) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.door.name, "-batch", "-"]);
        exec::run_with_input(&mut command, &lines.join("\n"))
            .with_context(|| format!("in namespace {}", self.door.name))
    }

    /// A command that will run inside.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        let program = program.as_ref();
        // Administrators' programs are not on every root's PATH.
        let found = program.to_str().and_then(exec::which);
        let mut command = Command::new(found.as_deref().unwrap_or(Path::new(program)));
        self.place(&mut command)?;
        Ok(command)
    }

    /// Makes a command of the caller's run inside.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn place(&self, command: &mut Command) -> Result<()> {
        sys::enter_netns(command, self.door.file.try_clone()?.into());
        Ok(())
    }

    /// A way into it for others.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn door(&self) -> Result<Door> {
        let file = self.door.file.try_clone()?;
        let name = self.door.name.clone();
        Ok(Door { name, file })
    }

    /// As [`Door::enter`].
    ///
    /// # Errors
    /// The function's own, or that the namespace cannot be entered.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.door.enter(inside)
    }

    /// Writes a setting below `/proc/sys`.
    ///
    /// # Errors
    /// When the kernel does not know or does not take it.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| {
            std::fs::write(&path, value).with_context(|| format!("cannot set {}", path.display()))
        })
    }
}

impl Door {
    /// Calls a function on a thread inside the namespace.
    ///
    /// # Errors
    /// The function's own, or that the namespace cannot be entered.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let body = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter namespace {}", self.name))?;
            inside()
        };
        std::thread::scope(|scope| match scope.spawn(body).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; `clean_leftovers` finds what stays.
        let _ = exec::run(Command::new("ip").args(["netns", "delete", &self.door.name]));
    }
}

/// Ends what runs in namespaces of dead runs, and removes them.
pub(super) fn clean_leftovers() -> Result<()> {
    let Ok(entries) = std::fs::read_dir(NAMES) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if dead_owner(&name).is_none() {
            continue;
        }
        let pids = exec::output(Command::new("ip").args(["netns", "pids", &name]));
        let pids = pids.unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.trim().parse().ok()) {
            if let Some(pid) = Pid::from_raw(pid) {
                // One that ended by itself a moment ago is as good.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        let deleted = exec::run(Command::new("ip").args(["netns", "delete", &name]));
        // Another run may have been quicker.
        if entry.path().exists() {
            deleted?;
        }
    }
    Ok(())
}
