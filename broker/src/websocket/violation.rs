//! What a client does with a WebSocket that RFC 6455 does not allow, or MQTT does not.

use std::io;

use thiserror::Error;

use super::decoder::close;
use crate::metrics::Metric;

/// Why a WebSocket is closed on its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum Violation {
    /// MQTT is binary (MQTT 5, 6.0.0-1).
    #[error("a text frame, where MQTT is binary")]
    Text,
    /// Only clients mask, and all of them do (5.1).
    #[error("a frame without a mask")]
    Unmasked,
    #[error("a reserved bit, for an extension that was not agreed upon")]
    Extension,
    #[error("a frame of an unknown kind")]
    Opcode,
    /// Parts of messages do not mix (5.4).
    #[error("a frame that does not follow from the one before it")]
    Sequence,
    /// It may be neither long nor in parts (5.5).
    #[error("a control frame in parts, or longer than 125 bytes")]
    Control,
    /// The highest bit of a length is zero (5.2).
    #[error("a frame longer than any may be")]
    Length,
    #[error("a close frame with a code that nobody may send")]
    Close,
}

impl Violation {
    /// The code of the close frame that answers it (7.4.1).
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Text => close::UNSUPPORTED,
            Self::Unmasked
            | Self::Extension
            | Self::Opcode
            | Self::Sequence
            | Self::Control
            | Self::Length
            | Self::Close => close::PROTOCOL_ERROR,
        }
    }

    /// What it is counted as, beside the end of the connection.
    pub(crate) fn metric(self) -> Metric {
        match self {
            Self::Text => Metric::WebSocketText,
            Self::Unmasked => Metric::WebSocketUnmasked,
            Self::Extension => Metric::WebSocketExtension,
            Self::Opcode => Metric::WebSocketOpcode,
            Self::Sequence => Metric::WebSocketSequence,
            Self::Control => Metric::WebSocketControl,
            Self::Length => Metric::WebSocketLength,
            Self::Close => Metric::WebSocketClose,
        }
    }

    /// Finds out whether a stream has failed for this reason.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(io::ErrorKind::InvalidData, violation)
    }
}
