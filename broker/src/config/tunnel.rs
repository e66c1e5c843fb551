//! The rules of `[tunnel]`.

use lb_decap::{Mode, Prefix};
use toml::Spanned;

use super::{check::Check, file, model::Tunnel};

/// What balancers send GUE to unless told otherwise.
const GUE_PORT: i64 = 6080;

impl Tunnel {
    /// What Linux takes as the limit of a socket's segments.
    pub(crate) const MSS_MIN: u16 = 88;
    pub(crate) const MSS_MAX: u16 = 32_767;
}

impl Check<'_> {
    pub(super) fn tunnel(&mut self, raw: file::Tunnel, has_vip: bool) -> Tunnel {
        let file::Tunnel {
            interface,
            from,
            port,
            mode,
            mss,
        } = raw;
        if !has_vip {
            let message = "tunnelled packets are for virtual addresses: add a [vip] section";
            self.refuse("tunnel", interface.span(), message);
        }
        let segments = i64::from(Tunnel::MSS_MIN)..i64::from(Tunnel::MSS_MAX) + 1;
        let mss = mss.map(|mss| self.number("tunnel.mss", Some(mss), 0, segments));
        let port = self.number("tunnel.port", port, GUE_PORT, 1..65_536);
        Tunnel {
            interface: self.interface("tunnel.interface", interface),
            mode: self.mode(mode),
            from: self.senders(from),
            port: u16::try_from(port).unwrap_or_default(),
            mss: mss.map(|mss| u16::try_from(mss).unwrap_or_default()),
        }
    }

    fn senders(&mut self, list: Spanned<Vec<Spanned<String>>>) -> Vec<Prefix> {
        if list.get_ref().is_empty() {
            let message = "at least one prefix: what the balancers' tunnels send from";
            self.refuse("tunnel.from", list.span(), message);
        }
        let mut senders = Vec::new();
        for (index, text) in list.into_inner().into_iter().enumerate() {
            match text.get_ref().parse() {
                Ok(prefix) => senders.push(prefix),
                Err(error) => {
                    let key = format!("tunnel.from[{index}]");
                    self.refuse(&key, text.span(), format!("{error}"));
                }
            }
        }
        senders
    }

    fn mode(&mut self, mode: Option<Spanned<String>>) -> Mode {
        match mode.as_ref().map(|mode| mode.get_ref().as_str()) {
            None | Some("auto") => Mode::Auto,
            Some("native") => Mode::Native,
            Some("generic") => Mode::Generic,
            Some(_) => {
                let span = mode.as_ref().map_or(0..0, Spanned::span);
                let message = "must be \"auto\", \"native\" or \"generic\"";
                self.refuse("tunnel.mode", span, message);
                Mode::Auto
            }
        }
    }
}
