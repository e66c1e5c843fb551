//! What a package consists of: which file goes where, and what is said about it.

use std::path::{Path, PathBuf};

use super::manual::{PAGES, Shell};
use crate::build;
use crate::lab::Binaries;

/// Where the licences of what is in the programs are gathered.
pub(super) const NOTICES: &str = "third-party";

/// What Debian wants to know of each package's history.
pub(super) const CHANGELOG: &str = "changelog.Debian";

/// Who answers for the packages.
pub(super) const MAINTAINER: &str = "The Tidegate authors <tidegate@tidegate.invalid>";

/// Where administrators find what they may copy, and change.
const EXAMPLES: &str = "etc/tidegate/examples";

/// The pages that README.md leads to.
const DOCS: [&str; 22] = [
    "access",
    "broker",
    "cluster",
    "comparison",
    "configuration",
    "dashboard",
    "ecmp",
    "explanation",
    "install",
    "limits",
    "migration",
    "mqtt",
    "notify",
    "operate",
    "pair",
    "performance",
    "persistence",
    "scale",
    "security",
    "troubleshooting",
    "tuning",
    "tutorial",
];

/// Something that is installed by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Product {
    /// `tidegate`
    Balancer,
    /// `tidegate-broker`
    Broker,
}

/// What is to be done to a file on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// Loses its symbols, and may be run.
    Program,
    Plain,
    /// Plain, and an administrator's changes outlive upgrades.
    Config,
    /// Becomes smaller, and its name `.gz` longer.
    Compressed,
}

/// One file of a package.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct File {
    pub(super) from: PathBuf,
    /// Below the root.
    pub(super) to: String,
    pub(super) kind: Kind,
}

impl File {
    /// Where it is on a host, below the root.
    pub(super) fn place(&self) -> String {
        match self.kind {
            Kind::Compressed => format!("{}.gz", self.to),
            Kind::Program | Kind::Plain | Kind::Config => self.to.clone(),
        }
    }
}

impl Product {
    pub(super) const ALL: [Self; 2] = [Self::Balancer, Self::Broker];

    /// The name of package, program, unit and user.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancer => "tidegate",
            Self::Broker => "tidegate-broker",
        }
    }

    pub(super) fn program(self, binaries: &Binaries) -> &Path {
        match self {
            Self::Balancer => &binaries.tidegate,
            Self::Broker => &binaries.broker,
        }
    }

    /// The crates that it is made of, as far as others are not theirs.
    pub(super) fn crates(self) -> [&'static str; 2] {
        match self {
            Self::Balancer => ["lb-user", "lb-ebpf"],
            Self::Broker => ["broker", "lb-ebpf"],
        }
    }

    /// One line, and what to add to it.
    pub(super) fn description(self) -> [&'static str; 2] {
        match self {
            Self::Balancer => [
                "XDP load balancer for MQTT",
                "Spreads clients of a virtual address over brokers in the Linux kernel, checks\n\
                 the brokers' health, and holds the address, with a second host by VRRP.\n\
                 Sessions go on when backends come and go, and when the daemon is upgraded.",
            ],
            Self::Broker => [
                "clustered MQTT broker",
                "An MQTT 3.1, 3.1.1 and 5 broker to stand behind Tidegate: several nodes work\n\
                 as one, sessions can be persistent and replicated, and an evacuation empties a\n\
                 node before it is stopped. With a load generator.",
            ],
        }
    }

    /// Where its unit, scripts and so on are.
    pub(super) fn packaging(self) -> PathBuf {
        build::workspace().join("packaging").join(self.name())
    }

    /// Its units; the first is its own, others belong to that one.
    pub(super) fn units(self) -> &'static [&'static str] {
        match self {
            Self::Balancer => &["tidegate.service", "tidegate-pins.service"],
            Self::Broker => &["tidegate-broker.service"],
        }
    }

    fn examples(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Balancer => (
                "lb-user/configs",
                &[
                    "tidegate-dsr.toml",
                    "tidegate-nat.toml",
                    "tidegate-tunnel.toml",
                    "tidegate-vrrp.toml",
                ],
            ),
            Self::Broker => ("broker/configs", &["tidegate-broker.toml"]),
        }
    }
}

