//! `cargo xtask dist`: what users install, made from the source tree.
//!
//! ```text
//!   release build, packaging/PRODUCT, example configs, pages, completions, licences
//!      -> layout::files      which file goes where, and how          (pure)
//!      -> tree::write        all of them below a directory, as they will be on a host
//!      -> deb::pack          PRODUCT_VERSION_ARCH.deb, by Debian's own tools
//!      -> tarball::pack      PRODUCT-VERSION-ARCH.tar.gz of the same files
//! ```
//! There is one layout, so a tarball unpacked at the root gives the same host as the package does, but
//! for what the package's scripts do. What is made of the same programs from one commit is the same each
//! time: files are as old as the commit, and in order.
//!
//! The programs need the host's glibc and nothing else that is not in every Debian: a wholly static
//! one would look names up by other rules than its host.

mod deb;
mod layout;
pub mod manual;
mod notices;
mod tarball;
mod tree;
mod units;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

pub use layout::Product;

use crate::build::{self, Profile};
use crate::exec;
use crate::lab::{Binaries, WorkDir};
use crate::steps::Steps;

/// The version of all crates, hence of the packages.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the packages go; `target/dist` when left out.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The package's own revision of this version.
    #[arg(long, value_name = "N", default_value_t = 1)]
    revision: u32,
    /// Take programs that are built already, from this directory.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// What was made of one product.
#[derive(Clone, Debug)]
pub struct Made {
    /// The Debian package.
    pub deb: PathBuf,
    /// The same files without it.
    pub tarball: PathBuf,
}

/// What all packages of one run have in common.
#[derive(Clone, Debug)]
struct Release {
    revision: u32,
    /// As Debian calls it.
    architecture: String,
    /// When it was made, in seconds since 1970.
    epoch: u64,
}

impl Release {
    fn new(revision: u32) -> Result<Self> {
        let architecture = exec::output(Command::new("dpkg").arg("--print-architecture"))?;
        Ok(Self {
            revision,
            architecture: architecture.trim().to_owned(),
            epoch: epoch()?,
        })
    }

    /// As packages are numbered: whose version, and which package of it.
    fn version(&self) -> String {
        format!("{VERSION}-{}", self.revision)
    }
}

/// Makes the packages.
///
/// # Errors
/// Names the step that failed.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::default();
    let binaries = match &args.programs {
        Some(directory) => Binaries::inside(directory)?,
        None => steps.step("build", || build::programs(Profile::Release))?,
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => build::target_dir()?.join("dist"),
    };
    let made = steps.step("packages", || pack(&binaries, args.revision, &out))?;
    for Made { deb, tarball } in made {
        println!("{}\n{}", deb.display(), tarball.display());
    }
    Ok(())
}

/// Makes packages of programs that are built.
///
/// # Errors
/// As [`deb`].
pub fn pack(binaries: &Binaries, revision: u32, out: &Path) -> Result<Vec<Made>> {
    let release = Release::new(revision)?;
    Product::ALL
        .into_iter()
        .map(|product| {
            let staged = Staged::make(product, binaries, &release)?;
            let root = staged.root();
            fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
            let tarball = tarball::pack(product, &release, &root, out)?;
            let deb = deb::pack(&staged, &release, deb::Effort::Small, out)?;
            Ok(Made { deb, tarball })
        })
        .collect()
}

/// Makes a Debian package that is soon made, and large.
///
/// # Errors
/// When a tool fails, a unit is wrong or more open than it may be, or a program needs what is not on
/// every host.
pub fn deb(product: Product, binaries: &Binaries, revision: u32, out: &Path) -> Result<PathBuf> {
    let release = Release::new(revision)?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let staged = Staged::make(product, binaries, &release)?;
    deb::pack(&staged, &release, deb::Effort::Quick, out)
}

/// The files of a product, as they will be on a host.
#[derive(Debug)]
struct Staged {
    product: Product,
    files: Vec<layout::File>,
    work: WorkDir,
}

impl Staged {
    fn make(product: Product, binaries: &Binaries, release: &Release) -> Result<Self> {
        let name = product.name();
        let context = || format!("{name} cannot be packed");
        let program = product.program(binaries);
        let work = WorkDir::new()?;
        let generated = work.path().join("generated");
        manual::write(program, &generated).with_context(context)?;
        let notices = notices::collect(product).with_context(context)?;
        fs::write(generated.join(layout::NOTICES), notices)?;
        let changelog = layout::changelog(product, &release.version(), &mailed(release.epoch)?);
        fs::write(generated.join(layout::CHANGELOG), changelog)?;
        let pages = names(&generated.join(manual::PAGES))?;
        let files = layout::files(product, program, &generated, &pages);
        let staged = Self {
            product,
            files,
            work,
        };
        tree::write(&staged.files, &staged.root()).with_context(context)?;
        units::check(product, &staged.root()).with_context(context)?;
        Ok(staged)
    }

    /// What stands for the host's root.
    fn root(&self) -> PathBuf {
        self.work.path().join("root")
    }
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// How old everything is: as `SOURCE_DATE_EPOCH` says, else as the commit.
fn epoch() -> Result<u64> {
    if let Some(told) = std::env::var_os("SOURCE_DATE_EPOCH") {
        let seconds = told.to_str().and_then(|told| told.parse().ok());
        return seconds.context("SOURCE_DATE_EPOCH is not a number of seconds");
    }
    let mut git = Command::new("git");
    git.current_dir(build::workspace());
    let Ok(text) = exec::output(git.args(["log", "-1", "--format=%ct"])) else {
        bail!("this is no clone of the repository: set SOURCE_DATE_EPOCH to when it was released");
    };
    text.trim()
        .parse()
        .context("git tells no time of its commit")
}

/// A time as changelogs have it.
fn mailed(epoch: u64) -> Result<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-R", "-d"]);
    let text = exec::output(date.arg(format!("@{epoch}")))?;
    Ok(text.trim().to_owned())
}
