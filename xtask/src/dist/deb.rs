//! A Debian package of the files: what Debian wants to know of them, and its own tools for the rest.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::layout::{File, Kind, MAINTAINER};
use super::{Product, Release, Staged};
use crate::exec;
use crate::lab::WorkDir;

/// What dpkg runs at an installation, an upgrade or a removal.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the user and the directories, on hosts where systemd itself is not wanted.
const USER_MAKER: &str = "systemd | systemd-standalone-sysusers";

/// The libraries that every Debian has.
const EVERYWHERE: [&str; 2] = ["libc6", "libgcc-s1"];

/// What a smaller package is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effort {
    /// Half a minute.
    Small,
    /// Nothing: it is installed once.
    Quick,
}

/// Packs what is staged, and adds to it what dpkg wants to know.
pub(super) fn pack(
    staged: &Staged,
    release: &Release,
    effort: Effort,
    out: &Path,
) -> Result<PathBuf> {
    let (product, files, root) = (staged.product, &staged.files, staged.root());
    let about = root.join("DEBIAN");
    let size = size(files, &root)?;
    let libraries = libraries(&root.join("usr/bin").join(product.name()))?;
    let sums = sums(files, &root)?;
    fs::create_dir_all(&about)?;
    fs::set_permissions(&about, Permissions::from_mode(0o755))?;
    for (name, text) in [
        ("control", control(product, release, &libraries, size)),
        ("conffiles", conffiles(files)),
        ("md5sums", sums),
    ] {
        let path = about.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
    }
    for script in SCRIPTS {
        let to = about.join(script);
        let from = product.packaging().join(script);
        fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        fs::set_permissions(&to, Permissions::from_mode(0o755))?;
    }
    let (name, version) = (product.name(), release.version());
    let path = out.join(format!("{name}_{version}_{}.deb", release.architecture));
    let mut build = Command::new("dpkg-deb");
    build.env("SOURCE_DATE_EPOCH", release.epoch.to_string());
    build.args(["--root-owner-group", "-Zxz"]);
    build.arg(match effort {
        Effort::Small => "-z6",
        Effort::Quick => "-z0",
    });
    exec::run(build.arg("--build").arg(root).arg(&path))?;
    Ok(path)
}

/// What dpkg has to know of a package.
fn control(product: Product, release: &Release, libraries: &str, kib: u64) -> String {
    let (name, version) = (product.name(), release.version());
    let architecture = &release.architecture;
    let [synopsis, description] = product.description();
    let mut text = format!(
        "Package: {name}\n\
         Version: {version}\n\
         Architecture: {architecture}\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kib}\n\
         Depends: {libraries}, {USER_MAKER}\n\
         Section: net\n\
         Priority: optional\n\
         Description: {synopsis}\n"
    );
    for line in description.lines() {
        // Cannot fail: it is a string.
        let _ = writeln!(text, " {line}");
    }
    text
}

/// The files whose changes by an administrator outlive an upgrade.
fn conffiles(files: &[File]) -> String {
    files
        .iter()
        .filter(|file| file.kind == Kind::Config)
        .map(|file| format!("/{}\n", file.place()))
        .collect()
}

/// What the files take on a disk, as dpkg counts it.
fn size(files: &[File], root: &Path) -> Result<u64> {
    let mut kib = 0;
    for file in files {
        kib += fs::metadata(root.join(file.place()))?.len().div_ceil(1024);
    }
    Ok(kib)
}

fn sums(files: &[File], root: &Path) -> Result<String> {
    let mut md5sum = Command::new("md5sum");
    md5sum.current_dir(root);
    let plain = files.iter().filter(|file| file.kind != Kind::Config);
    exec::output(md5sum.args(plain.map(File::place)))
}

/// The packages of the libraries that a program needs, and since which version.
fn libraries(program: &Path) -> Result<String> {
    let work = WorkDir::new()?;
    // It wants to be in a source package.
    let debian = work.path().join("debian");
    fs::create_dir(&debian)?;
    fs::write(debian.join("control"), "Source: tidegate\n")?;
    let mut shlibdeps = Command::new("dpkg-shlibdeps");
    shlibdeps.current_dir(work.path()).arg("-O");
    let told = exec::output(shlibdeps.arg("-e").arg(program))?;
    depends(&told).with_context(|| format!("{} is not fit to be packed", program.display()))
}

/// The dependencies that `dpkg-shlibdeps` tells, if every host has them.
fn depends(told: &str) -> Result<String> {
    let list = told
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="))
        .context("dpkg-shlibdeps has changed its form")?;
    for package in list.split(", ") {
        let name = package.split(' ').next().unwrap_or(package);
        if !EVERYWHERE.contains(&name) {
            bail!("it needs {package}, which not every host has");
        }
    }
    Ok(list.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release() -> Release {
        Release {
            revision: 2,
            architecture: "amd64".into(),
            epoch: 0,
        }
    }

    #[test]
    fn control_says_all_that_dpkg_insists_on() {
        for product in Product::ALL {
            let text = control(product, &release(), "libc6 (>= 2.34)", 1000);
            let has = |line: &str| text.lines().any(|it| it == line);
            assert!(has(&format!("Package: {}", product.name())));
            assert!(has(&format!("Version: {}-2", super::super::VERSION)));
            assert!(has("Architecture: amd64"));
            assert!(has("Installed-Size: 1000"));
            assert!(text.contains("Depends: libc6 (>= 2.34), "));
            // What follows the synopsis is part of it as long as lines begin with a space.
            let rest = text.split("Description: ").nth(1).unwrap();
            assert!(rest.lines().skip(1).count() > 1);
            assert!(rest.lines().skip(1).all(|line| line.starts_with(' ')));
            assert!(rest.lines().all(|line| line.len() <= 80), "{rest}");
        }
    }

    #[test]
    fn only_what_administrators_change_is_a_conffile() {
        let file = |to: &str, kind| File {
            from: PathBuf::new(),
            to: to.into(),
            kind,
        };
        let files = [
            file("etc/boat.toml", Kind::Config),
            file("usr/bin/boat", Kind::Program),
        ];
        assert_eq!(conffiles(&files), "/etc/boat.toml\n");
    }

    #[test]
    fn a_library_that_not_every_host_has_is_refused() {
        let told = "shlibs:Depends=libc6 (>= 2.34), libgcc-s1 (>= 4.2)\n";
        assert_eq!(
            depends(told).unwrap(),
            "libc6 (>= 2.34), libgcc-s1 (>= 4.2)"
        );
        let told = "shlibs:Depends=libc6 (>= 2.34), libssl3 (>= 3.0.0)\n";
        assert!(depends(told).unwrap_err().to_string().contains("libssl3"));
        assert!(depends("").is_err());
    }
}
