//! One file per wire format: its request, response and error bodies, and their mapping.

pub(super) mod native;
pub(super) mod tei;
