//! The state directory: what outlives the daemon, and the lock that keeps a second one away.
//!
//! `lock` names who holds the directory, `seed` is the hash seed where the configuration has none,
//! `admin.json` is what operators said about backends, `names.json` what backends are called.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use tracing::warn;

use crate::{
    config::model::Config,
    control::Lasting,
    core::{admin::AdminState, balancer::BackendKey},
};

/// The directory, held for as long as this lives.
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
    /// What `admin.json` says of each backend.
    kept: BTreeMap<String, Value>,
    /// Whose state is not to be kept.
    temporary: BTreeSet<String>,
    /// What `names.json` says.
    names: BTreeMap<String, String>,
}

impl StateDir {
    /// Makes the directory if there is none, and takes it for `interface`.
    ///
    /// # Errors
    ///
    /// If another daemon has it, or it cannot be used.
    pub(super) fn open(path: &Path, interface: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the state directory {}", path.display()))?;
        let lock = lock(path, interface)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
            kept: BTreeMap::new(),
            temporary: BTreeSet::new(),
            names: BTreeMap::new(),
        })
    }

    /// What backends were called in the last run, by their places: [`Config::names`]. Without the file
    /// those that leave are called by their addresses.
    pub(super) fn names(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(self.path.join("names.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The seed kept here, made at the first call.
    ///
    /// # Errors
    ///
    /// If it can be neither read nor made.
    pub(super) fn seed(&self) -> anyhow::Result<[u8; 16]> {
        let path = self.path.join("seed");
        let context = || format!("cannot use the seed file {}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) => parse_seed(text.trim()).with_context(|| {
                format!(
                    "{} is not 32 hex digits: correct or remove it",
                    path.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 16];
                File::open("/dev/urandom")
                    .and_then(|mut random| random.read_exact(&mut seed))
                    .context("cannot read /dev/urandom")?;
                let digits: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
                replace(&path, format!("{digits}\n").as_bytes()).with_context(context)?;
                Ok(seed)
            }
            Err(error) => Err(error).with_context(context),
        }
    }

    /// What operators said in earlier runs. A file that cannot be understood is set aside: a
    /// balancer that does not start helps nobody.
    pub(super) fn admin(&mut self) -> AdminState {
        let path = self.path.join("admin.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return AdminState::default(),
            Err(error) => {
                warn!(path = %path.display(), %error, "kept backend states cannot be read");
                return AdminState::default();
            }
        };
        let kept = serde_json::from_str(&text);
        match kept.and_then(|kept| Ok((serde_json::from_str(&text)?, kept))) {
            Ok((state, kept)) => {
                self.kept = kept;
                state
            }
            Err(error) => {
                let aside = self.path.join("admin.json.broken");
                warn!(path = %path.display(), %error, aside = %aside.display(),
                    "kept backend states are damaged, set aside");
                drop(fs::rename(&path, &aside));
                AdminState::default()
            }
        }
    }

    /// Keeps `state` after a change to `changed`, apart from what was said for the time being.
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the old one stays then.
    pub(super) fn keep(
        &mut self,
        state: &AdminState,
        changed: &BackendKey,
        lasting: Lasting,
    ) -> io::Result<()> {
        match lasting {
            Lasting::Temporary => {
                self.temporary.insert(changed.to_string());
                return Ok(());
            }
            Lasting::Kept => self.temporary.remove(&changed.to_string()),
        };
        let said: BTreeMap<String, Value> = serde_json::from_value(serde_json::to_value(state)?)?;
        let is_kept = |name: &String| !self.temporary.contains(name);
        let mut kept: BTreeMap<String, Value> =
            said.into_iter().filter(|(name, _)| is_kept(name)).collect();
        let before = self.kept.iter().filter(|(name, _)| !is_kept(name));
        kept.extend(before.map(|(name, value)| (name.clone(), value.clone())));
        self.write(kept)
    }

    /// Forgets what was said of backends that are not in the file: the file must not bring back what
    /// the balancer has forgotten. Keeps the names of all.
    ///
    /// # Errors
    ///
    /// If a file cannot be written; the old one stays then.
    pub(super) fn follow(&mut self, config: &Config) -> io::Result<()> {
        self.keep_names(config)?;
        let backends = config.backends();
        // What was said of one that leaves is over with its return to the file.
        let backends = backends.filter(|(_, backend)| !backend.is_leaving());
        let known: BTreeSet<String> = backends
            .map(|(service, backend)| BackendKey::new(service.name(), backend.name()).to_string())
            .collect();
        self.temporary.retain(|name| known.contains(name));
        let mut kept = self.kept.clone();
        kept.retain(|name, _| known.contains(name));
        if kept == self.kept {
            return Ok(());
        }
        self.write(kept)
    }

    /// Keeps what backends are called, for [`Self::names`].
    ///
    /// # Errors
    ///
    /// If the file cannot be written; the old one stays then.
    pub(super) fn keep_names(&mut self, config: &Config) -> io::Result<()> {
        let names = config.names();
        if names == self.names {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&names)?;
        replace(
            &self.path.join("names.json"),
            format!("{text}\n").as_bytes(),
        )?;
        self.names = names;
        Ok(())
    }

    fn write(&mut self, kept: BTreeMap<String, Value>) -> io::Result<()> {
        let text = serde_json::to_string_pretty(&kept)?;
        replace(
            &self.path.join("admin.json"),
            format!("{text}\n").as_bytes(),
        )?;
        self.kept = kept;
        Ok(())
    }
}

/// Writes a file so that a reader, or a crash, meets the old or the new one, whole.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The lock goes with the process, however that ends; the file stays and says whose it was last.
fn lock(directory: &Path, interface: &str) -> anyhow::Result<File> {
    let path = directory.join("lock");
    let context = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(context)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut holder = String::new();
        file.read_to_string(&mut holder).with_context(context)?;
        bail!("{}", refusal(directory, interface, &holder));
    }
    file.set_len(0).with_context(context)?;
    write!(file, "{} {interface}", std::process::id()).with_context(context)?;
    Ok(file)
}

fn refusal(directory: &Path, interface: &str, holder: &str) -> String {
    let (pid, held) = holder.split_once(' ').unwrap_or(("unknown", "unknown"));
    if held == interface {
        format!(
            "interface {interface} is balanced by another tidegate already, process {pid}: stop that one first"
        )
    } else {
        format!(
            "state directory {} is in use by another tidegate, process {pid} on interface {held}: \
             give this one a state_dir of its own",
            directory.display()
        )
    }
}

fn parse_seed(digits: &str) -> Option<[u8; 16]> {
    let mut seed = [0; 16];
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    for (at, byte) in seed.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(seed)
}
