//! What rumqttd's codecs let pass in SUBSCRIBE and UNSUBSCRIBE.

use super::{
    DecodeError,
    packet::Version,
    properties::{Owner, check_properties},
    read_prefixed, read_variable,
};

/// Which of the two packets, and with it what follows a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Subscribe,
    Unsubscribe,
}

/// Walks over the whole body: packet identifier, properties, filters.
pub(super) fn check(body: &[u8], kind: Kind, version: Version) -> Result<(), DecodeError> {
    let mut rest = body.get(2..).ok_or(DecodeError::Malformed)?;
    if version.is_v5() {
        let (length, behind) = read_variable(rest)?;
        let (block, behind) = behind
            .split_at_checked(length)
            .ok_or(DecodeError::Malformed)?;
        let owner = match kind {
            Kind::Subscribe => Owner::Subscribe,
            Kind::Unsubscribe => Owner::Unsubscribe,
        };
        check_properties(block, owner)?;
        rest = behind;
    }
    while !rest.is_empty() {
        (_, rest) = read_prefixed(rest)?;
        if kind == Kind::Subscribe {
            let (options, behind) = rest.split_first().ok_or(DecodeError::Malformed)?;
            check_options(*options, version)?;
            rest = behind;
        }
    }
    Ok(())
}

fn check_options(options: u8, version: Version) -> Result<(), DecodeError> {
    let reserved = match version {
        // 3.1 has no rule about the bits that it does not use.
        Version::V31 => 0,
        // MQTT 3.1.1, 3.8.3-4.
        Version::V311 => 0b1111_1100,
        // MQTT 5, 3.8.3-5.
        Version::V5 => 0b1100_0000,
    };
    if options & reserved != 0 {
        return Err(DecodeError::Malformed);
    }
    // There are three ways to handle retained messages (MQTT 5, 3.8.3.1).
    if version.is_v5() && options & 0b0011_0000 == 0b0011_0000 {
        return Err(DecodeError::Protocol);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
