//! Builds the XDP programs from source, for `include_bytes!` in what loads them.
//!
//! Included by path into the build scripts of the packages that embed an object, hence std only.
//! Without a toolchain for them the crate is still built, with the cfg `tidegate_no_xdp` and an empty
//! object: all that is pure can be tested anywhere. So it is when `TIDEGATE_NO_XDP` is set, for quick checks
//! of the rest. A toolchain that fails fails the build.

#[allow(unreachable_pub, reason = "shared with xtask, where it is public")]
#[path = "toolchain.rs"]
mod toolchain;

use std::path::{Path, PathBuf};

use toolchain::Toolchain;

/// What the object is made of, relative to the workspace.
const SOURCES: [&str; 8] = [
    "Cargo.toml",
    "lb-common/Cargo.toml",
    "lb-common/src",
    "lb-ebpf/Cargo.toml",
    "lb-ebpf/build.rs",
    "lb-ebpf/embed.rs",
    "lb-ebpf/src",
    "lb-ebpf/toolchain.rs",
];

/// Builds the programs and leaves the object of a `[[bin]]` in `OUT_DIR`, as `NAME.o`.
pub(crate) fn object(name: &str) {
    println!("cargo::rustc-check-cfg=cfg(tidegate_no_xdp)");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .find(|dir| dir.join("lb-ebpf/toolchain.rs").exists())
        .expect("the crate lies inside the workspace");
    for source in SOURCES {
        let path = workspace.join(source);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    let out_dir =
        PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it for build scripts"));
    let copy = out_dir.join(format!("{name}.o"));
    println!("cargo::rerun-if-env-changed=TIDEGATE_NO_XDP");
    if std::env::var_os("TIDEGATE_NO_XDP").is_some() {
        without_xdp(&copy, "TIDEGATE_NO_XDP is set");
        return;
    }
    match Toolchain::find() {
        Ok(toolchain) => {
            println!("cargo::rerun-if-changed={}", toolchain.linker().display());
            let object = build(&toolchain, workspace, &target_dir(&out_dir), name);
            std::fs::copy(&object, &copy).expect("the object was built and OUT_DIR is writable");
        }
        Err(missing) => {
            without_xdp(&copy, &missing.to_string());
            // A path that never exists: the toolchain is looked for again at each build.
            println!("cargo::rerun-if-changed=no-toolchain-yet");
        }
    }
}

fn without_xdp(copy: &Path, why: &str) {
    println!("cargo::warning=tidegate is built without its XDP programs: {why}");
    println!("cargo::rustc-cfg=tidegate_no_xdp");
    std::fs::write(copy, []).expect("OUT_DIR is writable");
}

fn build(toolchain: &Toolchain, workspace: &Path, target_dir: &Path, name: &str) -> PathBuf {
    let mut command = toolchain.command(workspace, target_dir);
    if std::env::var_os("CARGO_FEATURE_TRACE").is_some() {
        command.args(["--features", "trace"]);
    }
    let output = command
        .output()
        .expect("the toolchain's cargo was found a moment ago");
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        println!("cargo::error=building the XDP programs with {toolchain} failed");
        std::process::exit(1);
    }
    toolchain::object(target_dir, name)
}

/// A directory of the inner cargo's own, shared by all profiles, beside theirs. Programs that trace
/// have another one, or each would be built again after the other.
fn target_dir(out_dir: &Path) -> PathBuf {
    let name = if std::env::var_os("CARGO_FEATURE_TRACE").is_some() {
        "bpf-trace"
    } else {
        "bpf"
    };
    out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").exists())
        .unwrap_or(out_dir)
        .join(name)
}
