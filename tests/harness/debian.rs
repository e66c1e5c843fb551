//! A Debian of a test's own: this machine's release with its own systemd, in namespaces, on the network
//! of a host of the laboratory. Packages are installed there as they are on real hosts.
//!
//! Its files are made once by debootstrap, and each test sees them through an overlay that goes with it.
//! The machine's own packages, units and control groups are not touched.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use xtask::build::target_dir;
use xtask::exec;
use xtask::lab::{Host, Process, wait_until};

/// How long it may take to start on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// What has to be there beside Debian's essential packages.
const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus";

/// Who makes the files, one at a time.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes a machine's file systems and starts its first process, as a container's manager does. ROOT has
/// the files, CHANGES takes what is written, GROUP is a control group of its own.
const BOOT: &str = r#"
set -e
mkdir -p "$CHANGES"
mount -t tmpfs tmpfs "$CHANGES"
mkdir "$CHANGES/upper" "$CHANGES/work" "$CHANGES/root"
mount -t overlay -o "lowerdir=$ROOT,upperdir=$CHANGES/upper,workdir=$CHANGES/work" overlay "$CHANGES/root"
cd "$CHANGES/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# As systemd does on a machine that is one.
mount -t bpf -o nosuid,nodev,noexec,mode=0700 bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : > dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir -p .outside
pivot_root . .outside
umount -l .outside
exec env -i container=tidegate-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd \
    --log-target=console --show-status=no
"#;

/// A running Debian. It ends with the test.
#[derive(Debug)]
pub struct Debian {
    _manager: Process,
    /// Its first process, as we see it.
    pid: u32,
    group: PathBuf,
}

impl Debian {
    /// Starts one on a host's network; `None`, with a word about it, where there can be none.
    ///
    /// # Errors
    /// When it does not start.
    pub fn boot(host: &Host) -> Result<Option<Self>> {
        let (root, groups) = match (files()?, groups()) {
            (Ok(root), Ok(groups)) => (root, groups),
            (Err(reason), _) | (_, Err(reason)) => {
                eprintln!("skipped: no Debian of its own: {reason}");
                return Ok(None);
            }
        };
        let group = make_group(&groups)?;
        let mut command = host.command("sh")?;
        command.args(["-c", r#"echo $$ > "$GROUP/cgroup.procs"; exec "$@""#, "sh"]);
        command.args(["unshare", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]);
        command.args(["--fork", "--kill-child", "--propagation", "private"]);
        command.args(["sh", "-c", BOOT]);
        command.env("ROOT", root).env("GROUP", &group);
        command.env("CHANGES", host.work_dir().join("debian"));
        let mut manager = host.spawn("debian", command)?;
        let parent = manager.pid();
        let started = wait_until(SOON, "systemd in namespaces", || {
            if !manager.is_running() {
                return Some(Err(()));
            }
            first_process(parent).map(Ok)
        })?;
        let Ok(pid) = started else {
            bail!("it ended: {}", manager.tail());
        };
        let debian = Self {
            _manager: manager,
            pid,
            group,
        };
        wait_until(SOON, "systemd having started all units", || {
            let state = debian.try_run("systemctl is-system-running").ok()?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        })?;
        Ok(Some(debian))
    }

    /// Runs a line of shell in it.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn try_run(&self, line: &str) -> Result<Output> {
        self.command(line).output().context("nsenter cannot be run")
    }

    /// Runs a line of shell in it to its success and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it fails; the error carries what it wrote.
    pub fn run(&self, line: &str) -> Result<String> {
        exec::output(&mut self.command(line)).with_context(|| format!("in Debian: {line}"))
    }

    /// Puts a file of ours into it.
    ///
    /// # Errors
    /// When one of the two cannot be used.
    pub fn give(&self, file: &Path, to: &str) -> Result<()> {
        let content = File::open(file).with_context(|| format!("no {}", file.display()))?;
        let mut command = self.command(&format!("cat > {to}"));
        let status = command.stdin(Stdio::from(content)).status()?;
        ensure!(status.success(), "cannot write {to}: {status}");
        Ok(())
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        exec::run_with_input(&mut self.command(&format!("cat > {path}")), text)
    }

    /// What systemd knows of a unit.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.run(&format!("systemctl show --property={name} --value {unit}"))?;
        Ok(value.trim().to_owned())
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.pid.to_string());
        command.args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]);
        command.args([
            "env",
            "-i",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL=C.UTF-8",
        ]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", line]);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // With the first process of its namespace all others end.
        if let Some(pid) = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        // One that stays is empty, and goes with the machine.
        let _ = wait_until(SOON, "the end of all its processes", || {
            remove_group(&self.group).ok()
        });
    }
}

/// The process that a parent is waiting for, once that has become systemd.
fn first_process(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let child = children.split_whitespace().next()?;
    let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (name.trim() == "systemd").then(|| child.parse().ok())?
}

/// Where control groups of the second version are.
fn groups() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let place = words.nth(1)?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    found.ok_or_else(|| "no cgroup2 is mounted".to_owned())
}

/// Makes a group with a name of this process, and removes those of processes that were killed.
fn make_group(groups: &Path) -> Result<PathBuf> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    for entry in fs::read_dir(groups)?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("tg-").and_then(|it| it.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another run may be quicker.
            let _ = remove_group(&entry.path());
        }
    }
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let group = groups.join(format!("tg-{}-{number}", std::process::id()));
    fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
    Ok(group)
}

/// Removes a group with those that systemd has made in it.
fn remove_group(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// The files of this machine's release, which the first caller makes. Why there are none is no error: it
/// takes a Debian or one of its kin, debootstrap, and packages within reach.
fn files() -> Result<Result<PathBuf, String>> {
    let _making = MAKING.lock();
    let Some(release) = release() else {
        return Ok(Err("/etc/os-release names no release".to_owned()));
    };
    let root = target_dir()?.join(format!("debian-{release}"));
    if root.exists() {
        return Ok(Ok(root));
    }
    if exec::which("debootstrap").is_none() {
        return Ok(Err("there is no debootstrap".to_owned()));
    }
    let half = root.with_extension("half");
    // What a run that was killed has left.
    if half.exists() {
        fs::remove_dir_all(&half)?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .args(["--variant=minbase", PACKAGES, &release])
        .arg(&half);
    debootstrap.args(mirror(&release));
    if let Err(error) = exec::run(&mut debootstrap) {
        let error = format!("{error:#}");
        let last = error.lines().last().unwrap_or_default().to_owned();
        return Ok(Err(format!("debootstrap failed: {last}")));
    }
    fs::rename(&half, &root)?;
    Ok(Ok(root))
}

/// The name of this machine's release.
fn release() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// Where this machine has its packages of that release from.
fn mirror(release: &str) -> Option<String> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(SITE) $(RELEASE) $(COMPONENT)",
    ]);
    let text = exec::output(&mut targets).ok()?;
    text.lines().find_map(|line| {
        let site = line.strip_suffix(&format!(" {release} main"))?;
        Some(site.to_owned())
    })
}
