//! For how long a virtual router has an address, whatever becomes of its daemon.

/// What the daemon says of a virtual router's address, with each advert that it sends: until when no
/// peer can have taken it over. When that is past neighbours are not told any more that it is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Lease {
    /// In nanoseconds of the kernel's monotonic clock; 0 if the router is not Active.
    pub until: u64,
    /// The number of the router that goes on as Active if its daemon is killed and is back before that; 0
    /// if none does.
    pub vrid: u32,
    _padding: u32,
}

const _: () = assert!(size_of::<Lease>() == 16);

impl Lease {
    /// Addresses of virtual routers that there is room for.
    pub const LIMIT: u32 = 1_024;

    /// Until then, to be taken over by router `vrid`.
    #[must_use]
    pub const fn new(until: u64, vrid: u8) -> Self {
        Self {
            until,
            vrid: vrid as u32,
            _padding: 0,
        }
    }
}
