//! The invariants of ARCHITECTURE.md that a search can check.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A file longer than this has two subjects.
const MAX_LINES: usize = 500;

/// Where the sources are.
const ROOTS: [&str; 9] = [
    "lb-common",
    "lb-ebpf",
    "lb-user",
    "broker",
    "channel",
    "console",
    "dashboard",
    "xtask",
    "tests",
];

/// Words that may stand only below certain paths.
struct Rule {
    words: &'static [&'static str],
    /// Where the rule holds; paths are prefixes.
    within: &'static [&'static str],
    except: &'static [&'static str],
    because: &'static str,
}

const RULES: [Rule; 7] = [
    Rule {
        words: &["aya::", "aya_obj", "aya_log"],
        within: &ROOTS,
        except: &[
            "lb-user/src/io/datapath",
            "lb-common/src/abi",
            "lb-ebpf/src/",
            // A backend loads the decapsulator, without the daemon.
            "lb-ebpf/decap/src/",
            "tests/",
        ],
        because: "one file speaks to the loaded program",
    },
    Rule {
        words: &["rtnetlink", "netlink_packet"],
        within: &ROOTS,
        except: &["lb-user/src/io/netlink", "broker/src/vip", "tests/"],
        because: "its API breaks often",
    },
    Rule {
        words: &[
            "tokio",
            "aya",
            "rtnetlink",
            "Instant::now",
            "SystemTime",
            "UnixStream",
            "TcpStream",
            "UdpSocket",
        ],
        within: &[
            "lb-user/src/core/",
            "lb-user/src/config/",
            "lb-user/src/import/",
        ],
        // There is no other way to come by an instant, for a virtual clock to begin at.
        except: &["lb-user/src/core/vrrp/machine/tests/bench.rs"],
        because: "core and config decide, and take time and events as arguments",
    },
    Rule {
        words: &[
            "crate::io",
            "crate::daemon",
            "crate::api",
            "crate::cli",
            "crate::control",
        ],
        within: &[
            "lb-user/src/core/",
            "lb-user/src/config/",
            "lb-user/src/import/",
        ],
        except: &[],
        because: "dependencies point inwards",
    },
    Rule {
        words: &["crate::io", "crate::daemon"],
        within: &["lb-user/src/api/"],
        except: &[],
        because: "the API speaks to the daemon through control.rs alone",
    },
    Rule {
        words: &["lb_user", "lb_common"],
        within: &["broker/", "channel/", "console/", "dashboard/"],
        except: &[],
        because: "the broker names nothing of the balancer, nor does what both have in common",
    },
    Rule {
        words: &["unsafe"],
        within: &ROOTS,
        except: &[
            "lb-ebpf/src/",
            "lb-common/src/abi",
            "lb-user/src/io/",
            "broker/src/bench/wire.rs",
            "broker/src/vip/tests.rs",
            "tests/",
            "xtask/src/lab/sys.rs",
            "xtask/src/lint/tidy.rs",
        ],
        because: "system calls and map values are wrapped once",
    },
];

/// Packages, and what they must not depend on.
const APART: [(&str, &[&str]); 8] = [
    (
        "lb-common",
        &["lb-user", "lb-ebpf", "broker", "xtask", "tests"],
    ),
    ("lb-ebpf", &["lb-user", "broker", "xtask", "tests"]),
    (
        "lb-ebpf/decap",
        &["lb-user", "lb-ebpf", "broker", "xtask", "tests"],
    ),
    ("lb-user", &["lb-ebpf", "broker", "xtask", "tests"]),
    (
        "broker",
        &["lb-common", "lb-user", "lb-ebpf", "xtask", "tests"],
    ),
    (
        "channel",
        &[
            "lb-common",
            "lb-user",
            "lb-ebpf",
            "broker",
            "xtask",
            "tests",
        ],
    ),
    (
        "console",
        &[
            "lb-common",
            "lb-user",
            "lb-ebpf",
            "broker",
            "dashboard",
            "xtask",
            "tests",
        ],
    ),
    (
        "dashboard",
        &[
            "lb-common",
            "lb-user",
            "lb-ebpf",
            "broker",
            "xtask",
            "tests",
        ],
    ),
];

