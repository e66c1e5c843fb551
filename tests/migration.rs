//! The way from HAProxy and keepalived to here and back, as docs/migration.md has it.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tests::balancer::{SOON, clients};
use tests::pair::Pair;
use xtask::lab::{ConfigText, Family, Process, wait_until};

use crate::vrrp_peers::keepalived;

const HAPROXY: &str = "global
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 2m
    timeout server 2m
listen mqtt
    bind *:1883
    balance roundrobin
    server emq1 172.16.40.20:1883 check inter 500ms fall 2 rise 1
    server emq2 172.16.40.21:1883 check inter 500ms fall 2 rise 1
";

/// As it is on the host with this address.
fn keepalived_conf(host: &str, priority: u8) -> String {
    format!(
        "global_defs {{\n router_id {host}\n vrrp_skip_check_adv_addr\n}}\n\
         vrrp_instance VI_1 {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
         priority {priority}\n advert_int 1\n mcast_src_ip {host}\n \
         authentication {{\n auth_type PASS\n auth_pass 1111\n }}\n \
         virtual_ipaddress {{\n 172.16.40.24/24\n }}\n}}\n"
    )
}

fn haproxy(pair: &Pair) -> Result<Process> {
    let host = pair.host(0);
    std::fs::write(host.work_dir().join("haproxy.cfg"), HAPROXY)?;
    let mut command = host.command("haproxy")?;
    command.args(["-db", "-f", "haproxy.cfg"]);
    command.current_dir(host.work_dir());
    let process = host.spawn("haproxy", command)?;
    wait_until(SOON, "HAProxy listening", || {
        let sockets = host.output("ss", &["-Hltn", "sport = :1883"]).ok()?;
        (!sockets.trim().is_empty()).then_some(())
    })
    .with_context(|| process.tail())?;
    Ok(process)
}

/// What `tidegate import` makes of lb2's own files, in a laboratory's directory.
fn imported(pair: &Pair) -> Result<String> {
    let host = pair.host(1);
    std::fs::write(host.work_dir().join("haproxy.cfg"), HAPROXY)?;
    let conf = keepalived_conf("172.16.40.23", 90);
    std::fs::write(host.work_dir().join("keepalived.conf"), conf)?;
    let mut command = host.command(&pair.lab.programs.tidegate)?;
    command.args(["import", "haproxy.cfg", "keepalived.conf"]);
    command.args(["--output", "imported.toml"]);
    let output = command.current_dir(host.work_dir()).output()?;
    ensure!(output.status.success(), "{output:?}");
    let text = std::fs::read_to_string(host.work_dir().join("imported.toml"))?;
    let text = ConfigText::from(text.as_str())
        .set("", "state_dir", "\"$DIR/state\"")
        .set("", "pin_dir", "\"$DIR/bpf\"")
        .set("api", "socket", "\"$DIR/tidegate.sock\"")
        .set("limits", "flows", "10000")
        .set("limits", "half_open", "10000");
    Ok(text.as_str().to_owned())
}

/// Waits until lb1's keepalived has the address, or has it no more.
fn wait_for_keepalived(pair: &Pair, has_it: bool) -> Result<()> {
    let what = format!("keepalived having the address: {has_it}");
    wait_until(SOON, &what, || {
        (pair.has_vip(0, Family::V4.vip()).ok()? == has_it).then_some(())
    })?;
    Ok(())
}

/// Clients of the VIP are served by way of a host.
fn serve(pair: &Pair, at: usize, name: &str) -> Result<()> {
    let load = pair.stay(name, clients(20))?;
    pair.wait_for_client(at)?;
    Pair::end(load)
}

#[test]
fn a_pair_of_haproxy_and_keepalived_moves_here_and_back() -> Result<()> {
    let mut pair = Pair::new()?;
    // Before: lb1 is Master, and clients are HAProxy's.
    let _haproxy = haproxy(&pair)?;
    let mut process = keepalived(pair.host(0), &keepalived_conf("172.16.40.22", 100))?;
    wait_for_keepalived(&pair, true)?;
    serve(&pair, 0, "before")?;
    // lb2 gets Tidegate, which hears keepalived, and takes nothing from it.
    let config = imported(&pair)?;
    pair.start(1, &config)?;
    pair.wait_for_role(1, "backup")?;
    wait_until(SOON, "keepalived being heard", || {
        (pair.router(1).ok()?.peer?.priority == 100).then_some(())
    })?;
    serve(&pair, 0, "beside")?;
    // keepalived's priority is lowered, and the address moves.
    let lower = keepalived_conf("172.16.40.22", 50);
    std::fs::write(pair.host(0).work_dir().join("keepalived.conf"), lower)?;
    process.signal(Signal::HUP)?;
    pair.wait_for_role(1, "active")?;
    wait_for_keepalived(&pair, false)?;
    serve(&pair, 1, "moved")?;
    let refused: u64 = pair.router(1)?.adverts.refused.values().sum();
    ensure!(refused == 0, "{refused} adverts were refused");
    // And back.
    pair.tell(1, &["vrrp", "release", "VI_1", "--wait"])?;
    wait_for_keepalived(&pair, true)?;
    pair.tell(1, &["stop", "--detach"])?;
    serve(&pair, 0, "back")
}
