//! How far a translated connection has come in closing.

use lb_common::abi::FlowKey;

use super::{Table, reply_at};

/// Notes the client's FIN.
#[inline(always)]
pub fn note_client_end(table: Table, reply: &FlowKey, end: u32) {
    if let Some(value) = reply_at(table, reply) {
        // SAFETY: the pointer came from a look-up, hence to a value that stays mapped. Should the
        // entry have been handed out again, another connection's port is kept for longer.
        unsafe { (*value).client_end = end };
    }
}

/// The sequence number behind the client's last FIN; 0 if it has sent none.
#[inline(always)]
pub fn client_end(table: Table, reply: &FlowKey) -> u32 {
    // SAFETY: as in `note_client_end`.
    reply_at(table, reply).map_or(0, |value| unsafe { (*value).client_end })
}

/// Notes the backend's FIN, if the client's came before it: that is acknowledged then.
#[inline(always)]
pub fn note_backend_end(table: Table, reply: &FlowKey, acknowledged: u32, end: u32) {
    if let Some(value) = reply_at(table, reply) {
        // SAFETY: as in `note_client_end`.
        unsafe {
            if (*value).client_end != 0 && (*value).client_end == acknowledged {
                (*value).backend_end = end;
            }
        }
    }
}

/// Whether a client's acknowledgement is the last that its backend waits for.
#[inline(always)]
pub fn is_last(table: Table, reply: &FlowKey, acknowledged: u32) -> bool {
    let Some(value) = reply_at(table, reply) else {
        return false;
    };
    // SAFETY: as in `note_client_end`.
    let end = unsafe { (*value).backend_end };
    end != 0 && end == acknowledged
}
