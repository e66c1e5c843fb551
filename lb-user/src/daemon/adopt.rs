//! Going on with the program and the maps that an earlier daemon has left forwarding.
//!
//! The maps say where every packet goes, so they are what the new daemon begins with:
//! [`crate::core::restore`] makes an image of them. From there on all is as after a reload: who is not in
//! the file any more leaves, who is new comes, who was up is up until probes say otherwise.
//!
//! What cannot go on is refused before anything is changed, and traffic goes on as it was.

use anyhow::Context as _;
use tracing::{info, warn};

use super::{engine::Engine, maps::Maps, state::StateDir, vips::Vips};
use crate::{
    config::model::Config,
    core::{balancer::adopt, image::MapImage},
    io::{
        datapath::{Datapath, Mismatch, PinError, Pins},
        netlink::{Netlink, NetlinkError},
    },
    journal::Journal,
};

/// The place for what is to outlive this process; none where there can be none.
pub(super) fn pins(config: &Config, interface: u32) -> anyhow::Result<Option<Pins>> {
    match Pins::open(config.pin_dir(), config.interface(), interface) {
        Ok(pins) => Ok(Some(pins)),
        Err(error @ PinError::NoFileSystem { .. }) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(
                error,
                "traffic ends with this process: nothing can be pinned"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The seed of the flow hash: the file's, else that by which packets go, else the one that is kept.
pub(super) fn seed(
    config: &Config,
    pins: Option<&Pins>,
    state: &StateDir,
) -> anyhow::Result<[u8; 16]> {
    if let Some(seed) = config.seed() {
        return Ok(seed);
    }
    let layout = pins.map(Pins::layout).transpose()?.flatten();
    match layout {
        Some(layout) => Ok(layout.seed()),
        None => state.seed(),
    }
}

/// What packets go by, if they do.
pub(super) fn picture(datapath: &mut Datapath) -> anyhow::Result<Option<MapImage>> {
    let image = datapath
        .adopted()
        .context("the maps that are in use cannot be taken over")?;
    if let Some(image) = &image {
        let (services, backends) = (image.services.len(), image.backends.len());
        info!(
            services,
            backends, "goes on where an earlier daemon has stopped"
        );
    }
    Ok(image)
}

/// `config`, with the backends that it lacks and that packets are sent to.
pub(super) fn with_remnants(
    config: Config,
    image: Option<&MapImage>,
    state: &StateDir,
) -> anyhow::Result<Config> {
    let Some(image) = image else {
        return Ok(config);
    };
    let mut remnants = adopt::remnants(&config, image);
    let names = state.names();
    for remnant in &mut remnants {
        remnant.name = names.get(&remnant.place()).cloned();
        let (service, backend) = (remnant.service.port(), remnant.address);
        info!(service, %backend, "backend is not in the file any more: it leaves");
    }
    Ok(config.with_remnants(remnants)?)
}

impl<M: Maps> Engine<M> {
    /// Takes `image` for what the maps hold, and for what was decided.
    ///
    /// # Errors
    ///
    /// If flows would not go on under this configuration.
    pub(super) fn adopt(&mut self, image: MapImage, has_room: bool) -> anyhow::Result<()> {
        self.balancer.adopt(&image);
        if !self.balancer.keeps_sources(&image) {
            let interface = self.balancer.config().interface();
            return Err(Pins::refuse(interface, Mismatch::Sources).into());
        }
        self.go_on_with(image, has_room);
        Ok(())
    }
}

/// Takes a program off that runs without a daemon, with its addresses; says whether there was one.
///
/// # Errors
///
/// If a daemon runs, or the kernel refuses: as long as an address is there the program stays.
pub async fn take_off(config: &Config) -> anyhow::Result<bool> {
    let _state = StateDir::open(config.state_dir(), config.interface())?;
    let netlink = Netlink::open()?;
    let interface = match netlink.interface(config.interface()).await {
        Ok(interface) => Some(interface),
        // Its addresses have gone with it, and its pins have not.
        Err(NetlinkError::NoSuchInterface { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let index = interface.as_ref().map_or(0, |interface| interface.index);
    let pins = Pins::open(config.pin_dir(), config.interface(), index)?;
    if let Some(interface) = interface {
        Vips::new(netlink, interface, Journal::default())
            .release()
            .await?;
    }
    Ok(pins.remove()?)
}

/// What a daemon that has ended has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its program, which goes on, with the addresses that belong to it.
    Forwarding,
    /// Neither a program nor, by now, an address.
    Nothing,
}

/// Takes addresses off that no program serves: the host's own TCP would answer their clients, and so
/// end their sessions. A daemon that could pin nothing leaves them when it is killed.
///
/// # Errors
///
/// If a daemon runs, or the kernel refuses.
pub async fn take_off_orphans(config: &Config) -> anyhow::Result<Left> {
    let _state = StateDir::open(config.state_dir(), config.interface())?;
    let netlink = Netlink::open()?;
    let interface = match netlink.interface(config.interface()).await {
        Ok(interface) => interface,
        Err(NetlinkError::NoSuchInterface { .. }) => return Ok(Left::Nothing),
        Err(error) => return Err(error.into()),
    };
    match Pins::open(config.pin_dir(), config.interface(), interface.index) {
        Ok(pins) if pins.are_in_force()? => return Ok(Left::Forwarding),
        Ok(_) | Err(PinError::NoFileSystem { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Vips::new(netlink, interface, Journal::default())
        .release()
        .await?;
    Ok(Left::Nothing)
}
