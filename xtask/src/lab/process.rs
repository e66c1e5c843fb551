//! A program that runs on a host of the laboratory until it is stopped, or its holder is gone.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal};

use super::{Host, sys, wait_until};
use crate::exec;

/// How much of a log an error quotes.
const TAIL_LINES: usize = 30;

/// How long a program may take to put its host in order when nobody asks for its end any more.
const GRACE: Duration = Duration::from_secs(3);

/// A running program. Dropped, it is asked to end, and killed if it does not.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts the command inside the host's namespace, its output going to `NAME.out` and `NAME.err` in the
    /// host's directory.
    pub(super) fn spawn(host: &Host, name: &str, command: Command) -> Result<Self> {
        Self::spawn_with(host, name, command, Stdio::null())
    }

    /// The same with an input for [`Process::tell`].
    pub(super) fn spawn_listening(host: &Host, name: &str, command: Command) -> Result<Self> {
        Self::spawn_with(host, name, command, Stdio::piped())
    }

    fn spawn_with(host: &Host, name: &str, mut command: Command, input: Stdio) -> Result<Self> {
        let out = host.work_dir().join(format!("{name}.out"));
        let err = host.work_dir().join(format!("{name}.err"));
        sys::supervise(&mut command);
        let mut child = command
            .current_dir(host.work_dir())
            .stdin(input)
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| {
                let line = exec::show(&command);
                format!("cannot run `{line}` on {}", host.name())
            })?;
        let name = format!("{name} on {}", host.name());
        Ok(Self {
            name,
            input: child.stdin.take(),
            child,
            out,
            err,
        })
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// When it was started without one, or has closed it.
    pub fn tell(&mut self, text: &str) -> Result<()> {
        let name = &self.name;
        let input = self.input.as_mut();
        let input = input.with_context(|| format!("{name} has no input"))?;
        input
            .write_all(text.as_bytes())
            .with_context(|| format!("{name} does not listen"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its processor time, as [`cpu_seconds_of`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds_of(self.pid())
    }

    /// Its memory, as [`memory_of`].
    ///
    /// # Errors
    /// When it has ended.
    pub fn memory(&self) -> Result<u64> {
        memory_of(self.pid())
    }

    /// What it wrote to standard output so far.
    pub fn stdout(&self) -> String {
        read(&self.out)
    }

    /// What it wrote to standard error so far.
    pub fn stderr(&self) -> String {
        read(&self.err)
    }

    /// The last lines of both, for error messages.
    pub fn tail(&self) -> String {
        let text = self.stdout() + &self.stderr();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Waits until a line, of either output, contains `part`, and returns it.
    ///
    /// # Errors
    /// When it takes longer than `within` or the program ends first; the error quotes its log.
    pub fn wait_for_line(&mut self, part: &str, within: Duration) -> Result<String> {
        let what = format!("a line with \"{part}\" from {}", self.name);
        let found = wait_until(within, &what, || {
            // In this order: what was written before the end is in the files.
            let ended = self.child.try_wait();
            let text = self.stdout() + &self.stderr();
            if let Some(line) = text.lines().find(|line| line.contains(part)) {
                return Some(Ok(line.to_owned()));
            }
            match ended {
                Ok(None) => None,
                Ok(Some(status)) => Some(Err(anyhow!("{} ended: {status}", self.name))),
                Err(error) => Some(Err(error.into())),
            }
        });
        found
            .map_err(anyhow::Error::from)
            .and_then(|result| result)
            .with_context(|| self.quote())
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it takes longer than `within`; the error quotes its log.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let status = wait_until(within, &what, || self.child.try_wait().transpose());
        Ok(status.with_context(|| self.quote())??)
    }

    /// Waits for its successful end and returns its standard output.
    ///
    /// # Errors
    /// When it takes longer than `within` or fails; the error quotes its log.
    pub fn finish(&mut self, within: Duration) -> Result<String> {
        let status = self.wait(within)?;
        if !status.success() {
            bail!("{} failed: {status}\n{}", self.name, self.quote());
        }
        Ok(self.stdout())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended: {status}\n{}", self.name, self.quote());
        }
        // Not reaped, as `try_wait` just said: the id is still this child's.
        rustix::process::kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// Asks it to end, by SIGTERM, and waits for that.
    ///
    /// # Errors
    /// When it ended before, or takes longer than `within`.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(within)
    }

    /// Ends it without asking, as a crash would.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        Ok(self.child.wait()?)
    }

    fn quote(&self) -> String {
        format!("{} wrote last:\n{}", self.name, self.tail())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody to tell that it does not end.
        let _ = self.terminate(GRACE);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KiB of memory that a process has for itself and has touched.
///
/// # Errors
/// When there is no such process.
pub fn memory_of(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("there is no process {pid}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(number.context("no VmRSS")?.parse()?)
}

/// Seconds of processor time that a process has used, in the kernel too.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds_of(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("there is no process {pid}"))?;
    // Behind the name in brackets, which may hold anything: state is field 3, utime 14, stime 15.
    let (_, fields) = text.rsplit_once(')').context("no process name")?;
    let ticks = fields.split_ascii_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / sys::ticks_per_second())
}

fn read(path: &std::path::Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