/// Checks every source file and what the packages depend on.
///
/// # Errors
/// Lists every line that breaks a rule.
pub(super) fn check(workspace: &Path) -> Result<()> {
    let mut complaints = String::new();
    for root in ROOTS {
        for file in sources(&workspace.join(root))? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let path = file.strip_prefix(workspace).unwrap_or(&file);
            complaints += &complain(&path.to_string_lossy(), &text);
        }
    }
    for (package, others) in APART {
        let manifest = workspace.join(package).join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest)
            .with_context(|| format!("cannot read {}", manifest.display()))?;
        complaints += &complain_of_dependencies(package, &text, others);
    }
    if !complaints.is_empty() {
        bail!("the sources break the project's own rules:\n{complaints}");
    }
    Ok(())
}

fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn complain(path: &str, text: &str) -> String {
    let mut complaints = String::new();
    // Tests beside a module are described by what they test.
    let is_tests = path.ends_with("/tests.rs");
    let lines = text.lines().count();
    if lines > MAX_LINES {
        let _ = writeln!(complaints, "{path}: {lines} lines, at most {MAX_LINES}");
    }
    if !is_tests && !text.lines().any(|line| line.starts_with("//!")) {
        let _ = writeln!(
            complaints,
            "{path}: no `//!` that says what the file is for"
        );
    }
    for Rule {
        words,
        within,
        except,
        because,
    } in RULES
    {
        let below = |paths: &[&str]| paths.iter().any(|prefix| path.starts_with(prefix));
        if !below(within) || below(except) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for word in words.iter().filter(|word| has_word(code, word)) {
                let number = number + 1;
                let _ = writeln!(complaints, "{path}:{number}: `{word}` here: {because}");
            }
        }
    }
    complaints
}

fn complain_of_dependencies(package: &str, manifest: &str, others: &[&str]) -> String {
    let mut complaints = String::new();
    let mut inside = false;
    for (number, line) in manifest.lines().enumerate() {
        if let Some(table) = line.trim().strip_prefix('[') {
            inside = table.contains("dependencies");
        }
        // `name.workspace = true`, `name = { .. }` or `[dependencies.name]`.
        let names =
            |other: &&&str| inside && has_word(&line.replace('-', "_"), &other.replace('-', "_"));
        for other in others.iter().filter(names) {
            let number = number + 1;
            let _ = writeln!(
                complaints,
                "{package}/Cargo.toml:{number}: {package} must not depend on {other}"
            );
        }
    }
    complaints
}

/// Whether `word` stands in the code, not as a part of a longer name and not inside a string.
fn has_word(code: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = &code[..at];
        let starts = !before.ends_with(is_name);
        let ends = word.ends_with(':') || !code[at + word.len()..].starts_with(is_name);
        let quoted = before.matches('"').count() % 2 == 1;
        starts && ends && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_the_core_is_named_with_its_line() {
        let text = "//! Core.\nfn f() {\n    let now = Instant::now();\n}\n";
        let complaints = complain("lb-user/src/core/plan.rs", text);
        assert!(complaints.starts_with("lb-user/src/core/plan.rs:3: `Instant::now`"));
        assert_eq!(complain("lb-user/src/daemon/mod.rs", text), "");
    }

    #[test]
    fn comments_strings_and_longer_names_are_no_offence() {
        let text = "//! aya::Ebpf\nlet x = \"aya::Ebpf\"; // aya::\nmyaya::f();\n";
        assert_eq!(complain("lb-user/src/daemon/mod.rs", text), "");
    }

    #[test]
    fn a_dependency_on_what_is_apart_is_named_with_its_line() {
        let others = ["lb-user", "xtask"];
        let complain = |text: &str| complain_of_dependencies("broker", text, &others);
        let text = "[package]\nname = \"xtask\"\n[dependencies]\nlb-user-kit = \"1\"\n";
        assert_eq!(complain(text), "");
        for line in [
            "[dependencies]\nlb-user.workspace = true\n",
            "[dev-dependencies]\nxtask = { path = \"../xtask\" }\n",
        ] {
            assert!(
                complain(line).starts_with("broker/Cargo.toml:2: "),
                "{line}"
            );
        }
        assert!(complain("[dependencies.lb-user]\n").contains("lb-user"));
    }

    #[test]
    fn a_file_needs_a_subject_and_an_end() {
        assert!(complain("broker/src/a.rs", "fn main() {}\n").contains("no `//!`"));
        let long = "//! Long.\n".to_owned() + &"\n".repeat(MAX_LINES);
        assert!(complain("broker/src/a.rs", &long).contains("501 lines"));
    }
}
