//! Embeds the balancer's XDP programs.

#[path = "../lb-ebpf/embed.rs"]
mod embed;

fn main() {
    embed::object("tidegate-xdp");
}
