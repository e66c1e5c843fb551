//! Settings of the kernel that `tune` writes, where a network namespace has its own.
//!
//! Those of the whole machine are never written here: each call names what it is about.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::Value;
use xtask::lab::{Binaries, Host, Topology};

/// Both are of a network namespace, and smaller by default than a broker wants them.
const KEYS: [&str; 2] = ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"];

fn setting(host: &Host, key: &str) -> Result<String> {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    Ok(host.output("cat", &[&path])?.trim().to_owned())
}

/// Runs the broker's `tune` about [`KEYS`].
fn tune(host: &Host, program: &Path, arguments: &[&str]) -> Result<Value> {
    let directory = host.work_dir().display();
    let (state, file) = (
        format!("{directory}/tune.json"),
        format!("{directory}/90.conf"),
    );
    let mut command = host.command(program)?;
    command.args(["tune", "--json", "--state", &state, "--sysctl-file", &file]);
    for key in KEYS {
        command.args(["--only", key]);
    }
    let output = command.args(arguments).output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn what_is_applied_to_a_host_is_put_back_by_undo() -> Result<()> {
    let network = Topology::new()?;
    let program = Binaries::find()?.broker;
    let (host, other) = (&network.broker1, &network.broker2);
    for key in KEYS {
        host.netns().sysctl(key, "512")?;
    }
    let shown = tune(host, &program, &[])?;
    ensure!(shown["settings"][0]["standing"] == "wrong", "{shown}");
    ensure!(setting(host, KEYS[0])? == "512", "it was only to be shown");
    let applied = tune(host, &program, &["--apply", "--persist"])?;
    ensure!(applied["failed"] == Value::Array(Vec::new()), "{applied}");
    ensure!(
        applied["applied"].as_array().map(Vec::len) == Some(2),
        "{applied}"
    );
    ensure!(setting(host, KEYS[0])? == "8192" && setting(host, KEYS[1])? == "16384");
    ensure!(setting(other, KEYS[0])? != "8192", "it is of one host");
    let file = std::fs::read_to_string(host.work_dir().join("90.conf"))?;
    ensure!(file.contains("net.core.somaxconn = 8192\n"), "{file}");
    // Again there is nothing to do, and nothing is forgotten.
    let again = tune(host, &program, &["--apply"])?;
    ensure!(again["applied"] == Value::Array(Vec::new()), "{again}");
    // What somebody else has set meanwhile stays.
    host.netns().sysctl(KEYS[1], "4096")?;
    let undone = tune(host, &program, &["--undo"])?;
    ensure!(
        setting(host, KEYS[0])? == "512" && setting(host, KEYS[1])? == "4096",
        "{undone}"
    );
    ensure!(
        !host.work_dir().join("90.conf").exists() && !host.work_dir().join("tune.json").exists()
    );
    Ok(())
}
