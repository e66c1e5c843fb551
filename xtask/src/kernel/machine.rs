//! The emulated machine, and what it says on its serial line.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::guest::END;
use crate::exec;
use crate::setup;

/// Several times what the tests take without hardware's help: a guest that is silent for good must end.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Enough for the tables of all tests that run at once.
const MEGABYTES: &str = "3072";

/// The machine's console: serial, quiet but for what the first process says. A panic ends the
/// machine. Mitigations cost time and protect nothing here.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 mitigations=off";

/// Boots a kernel and shows its console until the tests have ended.
///
/// # Errors
/// When the tests fail, do not come to an end, or the machine does not start; names the log.
pub(super) fn run(machine: &setup::Machine, file_system: &[u8], dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let (initrd, log) = (dir.join("initrd"), dir.join("console.log"));
    fs::write(&initrd, file_system)
        .with_context(|| format!("cannot write {}", initrd.display()))?;
    let status = boot(machine, &initrd, &log);
    fs::remove_file(&initrd)?;
    match status.with_context(|| format!("the console's log is {}", log.display()))? {
        0 => Ok(()),
        status => bail!("tests failed with status {status}: see {}", log.display()),
    }
}

fn boot(machine: &setup::Machine, initrd: &Path, log: &Path) -> Result<u32> {
    let mut command = command(machine, initrd);
    let mut machine = Machine(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{}`", exec::show(&command)))?,
    );
    let output = machine.0.stdout.take().context("its output is piped")?;
    watch(output, log)
}

/// Hardware's virtualisation where the kernel offers it, emulation otherwise.
fn command(machine: &setup::Machine, initrd: &Path) -> Command {
    let mut command = machine.emulator.command();
    if has_virtualisation() {
        command.args(["-accel", "kvm"]);
    }
    command
        .args(["-accel", "tcg,thread=multi"])
        .args(["-smp", "2", "-m", MEGABYTES])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-serial", "stdio", "-no-reboot"])
        .arg("-kernel")
        .arg(machine.kernel.image())
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", KERNEL_ARGUMENTS]);
    command
}

/// The device alone says little: it is there on machines whose processor has nothing behind it.
fn has_virtualisation() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let may = |flag| processor.split_whitespace().any(|word| word == flag);
    let device = File::options().read(true).write(true).open("/dev/kvm");
    device.is_ok() && (may("vmx") || may("svm"))
}

/// Copies the console to the log and to our own output, and finds the status in it.
fn watch(console: ChildStdout, log: &Path) -> Result<u32> {
    let mut log = File::create(log)?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while let Ok(1..) = console.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    let start = Instant::now();
    let deadline = start + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("the tests did not end within {} s", PATIENCE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the machine stopped before the tests had ended")
            }
        };
        writeln!(log, "{:7.2} {line}", start.elapsed().as_secs_f64())?;
        if let Some(status) = line.strip_prefix(END) {
            return status.parse().context("the console is garbled");
        }
        println!("{line}");
    }
}

/// Ends the emulator with us.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Gone already, if it switched itself off.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
