//! rumqttd as its users run it: its own listener and sessions, configured by its own file.
//!
//! `cargo xtask bench broker` measures it beside the broker that is built round its router. Takes the
//! configuration's path.

use std::{env, error::Error, fs};

use rumqttd::{Broker, Config};

fn main() -> Result<(), Box<dyn Error>> {
    let path = env::args()
        .nth(1)
        .ok_or("usage: stock-rumqttd CONFIG (its repository has one: rumqttd.toml)")?;
    let config: Config = toml::from_str(&fs::read_to_string(path)?)?;
    Broker::new(config).start()?;
    Ok(())
}
