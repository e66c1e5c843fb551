//! What pinned maps are like, and whether that is what a start wants.

use std::{fs, io, mem::size_of, os::unix::fs::MetadataExt as _};

use lb_common::abi::{
    self, AccessKey, Backend, Bucket, Flow, FlowKey, Fragment, FragmentKey, Lease, Load, NatPool,
    Rates, Reply, Service, ServiceKey, SlotLine, SourceKey, TunnelSources,
};

use crate::io::datapath::{AttachedMode, Limits};

/// What another version must have alike: the number of the layout, and what no value of another length
/// makes up for.
const VERSION: u32 = digest(&[
    abi::LAYOUT as usize,
    size_of::<ServiceKey>(),
    size_of::<FlowKey>(),
    size_of::<AccessKey>(),
    size_of::<SlotLine>(),
    abi::SLOT_COUNT as usize,
    abi::TABLE_LINES as usize,
]);

/// The sizes of what may grow at its end from one version to the next.
const SIZES: u32 = digest(&[
    size_of::<Service>(),
    size_of::<Backend>(),
    size_of::<Flow>(),
    size_of::<Reply>(),
    size_of::<NatPool>(),
    size_of::<Load>(),
    size_of::<TunnelSources>(),
    size_of::<Rates>(),
    size_of::<Bucket>(),
    // These begin empty wherever others do not fit.
    size_of::<Fragment>(),
    size_of::<FragmentKey>(),
    size_of::<SourceKey>(),
    size_of::<Lease>(),
]);

/// The one value of the map `LAYOUT`. Its own form never changes but for `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// [`VERSION`]: of another one nothing else can be read.
    version: u32,
    /// [`SIZES`]: maps of others are moved.
    sizes: u32,
    seed: [u8; 16],
    limits: [u32; 7],
    /// How the program is attached: 0 natively, 1 generically.
    mode: u32,
    /// The network namespace: names and indexes of interfaces are its own.
    namespace: u64,
}

const _: () = assert!(size_of::<Layout>() == 64);

// SAFETY: repr(C) of integers and bytes, and no padding, as their sizes add up to the whole.
unsafe impl aya::Pod for Layout {}

/// Why pinned maps are not what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "its maps have the layout of another version of tidegate: start the version that it was, to go on"
    )]
    Version,
    #[error("`limits` have no room for what its maps hold: put the old values back, to go on")]
    Limits,
    #[error("`seed` has changed: put the old value back, to go on")]
    Seed,
    #[error("it belongs to another network namespace: give this one a pin_dir of its own")]
    Namespace,
    #[error("some of its maps are not pinned any more")]
    Missing,
    #[error(
        "the interface that it is attached to has another name meanwhile: give it back, to go on"
    )]
    Interface,
    #[error(
        "NAT would send from other addresses (`nat.sources`) than its flows are bound to: put them back, to go on"
    )]
    Sources,
}

impl Layout {
    /// What a start with these settings makes, in this network namespace.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell the namespace.
    pub fn new(seed: [u8; 16], limits: &Limits) -> io::Result<Self> {
        let Limits {
            services,
            backends,
            flows,
            half_open,
            access_entries,
            fragments,
            sources,
        } = *limits;
        Ok(Self {
            version: VERSION,
            sizes: SIZES,
            seed,
            limits: [
                services.into(),
                backends.into(),
                flows,
                half_open,
                access_entries,
                fragments,
                sources,
            ],
            mode: 0,
            namespace: fs::metadata("/proc/self/ns/net")?.ino(),
        })
    }

    /// The seed of the flow hash.
    #[must_use]
    pub const fn seed(&self) -> [u8; 16] {
        self.seed
    }

    /// How the program is attached.
    pub(in crate::io::datapath) const fn mode(&self) -> AttachedMode {
        if self.mode == 0 {
            AttachedMode::Native
        } else {
            AttachedMode::Generic
        }
    }

    pub(in crate::io::datapath) fn attached(self, mode: AttachedMode) -> Self {
        Self {
            mode: u32::from(mode == AttachedMode::Generic),
            ..self
        }
    }

    pub(super) const fn services(&self) -> u32 {
        self.limits[0]
    }

    /// Whether a start that wants `wanted` can go on with what is like this.
    pub(super) fn check(&self, wanted: &Self) -> Result<(), Mismatch> {
        let Self {
            version,
            sizes,
            seed,
            limits,
            mode: _,
            namespace,
        } = *wanted;
        if self.version != version {
            Err(Mismatch::Version)
        } else if self.namespace != namespace {
            Err(Mismatch::Namespace)
        } else if self.seed != seed {
            Err(Mismatch::Seed)
        } else if (self.sizes, self.limits) != (sizes, limits) {
            Err(Mismatch::Limits)
        } else {
            Ok(())
        }
    }
}

/// FNV-1a, for telling lists of sizes apart.
const fn digest(sizes: &[usize]) -> u32 {
    let mut digest = 0x811c_9dc5_u32;
    let mut at = 0;
    while at < sizes.len() {
        digest = (digest ^ sizes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        services: 4,
        backends: 16,
        flows: 1_000,
        half_open: 1_000,
        access_entries: 10,
        fragments: 16,
        sources: 16,
    };

    fn layout() -> Layout {
        Layout::new([7; 16], &LIMITS).unwrap()
    }

    #[test]
    fn the_same_settings_go_on() {
        assert_eq!(layout().check(&layout()), Ok(()));
        // How it is attached is not the maps' business.
        let generic = layout().attached(AttachedMode::Generic);
        assert_eq!(generic.check(&layout()), Ok(()));
        assert_eq!(generic.mode(), AttachedMode::Generic);
    }

    #[test]
    fn each_difference_is_told() {
        let wanted = layout();
        let other = |change: fn(&mut Layout)| {
            let mut found = layout();
            change(&mut found);
            found.check(&wanted)
        };
        assert_eq!(other(|found| found.version += 1), Err(Mismatch::Version));
        assert_eq!(other(|found| found.sizes ^= 1), Err(Mismatch::Limits));
        assert_eq!(other(|found| found.seed[3] ^= 1), Err(Mismatch::Seed));
        assert_eq!(other(|found| found.limits[2] = 5), Err(Mismatch::Limits));
        assert_eq!(
            other(|found| found.namespace += 1),
            Err(Mismatch::Namespace)
        );
        // What another version means by its limits nobody knows.
        let older = |found: &mut Layout| (found.version, found.limits[0]) = (0, 99);
        assert_eq!(other(older), Err(Mismatch::Version));
    }

    #[test]
    fn lists_of_sizes_differ() {
        assert_ne!(digest(&[16, 20]), digest(&[20, 16]));
        assert_ne!(digest(&[16, 20]), digest(&[16, 24]));
    }
}