/// The files of a product, in the order of their places. `generated` has what the program and the
/// builder write, `pages` are the names of its manual pages.
pub(super) fn files(
    product: Product,
    program: &Path,
    generated: &Path,
    pages: &[String],
) -> Vec<File> {
    let (name, source, packaging) = (product.name(), build::workspace(), product.packaging());
    let file = |from: PathBuf, to: String, kind| File { from, to, kind };
    let mut files = vec![file(
        program.to_owned(),
        format!("usr/bin/{name}"),
        Kind::Program,
    )];
    for unit in product.units() {
        let to = format!("usr/lib/systemd/system/{unit}");
        files.push(file(packaging.join(unit), to, Kind::Plain));
    }
    for kind in ["sysusers", "tmpfiles"] {
        let from = packaging.join(format!("{kind}.conf"));
        let to = format!("usr/lib/{kind}.d/{name}.conf");
        files.push(file(from, to, Kind::Plain));
    }
    let (directory, examples) = product.examples();
    for example in examples {
        let from = source.join(directory).join(example);
        files.push(file(from, format!("{EXAMPLES}/{example}"), Kind::Config));
    }
    for page in pages {
        let to = format!("usr/share/man/man1/{page}");
        files.push(file(generated.join(PAGES).join(page), to, Kind::Compressed));
    }
    for shell in Shell::ALL {
        let completions = shell.file(name);
        let to = format!("usr/share/{}/{completions}", shell.vendor_directory());
        let from = generated.join(shell.name()).join(completions);
        files.push(file(from, to, Kind::Plain));
    }
    let about = |path: &str| format!("usr/share/doc/{name}/{path}");
    for (from, to, kind) in [
        (source.join("packaging/copyright"), "copyright", Kind::Plain),
        (source.join("CHANGELOG.md"), "changelog", Kind::Compressed),
        (generated.join(CHANGELOG), CHANGELOG, Kind::Compressed),
        (generated.join(NOTICES), NOTICES, Kind::Compressed),
        (source.join("README.md"), "README.md", Kind::Compressed),
    ] {
        files.push(file(from, about(to), kind));
    }
    for page in DOCS {
        let page = format!("docs/{page}.md");
        files.push(file(source.join(&page), about(&page), Kind::Plain));
    }
    files.sort_by(|a, b| a.to.cmp(&b.to));
    files
}

/// The package's history, in Debian's form: this version.
pub(super) fn changelog(product: Product, version: &str, date: &str) -> String {
    let name = product.name();
    format!(
        "{name} ({version}) unstable; urgency=medium\n\n  \
         * What has changed is in changelog.gz.\n\n \
         -- {MAINTAINER}  {date}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(product: Product) -> Vec<File> {
        let pages = ["boat.1".to_owned()];
        let program = Path::new("/target").join(product.name());
        files(product, &program, Path::new("/generated"), &pages)
    }

    #[test]
    fn every_page_is_installed() {
        let pages = std::fs::read_dir(build::workspace().join("docs")).unwrap();
        let paths = pages.map(|page| page.unwrap().path());
        let mut pages: Vec<_> = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        pages.sort();
        assert_eq!(pages, DOCS);
    }

    #[test]
    fn all_that_is_in_the_source_tree_is_there() {
        for product in Product::ALL {
            for file in of(product) {
                if file.from.starts_with(build::workspace()) {
                    assert!(file.from.is_file(), "{}", file.from.display());
                }
            }
        }
    }

    #[test]
    fn products_can_be_installed_beside_each_other() {
        let [balancer, broker] = Product::ALL.map(|product| {
            let places = of(product).into_iter().map(|file| file.place());
            places.collect::<BTreeSet<_>>()
        });
        // Pages have the names of their programs, which these here do not.
        let both: Vec<_> = balancer.intersection(&broker).collect();
        assert_eq!(both, ["usr/share/man/man1/boat.1.gz"]);
    }

    #[test]
    fn no_example_is_read_before_it_is_copied() {
        for product in Product::ALL {
            let read = format!("etc/tidegate/{}.toml", product.name());
            let unit = product.packaging().join(product.units()[0]);
            let unit = std::fs::read_to_string(unit).unwrap();
            assert!(unit.contains(&format!("ConditionPathExists=/{read}\n")));
            for file in of(product) {
                assert_ne!(file.to, read);
                assert_eq!(file.kind == Kind::Config, file.to.starts_with("etc/"));
            }
        }
    }

    #[test]
    fn changelog_is_in_the_form_that_dpkg_reads() {
        let text = changelog(
            Product::Broker,
            "1.2.3-4",
            "Thu, 01 Jan 1970 00:00:00 +0000",
        );
        let mut lines = text.lines();
        let first = lines.next().unwrap();
        assert_eq!(first, "tidegate-broker (1.2.3-4) unstable; urgency=medium");
        assert!(lines.any(|line| line.starts_with("  * ")));
        assert!(text.ends_with("  Thu, 01 Jan 1970 00:00:00 +0000\n"));
    }
}
