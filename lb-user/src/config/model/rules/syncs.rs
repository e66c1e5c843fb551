//! The rules for the channel to the peer.

use std::path::PathBuf;

use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::Sync;
use crate::config::reader::Errors;

pub(super) fn check(raw: &file::Config, errors: &Errors) {
    let Some(sync) = &raw.sync else {
        return;
    };
    for socket in [&sync.listen, &sync.peer].into_iter().flatten() {
        let mut vips = raw.vips.iter().filter_map(|vip| vip.address.as_ref());
        if vips.any(|vip| vip.value.0 == socket.value.ip()) {
            let address = socket.value.ip().to_string();
            errors.add(&socket.place, Problem::IsVip { address });
        }
    }
    let (Some(listen), Some(peer)) = (&sync.listen, &sync.peer) else {
        return;
    };
    if listen.value.is_ipv4() != peer.value.is_ipv4() || listen.value.ip() == peer.value.ip() {
        errors.add(&peer.place, Problem::NoPeer);
    }
}

pub(super) fn build(raw: file::Sync) -> Option<Sync> {
    Some(Sync {
        listen: raw.listen?.value,
        peer: raw.peer?.value,
        key_file: PathBuf::from(raw.key_file?.value),
    })
}
