//! Embeds the decapsulator.

#[path = "../embed.rs"]
mod embed;

fn main() {
    embed::object("tidegate-decap");
}
