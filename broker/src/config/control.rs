//! The rules for how the broker is controlled and stopped.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use super::{check::Check, file};
use crate::control::DEFAULT_SOCKET;

/// The unix socket that the broker is controlled by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    pub socket: PathBuf,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Whose users may use it, by name or number.
    pub group: Option<String>,
    /// Nobody asked for it: the broker runs without it if it must.
    pub is_default: bool,
}

/// How a broker ends that is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// How long it serves on, not ready any more, so that a balancer sends new clients elsewhere.
    pub grace: Duration,
    /// How many clients are sent away a second then; all at once if `None`.
    pub rate: Option<NonZeroU32>,
}

impl Check<'_> {
    pub(super) fn control(&mut self, raw: file::Control) -> Control {
        let file::Control {
            socket,
            mode,
            group,
        } = raw;
        let is_default = socket.is_none();
        let path = match socket {
            Some(path) => {
                // `sun_path` has 108 bytes, and the socket is made under a longer name.
                if path.get_ref().is_empty() || path.get_ref().len() > 90 {
                    self.refuse("control.socket", path.span(), "a path of 1 to 90 bytes");
                }
                PathBuf::from(path.into_inner())
            }
            None => PathBuf::from(DEFAULT_SOCKET),
        };
        let mode = mode.map_or(0o660, |mode| {
            let bits = u32::from_str_radix(mode.get_ref(), 8).ok();
            bits.filter(|bits| *bits <= 0o777).unwrap_or_else(|| {
                self.refuse(
                    "control.mode",
                    mode.span(),
                    "not permission bits such as \"0660\" or \"0600\"",
                );
                0o600
            })
        });
        if let Some(group) = &group
            && group.get_ref().is_empty()
        {
            self.refuse("control.group", group.span(), "a group's name or number");
        }
        Control {
            socket: path,
            mode,
            group: group.map(toml::Spanned::into_inner),
            is_default,
        }
    }

    pub(super) fn stop(&mut self, raw: file::Stop) -> Stop {
        const LONGEST: Duration = Duration::from_mins(60);
        let span = raw.grace.as_ref().map_or(0..0, toml::Spanned::span);
        let grace = self.duration("stop.grace", raw.grace, Duration::ZERO);
        if grace > LONGEST {
            self.refuse("stop.grace", span, "at most \"60m\"");
        }
        let rate = self.number("stop.rate", raw.rate, 0, 0..100_001);
        Stop {
            grace,
            rate: u32::try_from(rate).ok().and_then(NonZeroU32::new),
        }
    }
}
